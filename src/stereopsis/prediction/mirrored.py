"""The right view's disparity from any predictor: flipped left to right, the right image is a left one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from stereopsis.confidence import agreement
from stereopsis.geometry import occlusion
from stereopsis.structures import Predictor, StereoOutput, StereoPair


@dataclass(frozen=True)
class Mirrored:
    """Adds `right_disparity` and `occluded` (left-right check) to a predictor that gives the left view only.

    threshold: pixels by which the two views may differ. Confidence stays the predictor's own; where it
    has none, it is the two views' agreement.
    """

    predictor: Predictor
    threshold: float = 1.0

    def __call__(self, pair: StereoPair) -> StereoOutput:
        output = self.predictor(pair)
        right = output.right_disparity
        if right is None:
            right = self.predictor(StereoPair(pair.right.flip(-1), pair.left.flip(-1))).disparity.flip(-1)
        confidence = output.confidence
        return dataclasses.replace(
            output,
            right_disparity=right,
            occluded=occlusion(output.disparity, right, threshold=self.threshold),
            confidence=agreement(output.disparity, right) if confidence is None else confidence,
        )
