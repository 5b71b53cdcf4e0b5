"""The loop of recurrent updates: where it starts, when it may stop, what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stereopsis.layers.convolution import channels_innermost
from stereopsis.structures import IterativeOutput

KEPT = 4
"""How many of the last fields evaluation keeps, for the confidence that convergence gives."""

States = list[Tensor]


def refine(
    field: Float[Tensor, "b h w"],
    states: Sequence[Tensor],
    step: Callable[[States, Tensor], tuple[States, Tensor]],
    upsample: Callable[[Tensor, Tensor], Tensor],
    *,
    factor: int,
    iterations: int,
    stop_below: float | None,
    training: bool,
) -> IterativeOutput:
    """Updates a disparity field, in its own pixels, `iterations` times.

    step: (hidden states, field) to (new states, the field's change); upsample: (field, finest state) to
    the full-resolution disparity, `factor` times as large. Gradients do not pass from one iteration to
    the one before through the field. With stop_below, in full-resolution pixels, the loop ends once the
    mean change is smaller. In training every iterate is upsampled; else only the last, and `iterates`
    are the last coarse fields, each cell a constant.
    """
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, it is {iterations}")
    states, fields = list(states), []
    for _ in range(iterations):
        field = field.detach()
        states, delta = step(states, field)
        field = field + delta
        fields.append(upsample(field, states[0]) if training else field)
        if stop_below is not None and settled(delta, stop_below / factor):
            break
    if training:
        return IterativeOutput(fields[-1], iterates=tuple(fields))
    return IterativeOutput(upsample(field, states[0]), iterates=enlarged(fields[-KEPT:], factor))


def normalised(image: Float[Tensor, "b 3 h w"], *, training: bool) -> Float[Tensor, "b 3 h w"]:
    """An image in [0, 1] to [-1, 1], in evaluation laid out as convolutions like it best."""
    image = 2 * image - 1
    return image if training else channels_innermost(image)


def as_map(*fields: Float[Tensor, "b h w"]) -> Float[Tensor, "b c h w"]:
    """Fields as channels, which lie innermost in memory (with one channel that is a matter of strides)."""
    return torch.stack(fields, -1).permute(0, 3, 1, 2)


def starting_field(
    initial: Float[Tensor, "b hf wf"] | None, otherwise: Float[Tensor, "b h w"]
) -> Float[Tensor, "b h w"]:
    """A disparity given at full resolution as a field in its own coarse pixels; `otherwise` where unknown.

    initial: pixels of the full resolution, a whole multiple of the field's; not finite where unknown. A
    cell takes the mean of what is known in it.
    """
    if initial is None:
        return otherwise
    factor = initial.shape[-1] // otherwise.shape[-1]
    if initial.shape[-2:] != (factor * otherwise.shape[-2], factor * otherwise.shape[-1]):
        raise ValueError(
            f"the initial disparity must have the size of the padded images: it is "
            f"{initial.shape[-1]}x{initial.shape[-2]}, the field {otherwise.shape[-1]}x{otherwise.shape[-2]}"
        )
    known = torch.isfinite(initial)
    total = F.avg_pool2d(torch.where(known, initial, torch.zeros_like(initial))[:, None], factor)[:, 0]
    share = F.avg_pool2d(known[:, None].to(initial.dtype), factor)[:, 0]
    return torch.where(share > 0, total / share.clamp(min=1e-6) / factor, otherwise)


def settled(delta: Float[Tensor, "b h w"], threshold: float) -> bool:
    """True where the mean update of every image of the batch is below the threshold (of the same unit)."""
    return bool(delta.abs().mean((1, 2)).max() < threshold)


def enlarged(fields: Sequence[Float[Tensor, "b h w"]], factor: int) -> tuple[Tensor, ...]:
    """Coarse fields as full-resolution disparities, each cell a constant."""
    return tuple(factor * F.interpolate(field[:, None], scale_factor=factor)[:, 0] for field in fields)
