"""Test-time augmentation: one answer from the pair as it is, turned over, at other scales, in other light."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from stereopsis.confidence import from_pixels
from stereopsis.imaging import apply_gamma
from stereopsis.prediction.rescaled import Rescaled
from stereopsis.structures import Predictor, StereoOutput, StereoPair


@dataclass(frozen=True, kw_only=True)
class Variants:
    """How a pair is shown beside as it is. flip: upside down; scales: of the images; gammas: of the light."""

    flip: bool = False
    scales: tuple[float, ...] = ()
    gammas: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for scale in self.scales:
            if not 0.1 <= scale <= 4 or scale == 1:
                raise ValueError(
                    f"a scale to average over must lie between 0.1 and 4, not at 1: it is {scale}"
                )
        for gamma in self.gammas:
            if not 0.1 <= gamma <= 10 or gamma == 1:
                raise ValueError(
                    f"a gamma to average over must lie between 0.1 and 10, not at 1: it is {gamma}"
                )

    @property
    def count(self) -> int:
        """Passes a pair, the plain one included."""
        return 1 + self.flip + len(self.scales) + len(self.gammas)


@dataclass(frozen=True)
class Augmented:
    """The mean of the answers that lie within a pixel of their median, of one predictor on each variant.

    A mirrored pair with its views swapped answers for the right view, so that only turning the pair over
    gives the left view again. Confidence is the mean of the answers' own, times 1 / (1 + their standard
    deviation in pixels). What is unknown in more than half of the answers stays so.
    """

    predictor: Predictor
    variants: Variants

    def __call__(self, pair: StereoPair) -> StereoOutput:
        outputs = list(self.answers(pair))
        disparities = torch.stack([output.disparity for output in outputs])
        confidence = from_pixels(spread(disparities))
        own = [output.confidence for output in outputs if output.confidence is not None]
        if len(own) == len(outputs):
            confidence = confidence * torch.stack(own).mean(0)
        disparity = consensus(disparities)
        return StereoOutput(disparity, torch.where(disparity.isfinite(), confidence, 0.0))

    def answers(self, pair: StereoPair) -> Iterator[StereoOutput]:
        """Of the pair as it is, then of each variant, all at the pair's size and in its pixels."""
        yield self.predictor(pair)
        if self.variants.flip:
            turned = self.predictor(pair.map(lambda image: image.flip(-2)))
            confidence = None if turned.confidence is None else turned.confidence.flip(-2)
            yield StereoOutput(turned.disparity.flip(-2), confidence)
        for scale in self.variants.scales:
            yield Rescaled(self.predictor, scale)(pair)
        for gamma in self.variants.gammas:
            yield self.predictor(pair.map(lambda image, gamma=gamma: apply_gamma(image, gamma)))


def consensus(disparities: Float[Tensor, "k *b h w"]) -> Float[Tensor, "*b h w"]:
    """The mean of those within a pixel of the (lower) median; infinite where that is unknown."""
    median = torch.where(disparities.isnan(), math.inf, disparities).median(0).values
    near = (disparities - median).abs() <= 1
    total = torch.where(near, disparities, 0.0).sum(0)
    return torch.where(median.isfinite(), total / near.sum(0).clamp(min=1), math.inf)


def spread(disparities: Float[Tensor, "k *b h w"]) -> Float[Tensor, "*b h w"]:
    """Pixels of standard deviation over k answers; infinite where any is unknown."""
    known = disparities.isfinite().all(0)
    deviation = torch.where(known, disparities, 0.0).std(0, correction=0)
    return torch.where(known, deviation, math.inf)
