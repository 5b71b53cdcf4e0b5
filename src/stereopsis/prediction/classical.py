"""OpenCV's semi-global matching (SGBM) as a predictor without weights.

H. Hirschmüller, "Stereo processing by semiglobal matching and mutual information", TPAMI 2008, in
OpenCV's form (Birchfield-Tomasi costs over blocks). Around it: images padded so that every column is
matched, both views, the left-right check, holes filled from the background, a median. All settings are
global, chosen once on open scenes of ten data sets, never per scene or per data set.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from stereopsis.geometry import left_right_error, occlusion
from stereopsis.prediction.certainty import Certainty
from stereopsis.structures import Predictor, StereoOutput, StereoPair

Disparity = Float32[np.ndarray, "h w"]
Known = Bool[np.ndarray, "h w"]
Mode = Literal["3way", "sgbm", "hh"]

_MODES = {
    "3way": cv2.STEREO_SGBM_MODE_SGBM_3WAY,
    "sgbm": cv2.STEREO_SGBM_MODE_SGBM,
    "hh": cv2.STEREO_SGBM_MODE_HH,
}

_STEP = 16
"""OpenCV searches multiples of 16 disparities and answers in sixteenths of a pixel."""

LARGEST_DISPARITY = 16384
"""No camera has more; OpenCV's 16-bit answer ends at 2048."""


@dataclass(frozen=True, kw_only=True)
class SGBM:
    """Semi-global matching; `SGBM()(pair)` gives disparity, right disparity, occlusion and confidence.

    mode: directions along which costs are summed: "3way" (3, quick), "sgbm" (5), "hh" (8, the full
    method: slightly better, three times slower, memory grows with pixels × disparities).
    min_disparity, max_disparity: pixels; the range is widened to a multiple of 16. Without a maximum: a
    quarter of the image's width, from `min_disparity`. A range beyond the width is cut, with a warning.
    block_size: odd, pixels. p1, p2: penalties of a disparity step of one pixel and of more, per colour
    value; None: 4 and 64 times 3 block_size². uniqueness: percent by which the best cost must win.
    prefilter_cap: where horizontal gradients are cut. speckle_size, speckle_range: islands of fewer
    pixels, whose disparity differs by more from their surroundings, are dropped.
    left_right: also match the right view and drop pixels whose disparities differ by more than this many
    pixels; None: left view only (twice as quick, no right disparity, cruder confidence).
    fill: "background" gives dropped pixels the smaller of the nearest disparities in their row; None
    leaves them infinite. median: size (0, 3 or 5) of a last median filter. certainty: turns confidence
    into a probability.

    Without it confidence is `1 / (1 + left-right error)`, thus ≥ 0.5, where matched (1 without the check),
    and `0.5 / (1 + distance)` to the nearest matched pixel of the row where filled; 0 where unknown.
    Occluded is where the filled views disagree. Images go in as 8-bit RGB.
    """

    mode: Mode = "3way"
    min_disparity: int = 0
    max_disparity: int | None = None
    block_size: int = 5
    p1: int | None = None
    p2: int | None = None
    uniqueness: int = 0
    prefilter_cap: int = 31
    speckle_size: int = 100
    speckle_range: int = 1
    left_right: float | None = 1.0
    fill: Literal["background"] | None = "background"
    median: Literal[0, 3, 5] = 5
    certainty: Certainty | None = None

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(f"sgbm's mode must be one of {', '.join(get_args(Mode))}, not {self.mode!r}")
        if self.block_size < 1 or self.block_size % 2 == 0:
            raise ValueError(f"sgbm's block_size must be odd and positive, it is {self.block_size}")
        if self.median not in (0, 3, 5):
            raise ValueError(f"sgbm's median must be 0, 3 or 5, it is {self.median}")
        if self.fill not in ("background", None):
            raise ValueError(f"sgbm's fill must be 'background' or None, it is {self.fill!r}")
        if abs(self.min_disparity) > LARGEST_DISPARITY:
            raise ValueError(f"min_disparity is {self.min_disparity} px: no pair has such disparities")
        if self.max_disparity is None:
            return
        if self.max_disparity <= self.min_disparity:
            raise ValueError(
                f"max_disparity must be above min_disparity, {self.min_disparity}: it is {self.max_disparity}"
            )
        if self.max_disparity > LARGEST_DISPARITY:
            raise ValueError(
                f"max_disparity is {self.max_disparity} px: at most {LARGEST_DISPARITY} makes sense"
            )

    def __call__(self, pair: StereoPair) -> StereoOutput:
        height, width = pair.size
        count = self.disparities(width)
        leading = pair.left.shape[:-3]
        left, right = (image.reshape(-1, 3, height, width) for image in (pair.left, pair.right))
        outputs = [self._match(*views, count) for views in zip(left, right, strict=True)]
        output = StereoOutput.stack(outputs).reshaped(leading)
        if self.certainty is None:
            return output
        return dataclasses.replace(output, confidence=self.certainty(pair, output))

    def disparities(self, width: int) -> int:
        """How many disparities are searched in images of this width: a multiple of 16."""
        widest = max(_up(width), _STEP)
        if self.max_disparity is None:
            return min(_up(-(-width // 4)), widest)
        count = _up(self.max_disparity - self.min_disparity)
        if self.max_disparity > width:
            warnings.warn(
                f"max_disparity {self.max_disparity} is cut to the image's width, {width}", stacklevel=1
            )
            count = min(count, max(_up(width - self.min_disparity), _STEP))
        return count

    def for_width(self, width: int) -> SGBM:
        """The same with the range that it takes at this width, for parts of such images."""
        return dataclasses.replace(self, max_disparity=self.min_disparity + self.disparities(width))

    def _match(self, left: Tensor, right: Tensor, count: int) -> StereoOutput:
        views = _eight_bit(left), _eight_bit(right)
        disparity, known = self._compute(*views, count)
        if self.left_right is None:
            confidence = np.ones_like(disparity)
            disparity, confidence = self._filled(disparity, known, confidence)
            return StereoOutput(torch.from_numpy(disparity), torch.from_numpy(confidence))
        mirrored, mirrored_known = self._compute(_flip(views[1]), _flip(views[0]), count)
        confidence, agreed = self._checked(disparity, known, _flip(mirrored), _flip(mirrored_known))
        _, mirrored_agreed = self._checked(mirrored, mirrored_known, _flip(disparity), _flip(known))
        disparity, confidence = self._filled(disparity, agreed, confidence)
        mirrored, _ = self._filled(mirrored, mirrored_agreed, np.ones_like(mirrored))
        result, right_result = torch.from_numpy(disparity), torch.from_numpy(_flip(mirrored))
        return StereoOutput(
            disparity=result,
            confidence=torch.from_numpy(confidence),
            right_disparity=right_result,
            occluded=occlusion(result, right_result, threshold=self.left_right),
        )

    def _compute(
        self, left: UInt8[np.ndarray, "h w 3"], right: UInt8[np.ndarray, "h w 3"], count: int
    ) -> tuple[Disparity, Known]:
        """The left view's disparity, and where OpenCV gave one.

        Images grow at the sides by repetition, so that every column can be matched over the whole range.
        """
        before, after = max(self.min_disparity + count, 0), max(-self.min_disparity, 0)
        grown = [
            cv2.copyMakeBorder(view, 0, 0, before, after, cv2.BORDER_REPLICATE) for view in (left, right)
        ]
        area = 3 * self.block_size**2
        matcher = cv2.StereoSGBM.create(
            minDisparity=self.min_disparity,
            numDisparities=count,
            blockSize=self.block_size,
            P1=4 * area if self.p1 is None else self.p1,
            P2=64 * area if self.p2 is None else self.p2,
            preFilterCap=self.prefilter_cap,
            uniquenessRatio=self.uniqueness,
            speckleWindowSize=self.speckle_size,
            speckleRange=self.speckle_range,
            mode=_MODES[self.mode],
        )
        raw = matcher.compute(*grown)[:, before : before + left.shape[1]]
        return (raw / np.float32(16)).astype(np.float32), raw >= 16 * self.min_disparity

    def _checked(
        self, disparity: Disparity, known: Known, other: Disparity, other_known: Known
    ) -> tuple[Disparity, Known]:
        """Confidence from the left-right error, and the pixels that pass the check and are no speckle."""
        unknown = np.float32(np.inf)
        error = left_right_error(
            torch.from_numpy(np.where(known, disparity, unknown)),
            torch.from_numpy(np.where(other_known, other, unknown)),
        ).numpy()
        agreed = error <= self.left_right
        sixteenths = np.where(agreed, np.rint(disparity * 16), -32768).astype(np.int16)
        cv2.filterSpeckles(sixteenths, -32768, self.speckle_size, 16 * self.speckle_range)
        return (1 / (1 + error)).astype(np.float32), sixteenths > -32768

    def _filled(
        self, disparity: Disparity, known: Known, confidence: Disparity
    ) -> tuple[Disparity, Disparity]:
        if self.fill is None:
            return np.where(known, disparity, np.float32(np.inf)), np.where(known, confidence, np.float32(0))
        return _filled_and_smoothed(disparity, known, confidence, self.median)


@dataclass(frozen=True, kw_only=True)
class RecordedSGBM:
    """`sgbm-oracle`: SGBM as in a recorded baseline, whose range was taken from each scene's truth.

    For comparison only. num_disparities: a multiple of 16. The settings are the record's: 3-way, block
    5, penalties 600 and 2400, uniqueness 10, speckles 100/32, no padding; holes take the nearest
    disparity to the left in their row, else the row's first. Confidence is 1 where SGBM answered, 0
    where filled.
    """

    num_disparities: int

    def __post_init__(self) -> None:
        if self.num_disparities < _STEP or self.num_disparities % _STEP:
            raise ValueError(f"num_disparities must be a positive multiple of 16, not {self.num_disparities}")

    @classmethod
    def of_scene(cls, scene: str, record: str | Path) -> RecordedSGBM:
        """The predictor for one scene of a baseline file (JSON with `scenes: {name: num_disparities}`)."""
        try:
            scenes = json.loads(Path(record).read_text())["scenes"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{record} is not a recorded baseline: it needs JSON with 'scenes'") from error
        if scene not in scenes:
            raise ValueError(f"{record} has no scene {scene!r}: it has {', '.join(sorted(scenes))}")
        return cls(num_disparities=scenes[scene]["num_disparities"])

    def __call__(self, pair: StereoPair) -> StereoOutput:
        height, width = pair.size
        leading = pair.left.shape[:-3]
        left, right = (image.reshape(-1, 3, height, width) for image in (pair.left, pair.right))
        outputs = [self._match(*views) for views in zip(left, right, strict=True)]
        return StereoOutput.stack(outputs).reshaped(leading)

    def _match(self, left: Tensor, right: Tensor) -> StereoOutput:
        matcher = cv2.StereoSGBM.create(
            minDisparity=0,
            numDisparities=self.num_disparities,
            blockSize=5,
            P1=600,
            P2=2400,
            uniquenessRatio=10,
            speckleWindowSize=100,
            speckleRange=32,
            mode=cv2.STEREO_SGBM_MODE_SGBM_3WAY,
        )
        raw = matcher.compute(_eight_bit(left), _eight_bit(right))
        known = raw >= 0
        columns = np.where(known, np.arange(raw.shape[1]), -1)
        nearest = np.maximum.accumulate(columns, axis=1)
        nearest = np.where(nearest < 0, known.argmax(axis=1)[:, None], nearest)
        filled = np.take_along_axis(raw, nearest, axis=1).astype(np.float32) / 16
        return StereoOutput(torch.from_numpy(filled), torch.from_numpy(known.astype(np.float32)))


@dataclass(frozen=True)
class Filled:
    """Gives a predictor's unknown pixels (infinite) the background's disparity, as SGBM does with its own.

    Around `Tiled` of SGBM without filling, holes are filled from the whole row instead of a window's.
    """

    predictor: Predictor
    median: Literal[0, 3, 5] = 5

    def __call__(self, pair: StereoPair) -> StereoOutput:
        output = self.predictor(pair)
        if output.confidence is None:
            raise ValueError("filling needs a predictor that gives confidence")
        size = pair.size
        maps = (values.reshape(-1, *size).numpy() for values in (output.disparity, output.confidence))
        filled = [
            _filled_and_smoothed(disparity, np.isfinite(disparity), confidence, self.median)
            for disparity, confidence in zip(*maps, strict=True)
        ]
        disparity, confidence = (torch.from_numpy(np.stack(part)) for part in zip(*filled, strict=True))
        shape = output.disparity.shape
        return StereoOutput(disparity.reshape(shape), confidence.reshape(shape))


def _filled_and_smoothed(
    disparity: Disparity, known: Known, confidence: Disparity, median: int
) -> tuple[Disparity, Disparity]:
    disparity, distance = fill_background(disparity, known)
    if median:
        disparity = cv2.medianBlur(disparity, median)
    return disparity, np.where(known, confidence, 0.5 / (1 + distance)).astype(np.float32)


def fill_background(disparity: Disparity, known: Known) -> tuple[Disparity, Disparity]:
    """Unknown pixels take the smaller of the nearest known disparities in their row, left and right.

    Rows without any take those of the nearest row that has one; without any pixel known all is 0. Also
    gives the distance in pixels, along the row, to the nearest known one (infinite in such rows).
    """
    width = disparity.shape[1]
    column = np.arange(width)
    disparity = np.where(known, disparity, np.float32(0))
    before = np.maximum.accumulate(np.where(known, column, -1), axis=1)
    after = np.minimum.accumulate(np.where(known, column, width)[:, ::-1], axis=1)[:, ::-1]
    values = [
        np.where(exists, np.take_along_axis(disparity, index.clip(0, width - 1), axis=1), np.float32(np.inf))
        for exists, index in ((before >= 0, before), (after < width, after))
    ]
    filled = np.minimum(*values)
    distance = np.minimum(
        np.where(before >= 0, column - before, np.inf), np.where(after < width, after - column, np.inf)
    ).astype(np.float32)
    answered = np.flatnonzero(known.any(axis=1))
    if len(answered) == 0:
        return np.zeros_like(disparity), distance
    empty = np.flatnonzero(~known.any(axis=1))
    nearest = answered[np.abs(empty[:, None] - answered[None, :]).argmin(axis=1)]
    filled[empty] = filled[nearest]
    return filled, distance


def _eight_bit(image: Float[Tensor, "3 h w"]) -> UInt8[np.ndarray, "h w 3"]:
    stored = (image * 255).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(stored.permute(1, 2, 0).cpu().numpy())


def _up(count: int) -> int:
    """The next multiple of 16, at least 16."""
    return max(-(-count // _STEP) * _STEP, _STEP)


def _flip(array: np.ndarray) -> np.ndarray:
    return array[:, ::-1].copy()
