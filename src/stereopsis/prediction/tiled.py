"""Pairs too large for memory: overlapping windows, each shifted by its disparity, blended without seams.

A coarse pass over the whole pair, made smaller, tells which disparities each window holds. The right
window then lies further left by nearly the smallest of them, so that the predictor only has to find the
rest: a range that it knows, within a window that holds both ends of every match.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from itertools import pairwise, product

import torch
from jaxtyping import Float
from torch import Tensor

from stereopsis.prediction.rescaled import Rescaled
from stereopsis.structures import Predictor, StereoOutput, StereoPair

_SLACK = 4.0
"""Pixels by which the coarse pass may be wrong, per pixel of its own size (that is, times 1 / scale)."""

_CONFLICT = 2.0
"""Pixels by which two windows must differ at a place not to be averaged there."""

_COARSE_PIXELS = 250_000
_SMALLEST_WINDOW = 256 * 256


@dataclass(frozen=True)
class Window:
    """A core, and the larger part of the image that is predicted for it: (start, end) rows and columns."""

    core_rows: tuple[int, int]
    core_columns: tuple[int, int]
    rows: tuple[int, int]
    columns: tuple[int, int]
    offset: int
    """Pixels by which the right window lies further left."""


@dataclass(frozen=True)
class Tiled:
    """A predictor that never sees more than about `pixels` pixels at once.

    overlap: pixels on each side over which neighbours are blended. The predictor finds disparities from 0
    on (`Shifted` makes it so). coarse: what predicts the smaller pair, None: the predictor. A pair that
    fits goes through whole. Right disparity is left out: wrap in `Mirrored` for it.
    """

    predictor: Predictor
    pixels: int
    overlap: int = 64
    coarse: Predictor | None = None

    def __post_init__(self) -> None:
        if self.pixels < _SMALLEST_WINDOW:
            raise ValueError(f"windows need at least {_SMALLEST_WINDOW} pixels, not {self.pixels}")
        if self.overlap < 1:
            raise ValueError(f"windows must overlap by at least a pixel, not {self.overlap}")

    def __call__(self, pair: StereoPair) -> StereoOutput:
        height, width = pair.size
        if height * width <= self.pixels:
            return self.predictor(pair)
        flat = pair.map(lambda image: image.reshape(-1, *image.shape[-3:]))
        singles = [StereoPair(*views) for views in zip(flat.left, flat.right, strict=True)]
        return StereoOutput.stack([self._predict(single) for single in singles]).reshaped(
            pair.left.shape[:-3]
        )

    def _predict(self, pair: StereoPair) -> StereoOutput:
        canvas = _Canvas(pair.size)
        for window in self.windows(pair):
            output = self._quietly(_cut(pair, window))
            if output.confidence is None:
                raise ValueError("a tiled predictor must give confidence")
            canvas.add(window, output.disparity + window.offset, output.confidence, self.overlap)
        return canvas.output()

    def _quietly(self, pair: StereoPair) -> StereoOutput:
        """A range beyond the width of a window is not beyond that of the pair: no word of it."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="max_disparity")
            return self.predictor(pair)

    def windows(self, pair: StereoPair) -> list[Window]:
        """The windows of one pair, each with the offset that the coarse pass gives it."""
        height, width = pair.size
        scale = min(1.0, 0.98 * math.sqrt(min(_COARSE_PIXELS, self.pixels) / (height * width)))
        coarse = Rescaled(self.coarse or self._quietly, scale)(pair).disparity
        slack = math.ceil(_SLACK / scale)
        known = coarse[coarse.isfinite()]
        span = float(known.max() - known.min()) if known.numel() else 0.0
        reach = min(math.ceil(span) + 2 * slack + 2, width // 2)
        rows, columns = _grid(pair.size, self.pixels, self.overlap, reach)
        return [
            self._window(core, coarse, slack)
            for core in product(_cores(height, rows), _cores(width, columns))
        ]

    def _window(
        self, core: tuple[tuple[int, int], tuple[int, int]], coarse: Float[Tensor, "h w"], slack: int
    ) -> Window:
        height, width = coarse.shape
        (top, bottom), (left, right) = core
        rows = max(top - self.overlap, 0), min(bottom + self.overlap, height)
        start, end = max(left - self.overlap, 0), min(right + self.overlap, width)
        inside = coarse[slice(*rows), start:end]
        inside = inside[inside.isfinite()]
        if inside.numel() == 0:
            return Window(*core, rows, (start, end), 0)
        offset = math.floor(float(inside.min())) - slack
        offset = max(offset, 0) if float(coarse.min()) >= 0 else offset
        reach = math.ceil(float(inside.max())) - offset + slack
        return Window(*core, rows, (max(start - reach, 0), end), offset)


class _Canvas:
    """Windows laid over each other: means where they agree, the better placed and surer one where not.

    A mean of a foreground and a background that two windows see at one pixel would be neither.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.disparity, self.confidence, self.weights = (torch.zeros(size) for _ in range(3))

    def add(
        self,
        window: Window,
        disparity: Float[Tensor, "h w"],
        confidence: Float[Tensor, "h w"],
        overlap: int,
    ) -> None:
        """Sums of weighted values and of weights; what loses against what is there has no weight."""
        part = (slice(*window.rows), slice(*window.columns))
        weight = torch.where(disparity.isfinite(), _blend(window, self.size, overlap), 0.0)
        there = self.weights[part]
        present = self.disparity[part] / there.clamp(min=1e-6)
        conflict = (there > 0) & (weight > 0) & ((disparity - present).abs() > _CONFLICT)
        stronger = weight * (confidence + 1e-3) > self.confidence[part] + 1e-3 * there
        kept = torch.where(conflict & stronger, 0.0, 1.0)
        weight = torch.where(conflict & ~stronger, 0.0, weight)
        values = torch.where(weight > 0, disparity, 0.0)
        self.disparity[part] = kept * self.disparity[part] + values * weight
        self.confidence[part] = kept * self.confidence[part] + confidence * weight
        self.weights[part] = kept * there + weight

    def output(self) -> StereoOutput:
        known, weights = self.weights > 0, self.weights.clamp(min=1e-6)
        return StereoOutput(
            disparity=torch.where(known, self.disparity / weights, math.inf),
            confidence=torch.where(known, self.confidence / weights, 0.0).clamp(0, 1),
        )


def _cores(length: int, count: int) -> list[tuple[int, int]]:
    edges = [round(length * index / count) for index in range(count + 1)]
    return list(pairwise(edges))


def _grid(size: tuple[int, int], pixels: int, overlap: int, reach: int) -> tuple[int, int]:
    """How many rows and columns of windows: the least work among those within the limit."""
    best, least = None, math.inf
    for rows, columns in product(range(1, 65), repeat=2):
        height = min(math.ceil(size[0] / rows) + 1 + 2 * overlap, size[0])
        width = min(math.ceil(size[1] / columns) + 1 + 2 * overlap + reach, size[1])
        work = rows * columns * height * width
        narrow = (rows > 1 and size[0] / rows < 2 * overlap) or (
            columns > 1 and size[1] / columns < 2 * overlap
        )
        if height * width <= pixels and work < least and not narrow:
            best, least = (rows, columns), work
    if best is None:
        raise ValueError(
            f"windows of {pixels} pixels are too small for this pair, whose disparities span about {reach} "
            f"pixels: allow more memory, or predict at a smaller scale"
        )
    return best


def _cut(pair: StereoPair, window: Window) -> StereoPair:
    """Both windows; where the right one leaves the image, its border is repeated."""
    rows, (start, end) = slice(*window.rows), window.columns
    width = pair.size[1]
    columns = torch.arange(start - window.offset, end - window.offset).clamp(0, width - 1)
    return StereoPair(pair.left[..., rows, start:end].contiguous(), pair.right[..., rows, :][..., columns])


def _blend(window: Window, size: tuple[int, int], overlap: int) -> Float[Tensor, "h w"]:
    """Weights of a window's pixels, which add up to one over all windows."""
    vertical = _ramp(window.rows, window.core_rows, size[0], overlap)
    horizontal = _ramp(window.columns, window.core_columns, size[1], overlap)
    return vertical[:, None] * horizontal


def _ramp(window: tuple[int, int], core: tuple[int, int], length: int, overlap: int) -> Float[Tensor, " n"]:
    """Zero outside the blended borders, rising over twice the overlap around each end of the core."""
    position = torch.arange(*window) + 0.5
    rise = torch.ones_like(position) if core[0] == 0 else (position - core[0]) / (2 * overlap) + 0.5
    fall = torch.ones_like(position) if core[1] == length else (core[1] - position) / (2 * overlap) + 0.5
    return torch.minimum(rise, fall).clamp(0, 1)
