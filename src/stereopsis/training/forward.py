"""A forward pass in training, at whatever size the pair has."""

from __future__ import annotations

from typing import Any

from stereopsis.models.base import StereoModel
from stereopsis.structures import StereoOutput, StereoPair


def padded_forward(model: StereoModel[Any, Any], pair: StereoPair) -> StereoOutput:
    """The network's output at the size of the pair, whatever sizes the network takes."""
    height, width = pair.size
    top, _, left, _ = model.padding.amounts(height, width)
    padded = pair.map(model.padding.pad)
    output: StereoOutput = model(padded.left, padded.right)
    return output if padded.size == pair.size else output.cropped(top, left, height, width)
