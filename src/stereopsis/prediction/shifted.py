"""Disparities that begin elsewhere than at 0: the right image is moved, what moved it is added back."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stereopsis.structures import Predictor, StereoOutput, StereoPair


@dataclass(frozen=True)
class Shifted:
    """A predictor of disparities from 0 on, made to find those from `offset` on (negative: converging views).

    The right image moves right by `offset`, its border repeated. Only disparity, confidence and
    occlusion are kept: wrap in `Mirrored` for the right view.
    """

    predictor: Predictor
    offset: int

    def __call__(self, pair: StereoPair) -> StereoOutput:
        width = pair.size[1]
        columns = (torch.arange(width) - self.offset).clamp(0, width - 1)
        output = self.predictor(StereoPair(pair.left, pair.right[..., columns.to(pair.right.device)]))
        return StereoOutput(output.disparity + self.offset, output.confidence, occluded=output.occluded)
