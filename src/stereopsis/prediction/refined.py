"""`sgbm-refined`: semi-global matching and `fast` look at one pair; at every pixel the surer one answers.

Matching is precise where there is texture, down to thin things; the network also knows what plain, hidden
and repeating surfaces are likely to be. Both say how sure they are, in the same unit.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from stereopsis.geometry import occlusion
from stereopsis.prediction.classical import SGBM
from stereopsis.prediction.runtimes import runtime_of
from stereopsis.structures import Predictor, StereoOutput, StereoPair

_AGREEMENT = 2.0
"""Pixels within which two answers are measurements of one disparity."""


@dataclass(frozen=True, kw_only=True)
class RefinedSGBM:
    """matcher: of both views, its confidence fitted; network: whose confidence is a probability too;
    max_disparity: pixels, the range that was asked for.

    Where the two agree to 2 px the disparity is their mean, weighted by confidence, and the confidence that
    of the surer. Elsewhere it is the surer's, and the confidence times the chance that the other is wrong.
    What the network finds beyond `max_disparity` does not count.
    """

    matcher: Predictor
    network: Predictor
    max_disparity: int | None = None

    @property
    def runtime(self) -> str | None:
        """What runs the network."""
        return runtime_of(self.network)

    def __call__(self, pair: StereoPair) -> StereoOutput:
        found, seen = self.matcher(pair), self.network(pair)
        ours, theirs, right = found.confidence, seen.confidence, found.right_disparity
        if ours is None or theirs is None or right is None:
            raise ValueError("sgbm-refined needs a matcher of both views and a network with confidence")
        if self.max_disparity is not None:
            theirs = torch.where(seen.disparity > self.max_disparity, 0.0, theirs)
        agreed = (found.disparity - seen.disparity).abs() < _AGREEMENT
        mean = (ours * found.disparity + theirs * seen.disparity) / (ours + theirs).clamp(min=1e-6)
        surer = torch.where(theirs > ours, seen.disparity, found.disparity)
        disparity = torch.where(agreed, mean, surer)
        sure, unsure = torch.maximum(ours, theirs), torch.minimum(ours, theirs)
        return StereoOutput(
            disparity,
            torch.where(agreed, sure, sure * (1 - unsure)),
            right_disparity=right,
            occluded=occlusion(disparity, right),
        )

    def for_width(self, width: int) -> RefinedSGBM:
        """The same with the range that the matcher takes at this width, for parts of such images."""
        matcher = self.matcher
        return dataclasses.replace(
            self, matcher=matcher.for_width(width) if isinstance(matcher, SGBM) else matcher
        )
