"""What a data set is before any pixel is read: paths, and how each file is to be understood."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stereopsis.structures import Calibration


@dataclass(frozen=True)
class MapFile:
    """A map of truth on disk: its path and its encoding (see `stereopsis.data.decoding`)."""

    path: Path
    encoding: str


@dataclass(frozen=True)
class MaskFile:
    """A mask on disk: the pixels whose stored value is one of `values`, or, inverted, is none of them."""

    path: Path
    values: tuple[int, ...] = (255,)
    inverted: bool = False


@dataclass(frozen=True)
class Region:
    """A named part of the image that protocols report apart: foreground, a class of material, ..."""

    name: str
    mask: MaskFile


@dataclass(frozen=True)
class CalibrationFile:
    """A calibration to read with the pair: its path and its form.

    form: `auto` (see `stereopsis.io.calibration`), `kitti-gray`, `unrealstereo4k`, `booster`, or
    `scared`: the pair is not rectified and is rectified on reading, truth included.
    """

    path: Path
    form: str = "auto"
    right: Path | None = None
    """The right camera's own file, where there are two."""


@dataclass(frozen=True, kw_only=True)
class PairFiles:
    """One stereo pair: paths only.

    name: unique in its data set; dataset: what averages over data sets group by; disparity,
    disparity_right: left and right truth; occluded: the left pixels that the right camera does not see;
    nonoccluded: truth of visible pixels only, where occlusion is told that way (KITTI); unknown: pixels
    whose truth is not to be trusted; instances: a map of object numbers (0 is background); regions:
    parts reported apart; centre_crop: images and truth differ in size and share their centre; weight: how
    much each pixel of the truth counts in training, 0..1.
    """

    name: str
    dataset: str
    left: Path
    right: Path
    disparity: MapFile | None = None
    disparity_right: MapFile | None = None
    occluded: tuple[MaskFile, ...] = ()
    nonoccluded: MapFile | None = None
    unknown: tuple[MaskFile, ...] = ()
    weight: MapFile | None = None
    instances: Path | None = None
    regions: tuple[Region, ...] = ()
    calibration: Calibration | CalibrationFile | None = None
    centre_crop: bool = False
