"""Which pixels of a teacher's answer become labels: every rejected pixel has its reasons.

The filters are pure functions of a pair and an output that give True where a pixel is rejected; a reason
mask holds one bit for each of them, 0 where the pixel is kept.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from stereopsis.confidence import box_mean, photometric_error
from stereopsis.geometry import left_right_error, warp
from stereopsis.structures import StereoOutput, StereoPair, luma

Mask = Bool[Tensor, "h w"]


class Reason(enum.IntFlag):
    """The bits of a reason mask."""

    UNKNOWN = 1
    CONFIDENCE = 2
    LEFT_RIGHT = 4
    RANGE = 8
    PHOTOMETRIC = 16
    SKY = 32
    SATURATED = 64

    @property
    def title(self) -> str:
        """As a reader of a report calls it."""
        return (self.name or "").lower().replace("_", "-")


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What is kept; None switches a filter off.

    confidence: smallest kept; left_right: pixels by which the two views may differ; min_disparity,
    max_disparity: the range kept, in pixels (in truth ranges the first is included, the second is not);
    photometric: largest difference of the matched images (see `photometric_error`); sky, saturated:
    whether such areas are dropped.
    """

    confidence: float | None = 0.5
    left_right: float | None = 1.0
    min_disparity: float = 0.0
    max_disparity: float | None = None
    photometric: float | None = 0.1
    sky: bool = True
    saturated: bool = True

    def __post_init__(self) -> None:
        if self.confidence is not None and not 0 <= self.confidence <= 1:
            raise ValueError(
                f"the smallest confidence kept must lie between 0 and 1, it is {self.confidence}"
            )
        for name in ("left_right", "photometric"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"the {name.replace('_', '-')} limit must be positive, it is {value}")
        if self.max_disparity is not None and not self.max_disparity > self.min_disparity:
            raise ValueError(
                f"the largest disparity kept must be above the smallest, {self.min_disparity:g}: "
                f"it is {self.max_disparity:g}"
            )

    def reasons(self, pair: StereoPair, output: StereoOutput) -> UInt8[Tensor, "h w"]:
        """The reason mask of one pair's output (no leading axes).

        Raises ValueError where a filter needs the confidence or the right view that the output lacks.
        """
        disparity = output.disparity
        rejected: dict[Reason, Mask] = {Reason.UNKNOWN: ~disparity.isfinite()}
        if self.confidence is not None:
            rejected[Reason.CONFIDENCE] = below_confidence(output, self.confidence)
        if self.left_right is not None:
            rejected[Reason.LEFT_RIGHT] = contradicted(output, self.left_right)
        highest = math.inf if self.max_disparity is None else self.max_disparity
        beyond = (disparity < self.min_disparity) | (disparity >= highest)
        rejected[Reason.RANGE] = beyond & disparity.isfinite()
        if self.photometric is not None:
            error = photometric_error(pair.left, pair.right, disparity)
            rejected[Reason.PHOTOMETRIC] = error > self.photometric
        if self.sky:
            rejected[Reason.SKY] = sky(pair.left)
        if self.saturated:
            rejected[Reason.SATURATED] = saturated(pair, disparity)
        bits = torch.zeros(disparity.shape, dtype=torch.uint8)
        for reason, mask in rejected.items():
            bits |= mask.to(torch.uint8) * int(reason)
        return bits

    def plain(self) -> dict[str, object]:
        """As JSON holds it."""
        return dataclasses.asdict(self)


def shares(reasons: UInt8[Tensor, "h w"]) -> dict[str, float]:
    """The share of pixels that each reason rejects, by its title; a pixel may have several."""
    return {
        reason.title: round(float((reasons.bitwise_and(int(reason)) > 0).float().mean()), 6)
        for reason in Reason
    }


def below_confidence(output: StereoOutput, threshold: float) -> Mask:
    """Less sure than the threshold; what has no number is not sure."""
    if output.confidence is None:
        raise ValueError("the teacher gives no confidence: switch that filter off")
    return ~(output.confidence >= threshold)


def contradicted(output: StereoOutput, limit: float) -> Mask:
    """The right view's disparity at the match differs by more than `limit` pixels, or there is no match."""
    if output.right_disparity is None:
        raise ValueError("the teacher gives no right view: switch the left-right filter off")
    return left_right_error(output.disparity, output.right_disparity) > limit


def sky(image: Float[Tensor, "3 h w"]) -> Mask:
    """Bright or blue areas without texture that reach the upper border and cover 1 % of the image.

    A guess from colours alone, made for open air: it also takes a bright plain ceiling, whose
    disparity is worth little too.
    """
    gray = luma(image)[0]
    padded = F.pad(gray[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    across = (padded[1:-1, 2:] - padded[1:-1, :-2]).abs() / 2
    down = (padded[2:, 1:-1] - padded[:-2, 1:-1]).abs() / 2
    blue = (image[2] > image[0] + 0.04) & (gray > 0.3)
    plain = (box_mean(across + down, 5) < 0.015) & (blue | (gray > 0.85))
    return torch.from_numpy(_reaching_the_top(plain.numpy(), smallest=0.01))


def _reaching_the_top(mask: np.ndarray, *, smallest: float) -> np.ndarray:
    """Connected parts of the mask that touch the first row and cover that share of the image."""
    count, labels, facts, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    large = facts[:, cv2.CC_STAT_AREA] >= smallest * mask.size
    top = np.zeros(count, bool)
    top[np.asarray(labels[0], np.intp)] = True
    chosen = large & top
    chosen[0] = False
    return chosen[np.asarray(labels, np.intp)]


def saturated(pair: StereoPair, disparity: Float[Tensor, "h w"]) -> Mask:
    """Areas that are burnt out or black in either image, at least 3 x 3 pixels large, where they match."""
    left, right = (_clipped(image) for image in (pair.left, pair.right))
    matched, inside = warp(right.float()[None], disparity)
    return left | ((matched[0] > 0.5) & inside)


def _clipped(image: Float[Tensor, "3 h w"]) -> Mask:
    out = (image.amin(0) >= 0.99) | (image.amax(0) <= 0.01)
    areas = cv2.morphologyEx(out.numpy().astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    return torch.from_numpy(areas > 0)
