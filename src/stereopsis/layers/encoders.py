"""Residual encoders of RAFT-Stereo (Lipson, Teed, Deng, 3DV 2021), which IGEV and Selective-Stereo share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.convolution import ConvNorm, Norm, activate
from stereopsis.layers.mobilenet import Rules


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; the branch is rectified, too.

    The shortcut is a 1x1 convolution (always with bias) where shapes change, or anyway with `project`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        norm: Norm,
        stride: int = 1,
        bias: bool = True,
        project: bool = False,
    ) -> None:
        super().__init__()
        self.first = ConvNorm(inputs, outputs, stride=stride, norm=norm, activation="relu", bias=bias)
        self.second = ConvNorm(outputs, outputs, norm=norm, activation="relu", bias=bias)
        self.shortcut = nn.Identity()
        if project or stride != 1 or inputs != outputs:
            self.shortcut = ConvNorm(
                inputs, outputs, kernel=1, stride=stride, norm=norm, activation="none", bias=True
            )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b co ho wo"]:
        branch, shortcut = self.second(self.first(x)), self.shortcut(x)
        total = branch + shortcut if torch.is_grad_enabled() else branch.add_(shortcut)
        return activate(total, "relu")


class ResidualTrunk(nn.Module):
    """An image to 128 channels: a 7x7 convolution and three pairs of blocks.

    strides: of the convolution and of the last two pairs; see `raft_strides`.
    """

    def __init__(
        self, *, norm: Norm, strides: tuple[int, int, int], bias: bool = True, project: bool = False
    ) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 64, kernel=7, stride=strides[0], norm=norm, activation="relu", bias=bias)
        self.stages = nn.Sequential(
            residual_pair(64, 64, norm=norm, bias=bias, project=project),
            residual_pair(64, 96, norm=norm, stride=strides[1], bias=bias, project=project),
            residual_pair(96, 128, norm=norm, stride=strides[2], bias=bias, project=project),
        )

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 128 ho wo"]:
        x = self.stem(image)
        for pair in self.stages:
            for block in cast(nn.Sequential, pair):  # a call of the whole would keep its input until the end
                x = block(x)
        return x


def raft_strides(downsample: int) -> tuple[int, int, int]:
    """Strides of RAFT-Stereo's trunks to 1/2^downsample (0 to 3): the last pair is the first to halve."""
    return 1 + (downsample > 2), 1 + (downsample > 1), 1 + (downsample > 0)


def residual_pair(
    inputs: int, outputs: int, *, norm: Norm, stride: int = 1, bias: bool = True, project: bool = False
) -> nn.Sequential:
    return nn.Sequential(
        ResidualBlock(inputs, outputs, norm=norm, stride=stride, bias=bias, project=project),
        ResidualBlock(outputs, outputs, norm=norm, bias=bias, project=project),
    )


class FeatureEncoder(nn.Module):
    """Matching features: the trunk with instance norm and a 1x1 projection; strides as the trunk's."""

    def __init__(
        self,
        *,
        downsample: int = 2,
        strides: tuple[int, int, int] | None = None,
        outputs: int = 256,
        bias: bool = True,
        project: bool = False,
    ) -> None:
        super().__init__()
        strides = strides or raft_strides(downsample)
        self.trunk = ResidualTrunk(norm="instance", strides=strides, bias=bias, project=project)
        self.project = nn.Conv2d(128, outputs, 1)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c ho wo"]:
        return self.project(self.trunk(image))


class ContextMaps(NamedTuple):
    """Per level, finest first: the initial hidden state (after tanh) and the context (after ReLU)."""

    hidden: tuple[Tensor, ...]
    context: tuple[Tensor, ...]


class ContextEncoder(nn.Module):
    """The left image to hidden states and contexts of 128 channels at 1/2^downsample and coarser.

    levels: 1 to 3. The coarsest of three has a plain convolution for a head, the others a residual block
    before it.
    """

    def __init__(self, *, norm: Norm, downsample: int, levels: int) -> None:
        super().__init__()
        self.trunk = ResidualTrunk(norm=norm, strides=raft_strides(downsample))
        self.coarser = nn.ModuleList(residual_pair(128, 128, norm=norm, stride=2) for _ in range(levels - 1))
        self.hidden_heads = nn.ModuleList(_head(level, norm) for level in range(levels))
        self.context_heads = nn.ModuleList(_head(level, norm) for level in range(levels))

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> ContextMaps:
        return self.heads(self.trunk(image))

    def heads(self, finest: Float[Tensor, "b 128 h w"]) -> ContextMaps:
        """The maps from the trunk's output."""
        levels = [finest]
        for coarser in self.coarser:
            levels.append(coarser(levels[-1]))
        hidden = tuple(torch.tanh(head(x)) for head, x in zip(self.hidden_heads, levels, strict=True))
        context = tuple(torch.relu(head(x)) for head, x in zip(self.context_heads, levels, strict=True))
        return ContextMaps(hidden, context)


def _head(level: int, norm: Norm) -> nn.Sequential:
    project = nn.Conv2d(128, 128, 3, padding=1)
    return (
        nn.Sequential(project) if level == 2 else nn.Sequential(ResidualBlock(128, 128, norm=norm), project)
    )


def encoder_rules(published: str, ours: str, *, heads: tuple[str, ...] = ()) -> Rules:
    """Renaming rules of a FeatureEncoder, or of a ContextEncoder with its published heads, finest first.

    published, ours: prefixes without the final dot (`"fnet"`, `"features"`).
    """
    own = ours.replace(".", r"\.")
    rules = [
        (rf"^{published}\.conv1\.", f"{ours}.trunk.stem.conv."),
        (rf"^{published}\.norm1\.", f"{ours}.trunk.stem.norm."),
        (rf"^{published}\.conv2\.", f"{ours}.project."),
    ]
    rules += [(rf"^{published}\.layer{i}\.", f"{ours}.trunk.stages.{i - 1}.") for i in (1, 2, 3)]
    rules += [(rf"^{published}\.layer{i}\.", f"{ours}.coarser.{i - 4}.") for i in (4, 5)]
    for level, head in enumerate(heads):
        for index, kind in enumerate(("hidden_heads", "context_heads")):
            tail = "0." if level == 2 else ""
            rules.append((rf"^{published}\.{head}\.{index}\.", f"{ours}.{kind}.{level}.{tail}"))
    block = rf"^({own}\.(?:trunk\.stages|coarser|hidden_heads|context_heads)\.\d+\.\d+)"
    return rules + residual_rules(block)


def residual_rules(block: str) -> Rules:
    """Renaming rules inside ResidualBlocks; block: the expression of their names, one group around all."""
    return [
        (rf"{block}\.conv1\.", r"\1.first.conv."),
        (rf"{block}\.norm1\.", r"\1.first.norm."),
        (rf"{block}\.conv2\.", r"\1.second.conv."),
        (rf"{block}\.norm2\.", r"\1.second.norm."),
        (rf"{block}\.downsample\.0\.", r"\1.shortcut.conv."),
        (rf"{block}\.downsample\.1\.", r"\1.shortcut.norm."),
    ]


def without_shortcut_aliases(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without `X.norm3.*`, under which published files hold `X.downsample.1.*` a second time.

    Raises ValueError where the two differ: then the file is not what it seems.
    """
    kept = {}
    for key, tensor in state.items():
        source = state.get(key.replace(".norm3.", ".downsample.1."))
        if ".norm3." not in key or source is None:
            kept[key] = tensor
        elif not torch.equal(tensor, source):
            raise ValueError(f"the checkpoint holds two different tensors for one shortcut norm: see {key!r}")
    return kept
