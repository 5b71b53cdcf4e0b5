"""`sgbm-refined`: semi-global matching, `fast`, and `fast` on a smaller pair, at every pixel by vote.

Matching is precise where there is texture, down to thin things; the network also knows what plain, hidden
and repeating surfaces are likely to be, and on the smaller pair it sees wider, though less exactly. All
three say how sure they are, in the same unit.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from stereopsis.geometry import occlusion
from stereopsis.prediction.classical import SGBM
from stereopsis.prediction.rescaled import EnlargingPredictor, Rescaled, enlargement
from stereopsis.prediction.runtimes import runtime_of
from stereopsis.structures import Predictor, StereoOutput, StereoPair

_AGREEMENT = 3.0
"""Pixels within which answers are measurements of one disparity."""
_SMALLER = 0.7
"""The width of the smaller pair, as a share of the width at which the network looks first."""
_EXACTNESS = (1.0, 1.0, 0.3)
"""How much the certainty of each answer counts in a mean: the smaller pair's pixels are larger."""


@dataclass(frozen=True, kw_only=True)
class RefinedSGBM:
    """matcher: of both views, its confidence fitted; network: whose confidence is a probability too;
    max_disparity: pixels, the range that was asked for.

    The three answers' median, each weighing as much as it is certain, decides which surface is seen. Its
    disparity is the mean of the answers within 3 px of the median; its confidence that of the surest of
    them, times their share of all certainty. What the network finds beyond `max_disparity` does not count.
    """

    matcher: Predictor
    network: EnlargingPredictor
    max_disparity: int | None = None

    @property
    def runtime(self) -> str | None:
        """What runs the network."""
        return runtime_of(self.network)

    def __call__(self, pair: StereoPair) -> StereoOutput:
        found, seen = self.matcher(pair), self.network(pair)
        scale = _SMALLER * enlargement(pair.size, self.network.least_pixels)
        smaller = Rescaled(self.network.at_size, scale)(pair)
        right = found.right_disparity
        if found.confidence is None or seen.confidence is None or smaller.confidence is None or right is None:
            raise ValueError("sgbm-refined needs a matcher of both views and a network with confidence")
        answers = torch.stack([found.disparity, seen.disparity, smaller.disparity])
        certainties = torch.stack([found.confidence, seen.confidence, smaller.confidence])
        if self.max_disparity is not None:
            beyond = answers > self.max_disparity
            answers = torch.where(beyond, found.disparity, answers)
            certainties[1:] = torch.where(beyond[1:], 0.0, certainties[1:])
        disparity, confidence = _settled(answers, certainties)
        return StereoOutput(
            disparity, confidence, right_disparity=right, occluded=occlusion(disparity, right)
        )

    def for_width(self, width: int) -> RefinedSGBM:
        """The same with the range that the matcher takes at this width, for parts of such images."""
        matcher = self.matcher
        return dataclasses.replace(
            self, matcher=matcher.for_width(width) if isinstance(matcher, SGBM) else matcher
        )


def _settled(
    answers: Float[Tensor, "three *b h w"], certainties: Float[Tensor, "three *b h w"]
) -> tuple[Float[Tensor, "*b h w"], Float[Tensor, "*b h w"]]:
    """The disparity of the surface that the weighted median picks, and how sure that is."""
    weights = certainties.clamp(min=1e-12)
    median = _weighted_median(answers, weights)
    agreeing = (answers - median).abs() < _AGREEMENT
    exactness = torch.tensor(_EXACTNESS, device=answers.device).reshape(-1, *[1] * median.ndim)
    exact = torch.where(agreeing, weights * exactness, 0.0)
    mean = (exact * torch.where(agreeing, answers, 0.0)).sum(0) / exact.sum(0)
    share = torch.where(agreeing, weights, 0.0).sum(0) / weights.sum(0)
    surest = torch.where(agreeing, certainties, 0.0).amax(0)
    return torch.where(agreeing.any(0), mean, median), share * surest


def _weighted_median(
    values: Float[Tensor, "three *b h w"], weights: Float[Tensor, "three *b h w"]
) -> Float[Tensor, "*b h w"]:
    """Of three: that with half of the weight or more, else the one in the middle. (Sorting takes longer.)"""
    first, second, third = values
    found = torch.maximum(torch.minimum(first, second), torch.minimum(torch.maximum(first, second), third))
    for value, heavy in zip(values, weights >= weights.sum(0) / 2, strict=True):
        found = torch.where(heavy, value, found)
    return found
