"""`scene.json`: one stereo scene with its images, truth and geometry.

`left`, `right`: image files; `rectified`; `disparity_left`, `disparity_right`: `file` and `encoding`;
`occlusion_mask`: `file` and the values that mean visible, occluded and unknown; `calibration`:
`focal_px`, `baseline` with `baseline_unit`, `doffs`, `cx_left`, `cy`, or the `file` of a raw calibration.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stereopsis.io.files import read_json
from stereopsis.structures import Calibration

METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001, "inch": 0.0254}
"""Metres in each unit of length that a file may name."""


@dataclass(frozen=True)
class DisparityFile:
    path: Path
    encoding: str


@dataclass(frozen=True)
class OcclusionFile:
    """The values of the mask that mean each."""

    path: Path
    visible: tuple[int, ...]
    occluded: tuple[int, ...]
    unknown: tuple[int, ...]


@dataclass(frozen=True)
class TruthRange:
    """density: fraction of pixels with a value; smallest, largest: pixels."""

    density: float
    smallest: float
    largest: float


@dataclass(frozen=True, kw_only=True)
class Scene:
    """calibration: where its baseline is a length; raw_calibration: of a pair still to be rectified;
    rendered: the distribution and the seed of a rendered pair.
    """

    name: str
    dataset: str
    left: Path
    right: Path
    size: tuple[int, int] | None
    rectified: bool
    disparity: DisparityFile | None
    disparity_right: DisparityFile | None
    occlusion: OcclusionFile | None
    calibration: Calibration | None
    raw_calibration: Path | None
    truth: TruthRange | None
    rendered: tuple[str, int] | None


def read_scene(path: str | Path) -> Scene:
    """The scene of a `scene.json` or of the folder that holds one; ValueError names what is wrong in it."""
    path = Path(path)
    path = path / "scene.json" if path.is_dir() else path
    content = read_json(path, "a scene.json")
    folder = path.parent
    try:
        size = (int(content["height"]), int(content["width"])) if "height" in content else None
        calibration = content.get("calibration") or {}
        truth, rendered = content.get("ground_truth"), content.get("rendered")
        return Scene(
            name=str(content.get("name", folder.name)),
            dataset=str(content.get("dataset", "")),
            left=_file(content, "left", folder),
            right=_file(content, "right", folder),
            size=size,
            rectified=bool(content.get("rectified", True)),
            disparity=_disparity(content.get("disparity_left"), folder),
            disparity_right=_disparity(content.get("disparity_right"), folder),
            occlusion=_occlusion(content.get("occlusion_mask"), folder),
            calibration=_calibration(calibration, size),
            raw_calibration=_file(calibration, "file", folder) if "file" in calibration else None,
            truth=truth and TruthRange(float(truth["density"]), float(truth["min"]), float(truth["max"])),
            rendered=rendered and (str(rendered["distribution"]), int(rendered["seed"])),
        )
    except KeyError as error:
        raise ValueError(f"{path} describes no scene: {error.args[0]!r} is missing in it") from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"{path} describes no scene ({error}): correct it") from error


def scene_calibration(path: str | Path) -> Calibration:
    """The calibration of a `scene.json`; ValueError says why there is none in metres."""
    scene = read_scene(path)
    if scene.calibration is not None:
        return scene.calibration
    if scene.raw_calibration is not None:
        raise ValueError(
            f"{path} has a raw pair, calibrated in {scene.raw_calibration.name}: run stereopsis rectify first"
        )
    unit = (read_json(path, "a scene.json").get("calibration") or {}).get("baseline_unit")
    if unit is not None:
        raise ValueError(
            f"{path} gives the baseline in {unit!r}, which is no length: depth in metres is not known"
        )
    raise ValueError(
        f"{path} has no calibration: give the focal length and the baseline in a file of their own"
    )


def _file(entry: Mapping[str, Any], name: str, folder: Path) -> Path:
    value = entry[name]
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name!r} is {value!r} where a file name was expected")
    return folder / value


def _disparity(entry: Mapping[str, Any] | None, folder: Path) -> DisparityFile | None:
    return DisparityFile(_file(entry, "file", folder), str(entry["encoding"])) if entry else None


def _occlusion(entry: Mapping[str, Any] | None, folder: Path) -> OcclusionFile | None:
    if not entry:
        return None
    visible, occluded, unknown = (
        tuple(int(value) for value in entry.get(name, ())) for name in ("visible", "occluded", "unknown")
    )
    return OcclusionFile(_file(entry, "file", folder), visible, occluded, unknown)


def _calibration(entry: Mapping[str, Any], size: tuple[int, int] | None) -> Calibration | None:
    """None where there is none, or none of a rectified pair, or its baseline is no length."""
    unit = METRES.get(entry.get("baseline_unit", "m"))
    if "focal_px" not in entry or unit is None:
        return None
    left = float(entry.get("cx_left", 0.0))
    doffs = float(entry.get("doffs", float(entry.get("cx_right", left)) - left))
    if not math.isfinite(doffs):
        raise ValueError("doffs is not finite")
    return Calibration(
        focal=float(entry["focal_px"]),
        baseline=float(entry["baseline"]) * unit,
        cx=left,
        cy=float(entry.get("cy", 0.0)),
        doffs=doffs,
        size=size,
    )
