"""A forward pass in training, at whatever size the pair has."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from stereopsis.models.base import StereoModel
from stereopsis.structures import StereoOutput, StereoPair


def padded_forward(
    model: StereoModel[Any, Any], pair: StereoPair, *, initial: Float[Tensor, "b h w"] | None = None
) -> StereoOutput:
    """The network's output at the size of the pair, whatever sizes the network takes.

    initial: the disparity to start from, for networks that take one.
    """
    height, width = pair.size
    top, bottom, left, right = model.padding.amounts(height, width)
    padded = pair.map(model.padding.pad)
    options = {}
    if initial is not None:  # unknown in the padding
        options["initial"] = torch.nn.functional.pad(initial, (left, right, top, bottom), value=torch.inf)
    output: StereoOutput = model(padded.left, padded.right, **options)
    return output if padded.size == pair.size else output.cropped(top, left, height, width)


def restarted_forward(model: StereoModel[Any, Any], pair: StereoPair) -> StereoOutput:
    """The output of a network that starts from its own disparity of the pair, as on a still video."""
    with torch.no_grad():
        initial = padded_forward(model, pair).disparity
    return padded_forward(model, pair, initial=initial)
