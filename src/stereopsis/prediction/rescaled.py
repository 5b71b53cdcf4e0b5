"""Prediction at another size: less memory and a larger range below 1, finer structures above."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from stereopsis.structures import Predictor, StereoOutput, StereoPair


@dataclass(frozen=True)
class Rescaled:
    """The pair is resized by `scale`, its disparity back to the size and the pixels of the pair.

    Edges stay on edges, so that disparity scales exactly with the width. Between unknown and known
    disparity nothing is interpolated.
    """

    predictor: Predictor
    scale: float

    def __post_init__(self) -> None:
        if not 0.01 <= self.scale <= 16:
            raise ValueError(f"the scale must lie between 0.01 and 16, it is {self.scale}")

    def __call__(self, pair: StereoPair) -> StereoOutput:
        height, width = pair.size
        size = max(1, round(height * self.scale)), max(1, round(width * self.scale))
        if size == pair.size:
            return self.predictor(pair)
        output = self.predictor(pair.map(lambda image: _resized(image, size).clamp(0, 1)))
        factor = width / size[1]

        def disparity(values: Tensor) -> Tensor:
            return _resized_disparity(values, pair.size) * factor

        confidence, right, occluded = output.confidence, output.right_disparity, output.occluded
        return StereoOutput(
            disparity=disparity(output.disparity),
            confidence=None if confidence is None else _planes(confidence, pair.size),
            right_disparity=None if right is None else disparity(right),
            occluded=None if occluded is None else _resized_mask(occluded, pair.size),
        )


_LARGEST_GAIN = 2.0
"""Beyond it, enlarging adds blur alone."""


class EnlargingPredictor(Predictor, Protocol):
    """A predictor that enlarges pairs of fewer than `least_pixels` pixels, except by `at_size`."""

    @property
    def least_pixels(self) -> int: ...

    def at_size(self, pair: StereoPair) -> StereoOutput: ...


def enlargement(size: tuple[int, int], least_pixels: int) -> float:
    """What (height, width) is scaled by so that there are at least about so many pixels: 1 to 2."""
    return max(1.0, min(math.sqrt(least_pixels / math.prod(size)), _LARGEST_GAIN))


def enlarged(predictor: Predictor, pair: StereoPair, least_pixels: int) -> StereoOutput:
    """The pair predicted as if it had at least about so many pixels: at most twice as wide and high."""
    scale = enlargement(pair.size, least_pixels)
    return predictor(pair) if scale == 1 else Rescaled(predictor, scale)(pair)


def _resized(image: Float[Tensor, "*b c h w"], size: tuple[int, int]) -> Float[Tensor, "*b c hs ws"]:
    flat = image.reshape(-1, *image.shape[-3:])
    resized = F.interpolate(flat, size=size, mode="bilinear", align_corners=False, antialias=True)
    return resized.reshape(*image.shape[:-2], *size)


def _planes(values: Float[Tensor, "*b h w"], size: tuple[int, int]) -> Float[Tensor, "*b hs ws"]:
    return _resized(values[..., None, :, :], size)[..., 0, :, :]


def _resized_mask(mask: Bool[Tensor, "*b h w"], size: tuple[int, int]) -> Bool[Tensor, "*b hs ws"]:
    return _planes(mask.float(), size) >= 0.5


def _resized_disparity(values: Float[Tensor, "*b h w"], size: tuple[int, int]) -> Float[Tensor, "*b hs ws"]:
    known = values.isfinite()
    if bool(known.all()):
        return _planes(values, size)
    share = _planes(known.float(), size)
    total = _planes(torch.where(known, values, 0.0), size)
    return torch.where(share >= 0.5, total / share.clamp(min=0.5), torch.inf)
