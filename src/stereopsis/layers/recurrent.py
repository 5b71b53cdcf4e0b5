"""Recurrent updates of RAFT-Stereo, the IGEV family, Selective-Stereo: GRUs, motion encoder, delta head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Context = TypeVar("Context")


class ConvGRU(nn.Module):
    """A convolutional GRU whose context was convolved beforehand (RAFT-Stereo).

    `gates` gives update z and reset r from the hidden state and the inputs, `candidate` gives q from the
    reset hidden state and the inputs; the context's three shares are added before the nonlinearities.
    """

    def __init__(self, hidden: int, inputs: int, *, kernel: int | tuple[int, int] = 3) -> None:
        super().__init__()
        self.hidden = hidden
        rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (rows // 2, columns // 2)
        self.gates = nn.Conv2d(hidden + inputs, 2 * hidden, (rows, columns), padding=padding)
        self.candidate = nn.Conv2d(hidden + inputs, hidden, (rows, columns), padding=padding)

    def forward(
        self,
        hidden: Float[Tensor, "b c h w"],
        context: Float[Tensor, "b 3*c h w"],
        inputs: Sequence[Float[Tensor, "b _ h w"]],
    ) -> Float[Tensor, "b c h w"]:
        """context: the shares of z, r and q, in this order."""
        for_gates, for_candidate = context.split([2 * self.hidden, self.hidden], 1)
        joined = torch.cat([hidden, *inputs], 1)
        update, reset = self.gates(joined).add_(for_gates).sigmoid_().chunk(2, 1)
        if torch.is_grad_enabled():
            joined = torch.cat([reset * hidden, *inputs], 1)
        else:
            joined[:, : self.hidden].mul_(reset)
        candidate = self.candidate(joined).add_(for_candidate).tanh_()
        del joined
        return _blend(hidden, candidate, update)


def _blend(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """`a + share * (b - a)`, without gradients in the memory of b: only for one that nobody else holds."""
    if torch.is_grad_enabled() or not a.dtype == b.dtype == share.dtype:
        return a + share * (b - a)
    return b.sub_(a).mul_(share).add_(a)


class SeparableContext(NamedTuple):
    """The context's shares in both halves of a separable GRU."""

    horizontal: Float[Tensor, "b c3 h w"]
    vertical: Float[Tensor, "b c3 h w"]


class SeparableGRU(nn.Module):
    """RAFT's GRU (Teed and Deng, ECCV 2020): an update with 1x5 kernels, then one with 5x1.

    The published unit concatenates the context to its inputs; its share is convolved apart, as in
    SelectiveGRU.
    """

    def __init__(self, hidden: int, inputs: int, *, context: int) -> None:
        super().__init__()
        self.horizontal = ConvGRU(hidden, inputs, kernel=(1, 5))
        self.vertical = ConvGRU(hidden, inputs, kernel=(5, 1))
        self.horizontal_context = nn.Conv2d(context, 3 * hidden, (1, 5), padding=(0, 2), bias=False)
        self.vertical_context = nn.Conv2d(context, 3 * hidden, (5, 1), padding=(2, 0), bias=False)

    def prepare(self, context: Float[Tensor, "b c h w"]) -> SeparableContext:
        return SeparableContext(self.horizontal_context(context), self.vertical_context(context))

    def forward(
        self,
        hidden: Float[Tensor, "b c h w"],
        context: SeparableContext,
        inputs: Sequence[Float[Tensor, "b _ h w"]],
    ) -> Float[Tensor, "b c h w"]:
        hidden = self.horizontal(hidden, context.horizontal, inputs)
        return self.vertical(hidden, context.vertical, inputs)


class SelectiveContext(NamedTuple):
    """What a selective GRU needs of its context: where to look closely, and both kernels' shares."""

    attention: Float[Tensor, "b 1 h w"]
    small: Float[Tensor, "b c3 h w"]
    large: Float[Tensor, "b c3 h w"]


class SelectiveGRU(nn.Module):
    """GRUs of kernels 1 and 3 on the same inputs, blended by an attention map (Selective-Stereo, CVPR 2024).

    The published unit concatenates the context to its inputs. Convolution is linear, so the context's
    share is convolved apart, once for all iterations.
    """

    def __init__(self, hidden: int, inputs: int, *, context: int) -> None:
        super().__init__()
        self.small = ConvGRU(hidden, inputs, kernel=1)
        self.large = ConvGRU(hidden, inputs, kernel=3)
        self.small_context = nn.Conv2d(context, 3 * hidden, 1, bias=False)
        self.large_context = nn.Conv2d(context, 3 * hidden, 3, padding=1, bias=False)

    def prepare(
        self, context: Float[Tensor, "b c h w"], attention: Float[Tensor, "b 1 h w"]
    ) -> SelectiveContext:
        return SelectiveContext(attention, self.small_context(context), self.large_context(context))

    def forward(
        self,
        hidden: Float[Tensor, "b c h w"],
        context: SelectiveContext,
        inputs: Sequence[Float[Tensor, "b _ h w"]],
    ) -> Float[Tensor, "b c h w"]:
        small = self.small(hidden, context.small, inputs)
        large = self.large(hidden, context.large, inputs)
        return _blend(large, small, context.attention)


class MultilevelGRU(nn.Module, Generic[Context]):
    """GRUs at halving resolutions, finest first; each sees its finer neighbour pooled, its coarser enlarged.

    make_gru: (hidden, inputs) -> a GRU called with (hidden, context, inputs).
    """

    def __init__(
        self, levels: int, make_gru: Callable[[int, int], nn.Module], *, hidden: int = 128, motion: int = 128
    ) -> None:
        super().__init__()
        inputs = [(motion if level == 0 else hidden) for level in range(levels)]
        coarser = [(hidden if level < levels - 1 else 0) for level in range(levels)]
        self.grus = nn.ModuleList(make_gru(hidden, i + c) for i, c in zip(inputs, coarser, strict=True))

    def forward(
        self,
        hidden: Sequence[Float[Tensor, "b c _ _"]],
        contexts: Sequence[Context],
        motion: Float[Tensor, "b m h w"] | None = None,
        *,
        finest: int = 0,
    ) -> list[Tensor]:
        """The new states, updated from the coarsest level to `finest`; the finest of all needs `motion`."""
        states = list(hidden)
        for level in reversed(range(finest, len(states))):
            inputs = [motion] if level == 0 else [pool(states[level - 1])]
            if level < len(states) - 1:
                inputs.append(enlarge_to(states[level + 1], states[level]))
            states[level] = self.grus[level](states[level], contexts[level], inputs)
        return states


def pool(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c hp wp"]:
    """Means of 3x3 windows with stride 2; padded zeros count."""
    return F.avg_pool2d(x, 3, stride=2, padding=1)


def enlarge_to(x: Float[Tensor, "b c h w"], target: Float[Tensor, "b _ ht wt"]) -> Float[Tensor, "b c ht wt"]:
    """Bilinear resize to the target's size, corners on corners."""
    return F.interpolate(x, size=target.shape[-2:], mode="bilinear", align_corners=True)


class MotionEncoder(nn.Module):
    """Looked-up matching values and the present field to `outputs` channels, the field itself the last."""

    def __init__(
        self,
        values: int,
        *,
        outputs: int = 128,
        field: int = 1,
        value_widths: tuple[int, int] = (64, 64),
        field_widths: tuple[int, int] = (64, 64),
    ) -> None:
        super().__init__()
        self.value1 = nn.Conv2d(values, value_widths[0], 1)
        self.value2 = nn.Conv2d(value_widths[0], value_widths[1], 3, padding=1)
        self.field1 = nn.Conv2d(field, field_widths[0], 7, padding=3)
        self.field2 = nn.Conv2d(*field_widths, 3, padding=1)
        self.merge = nn.Conv2d(value_widths[1] + field_widths[1], outputs - field, 3, padding=1)

    def forward(
        self, values: Float[Tensor, "b k h w"], field: Float[Tensor, "b f h w"]
    ) -> Float[Tensor, "b c h w"]:
        seen = torch.relu_(self.value2(torch.relu_(self.value1(values))))
        been = torch.relu_(self.field2(torch.relu_(self.field1(field))))
        merged = torch.relu_(self.merge(torch.cat([seen, been], 1)))
        return torch.cat([merged, field], 1)


class DeltaHead(nn.Module):
    """The hidden state to a field's change, float32."""

    def __init__(self, hidden: int = 128, width: int = 256, outputs: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(hidden, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, outputs, 3, padding=1)

    def forward(self, hidden: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h w"]:
        return self.conv2(torch.relu_(self.conv1(hidden))).float()


def join_gates(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published GRUs' `convz`, `convr`, `convq` as ours: `gates` holds z and r, `candidate` q.

    Where a partner is missing the name stays, so that strict loading names it.
    """
    joined = {}
    for key, tensor in state.items():
        update, reset = key.replace(".convr.", ".convz."), key.replace(".convz.", ".convr.")
        if ".convq." in key:
            joined[key.replace(".convq.", ".candidate.")] = tensor
        elif ".convz." in key and reset in state:
            joined[key.replace(".convz.", ".gates.")] = torch.cat([tensor, state[reset]])
        elif not (".convr." in key and update in state):
            joined[key] = tensor
    return joined


def split_contexts(
    state: Mapping[str, Tensor], *, hidden: int = 128, context: int = 128
) -> dict[str, Tensor]:
    """Selective GRUs' weights, gates joined, the context's input channels moved to a convolution apart."""
    split = dict(state)
    for key in state:
        stem = key.removesuffix(".gates.weight")
        if stem == key or f"{stem}.candidate.weight" not in state:
            continue  # no GRU, or half of one: strict loading tells
        shares = []
        for part in ("gates", "candidate"):
            weight = state[f"{stem}.{part}.weight"]
            before, share, after = weight.tensor_split([hidden, hidden + context], 1)
            split[f"{stem}.{part}.weight"] = torch.cat([before, after], 1)
            shares.append(share)
        split[f"{stem}_context.weight"] = torch.cat(shares)
    return split
