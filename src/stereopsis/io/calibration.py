"""Calibrations of rectified pairs, in the forms that data sets and programs write them.

Middlebury and ETH3D `calib.txt` (baseline in millimetres); KITTI 2012 `P0: .. P3:` and 2015 `P_rect_02:
..`; OpenCV's YAML or XML of `stereoRectify` (`P1` and `P2`, or `Q`); a pair of ROS camera_info YAML files;
JSON (`focal`, `baseline`, `cx`, `cy`, `doffs`, `width`, `height`; Argoverse's); `scene.json`; nine
numbers of K and the baseline in metres, as text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stereopsis.io.files import read_json, read_text, write_json
from stereopsis.io.matrices import image_size, matrices_size, read_matrices
from stereopsis.io.names import partner
from stereopsis.io.raw_calibration import RAW_NAMES, named, ros_pair
from stereopsis.io.raw_calibration import read_raw_calibration as read_raw_calibration
from stereopsis.io.scene import METRES, scene_calibration
from stereopsis.structures import Calibration

FORMS = (
    "Middlebury calib.txt, KITTI P0..P3 or P_rect_02/03, OpenCV P1/P2 or Q, a pair of ROS camera_info files, "
    "JSON with focal and baseline, scene.json, or nine numbers of K and the baseline"
)

_LONGEST = 10.0
"""A baseline beyond it, in a form that names no unit, is taken for a mistake of units."""


def read_calibration(
    path: str | Path, right: str | Path | None = None, *, unit: str | None = None, gray: bool = False
) -> Calibration:
    """The calibration in a file; the form is told by its content.

    right: the second of two ROS files, found by name where it is not given (`left.yaml` -> `right.yaml`).
    unit: m, cm, mm or inch of the baseline, where the form does not fix it. gray: KITTI's gray pair
    (cameras 0 and 1) instead of the colour one (2 and 3). Raises FileNotFoundError or ValueError with
    one sentence.
    """
    path = Path(path)
    if unit is not None and unit not in METRES:
        raise ValueError(f"{unit!r} is no unit of the baseline: {', '.join(METRES)}")
    try:
        return _read(path, None if right is None else Path(right), unit, gray)
    except KeyError as error:
        raise ValueError(f"{path} is incomplete: {error.args[0]} is missing in it, add it") from error
    except (ValueError, OverflowError) as error:
        named_already = str(path) in str(error)
        raise ValueError(str(error) if named_already else f"{path}: {error}; correct the file") from error


def write_calibration(path: str | Path, calibration: Calibration) -> None:
    """JSON that `read_calibration` takes, lengths in metres."""
    content: dict[str, object] = {
        "focal": calibration.focal,
        "focal_y": calibration.focal_y or calibration.focal,
        "cx": calibration.cx,
        "cy": calibration.cy,
        "doffs": calibration.doffs,
        "baseline": calibration.baseline,
        "baseline_unit": "m",
    }
    if calibration.size:
        content |= {"height": calibration.size[0], "width": calibration.size[1]}
    write_json(path, content)


def _read(path: Path, right: Path | None, unit: str | None, gray: bool) -> Calibration:
    text = read_text(path, "a calibration")
    start = text.lstrip()[:1]
    if start == "{":
        return _from_json(path, unit)
    if start == "<" or text.startswith("%YAML") or path.suffix.lower() in (".yaml", ".yml"):
        return _from_matrices(path, right, unit)
    entries = _text_entries(text)
    if "cam0" in entries:
        return _middlebury(entries)
    if "P1" in entries or "P_rect_02" in entries or "P_rect_00" in entries:
        return _kitti(entries, gray)
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if len(lines) >= 2 and len(lines[0]) == 9:
        return _intrinsics_and_baseline(lines, path, unit)
    raise ValueError(f"{path} is no calibration that is known: {FORMS}")


def _text_entries(text: str) -> dict[str, np.ndarray]:
    """The numbers after `name=` or `name:`, line by line; none where other words stand there."""
    entries: dict[str, np.ndarray] = {}
    for line in text.splitlines():
        match = re.match(r"\s*(\w+)\s*[=:]\s*(.*)", line)
        if match:
            words = re.sub(r"[\[\];,]", " ", match[2]).split()
            try:
                entries[match[1]] = np.array([float(word) for word in words])
            except ValueError:
                entries[match[1]] = np.empty(0)
    return entries


def _numbers(entries: Mapping[str, np.ndarray], name: str, count: int) -> np.ndarray:
    if entries[name].size != count:
        raise ValueError(f"{name} has {entries[name].size} numbers where {count} were expected")
    return entries[name]


def _middlebury(entries: Mapping[str, np.ndarray]) -> Calibration:
    left = _numbers(entries, "cam0", 9).reshape(3, 3)
    size = None
    if "width" in entries and "height" in entries:
        size = image_size(_numbers(entries, "height", 1)[0], _numbers(entries, "width", 1)[0])
    if "doffs" in entries:
        doffs = float(_numbers(entries, "doffs", 1)[0])
    else:
        doffs = float(_numbers(entries, "cam1", 9)[2] - left[0, 2])
    return _calibration(left, float(_numbers(entries, "baseline", 1)[0]) * METRES["mm"], doffs, size)


def _kitti(entries: Mapping[str, np.ndarray], gray: bool) -> Calibration:
    rect = any(name.startswith("P_rect_") for name in entries)
    both = (0, 1) if gray or (("P_rect_02" if rect else "P2") not in entries) else (2, 3)
    left_name, right_name = (f"P_rect_0{camera}" if rect else f"P{camera}" for camera in both)
    left = _numbers(entries, left_name, 12).reshape(3, 4)
    right = _numbers(entries, right_name, 12).reshape(3, 4)
    size = None
    if rect and f"S_rect_0{both[0]}" in entries:
        width, height = _numbers(entries, f"S_rect_0{both[0]}", 2)
        size = image_size(height, width)
    return _from_projections(left, right, size, scale=1.0)


def _intrinsics_and_baseline(lines: list[list[str]], path: Path, unit: str | None) -> Calibration:
    try:
        matrix = np.array([float(word) for word in lines[0]]).reshape(3, 3)
        baseline = float(lines[1][0])
    except ValueError as error:
        raise ValueError(f"{path}: nine numbers of K and the baseline were expected ({error})") from error
    return _calibration(matrix, baseline * _scale(baseline, unit), 0.0, None)


def _from_json(path: Path, unit: str | None) -> Calibration:
    content = read_json(path, "a calibration")
    if "camera_data_" in content:
        return _argoverse(content)
    if "left" in content and "right" in content:
        return scene_calibration(path)
    content = content.get("calibration", content)
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no calibration that is known: {FORMS}")
    return _plain(content, unit)


def _plain(content: Mapping[str, Any], unit: str | None) -> Calibration:
    def number(*names: str) -> float | None:
        name = next((name for name in names if content.get(name) is not None), None)
        if name is None:
            return None
        value = content[name]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{name} is {value!r} where a number was expected")
        return float(value)

    focal = number("focal", "focal_px", "fx", "f")
    if focal is None:
        raise KeyError("the focal length ('focal', in pixels)")
    baseline, named_unit = number("baseline", "baseline_m", "baseline_mm"), content.get("baseline_unit", unit)
    if baseline is None:
        raise KeyError("the baseline ('baseline', in metres, or with a 'baseline_unit')")
    if "baseline" not in content:
        named_unit = "m" if "baseline_m" in content else "mm"
    if named_unit is not None and named_unit not in METRES:
        raise ValueError(f"baseline_unit is {named_unit!r}, which is no length ({', '.join(METRES)})")
    cx = number("cx", "cx_left") or 0.0
    cx_right, doffs = number("cx_right"), number("doffs")
    if doffs is None:
        doffs = 0.0 if cx_right is None else cx_right - cx
    size = content.get("size")
    height, width = size if isinstance(size, list) and len(size) == 2 else (number("height"), number("width"))
    matrix = np.array([[focal, 0, cx], [0, number("focal_y", "fy") or focal, number("cy") or 0.0], [0, 0, 1]])
    known_size = None if height is None or width is None else image_size(height, width)
    return _calibration(matrix, baseline * _scale(baseline, named_unit), doffs, known_size)


def _argoverse(content: Mapping[str, Any]) -> Calibration:
    """Argoverse's `vehicle_calibration_stereo_info.json`: the right `Txf_` is `-focal * baseline`."""
    cameras = {entry["key"]: entry["value"] for entry in content["camera_data_"]}
    left, right = (cameras[f"image_raw_stereo_front_{side}_rect"] for side in ("left", "right"))

    def projection(camera: Mapping[str, Any]) -> np.ndarray:
        focal, focal_y = float(camera["focal_length_x_px_"]), float(camera["focal_length_y_px_"])
        cx, cy = float(camera["focal_center_x_px_"]), float(camera["focal_center_y_px_"])
        return np.array([[focal, 0, cx, float(camera["Txf_"])], [0, focal_y, cy, 0], [0, 0, 1, 0]])

    return _from_projections(projection(left), projection(right), None, scale=1.0)


def _from_matrices(path: Path, right: Path | None, unit: str | None) -> Calibration:
    found = read_matrices(path)
    size = matrices_size(found)
    if "P1" in found and "P2" in found:
        left, other = (_numbers(found, name, 12).reshape(3, 4) for name in ("P1", "P2"))
        return _from_projections(left, other, size, scale=None, unit=unit)
    if "Q" in found:
        return _from_q(_numbers(found, "Q", 16).reshape(4, 4), size, unit)
    if "projection_matrix" in found or "P" in found or "p" in found:
        right = right or partner(path)
        if right is None or not right.is_file():
            raise ValueError(
                f"{path} is one ROS camera_info: give the other camera's too, as left.yaml and right.yaml"
            )
        first, second = ros_pair(path, right)
        return _from_projections(first.projection, second.projection, first.size, scale=None, unit=unit)
    raw = any(named(found, names) is not None for names in RAW_NAMES.values())
    if raw or "stereo_extrinsic.rotation" in found:
        raise ValueError(f"{path} holds raw cameras, not a rectified pair: run stereopsis rectify first")
    raise ValueError(f"{path} is no calibration that is known: {FORMS}")


def _from_q(q: np.ndarray, size: tuple[int, int] | None, unit: str | None) -> Calibration:
    """From OpenCV's reprojection matrix: `Q[3, 2] = -1 / Tx`, `Q[3, 3] = (cx - cx_right) / Tx`."""
    if q[3, 2] == 0:
        raise ValueError("Q has no baseline (its element 3, 2 is zero)")
    translation = -1.0 / q[3, 2]
    matrix = np.array([[q[2, 3], 0, -q[0, 3]], [0, q[2, 3], -q[1, 3]], [0, 0, 1]])
    baseline = abs(translation)
    return _calibration(matrix, baseline * _scale(baseline, unit), -q[3, 3] * translation, size)


def _from_projections(
    left: np.ndarray,
    right: np.ndarray,
    size: tuple[int, int] | None,
    *,
    scale: float | None,
    unit: str | None = None,
) -> Calibration:
    """From the 3x4 matrices of both rectified cameras; metres per unit is `scale`, or what `unit` says."""
    if not (left[0, 0] > 0 and right[0, 0] > 0):
        raise ValueError(f"the focal lengths must be positive, they are {left[0, 0]} and {right[0, 0]}")
    baseline = left[0, 3] / left[0, 0] - right[0, 3] / right[0, 0]
    vertical = abs(left[1, 3] / left[1, 1] - right[1, 3] / right[1, 1]) if left[1, 1] and right[1, 1] else 0.0
    if vertical > max(abs(baseline), 0.0) and vertical > 0:
        raise ValueError(
            "the cameras lie one above the other: turn the images and the calibration by 90 degrees"
        )
    if baseline < 0:
        raise ValueError("the baseline is negative: left and right are exchanged")
    metres = _scale(baseline, unit) if scale is None else scale
    return _calibration(left[:, :3], baseline * metres, float(right[0, 2] - left[0, 2]), size)


def _scale(baseline: float, unit: str | None) -> float:
    """Metres in one unit of the baseline; without a unit they are metres, where that can be."""
    if unit is None and abs(baseline) > _LONGEST:
        raise ValueError(
            f"the baseline is {baseline:g} without a unit, too long for metres: "
            "give its unit (m, cm or mm) too"
        )
    return METRES[unit or "m"]


def _calibration(
    matrix: np.ndarray, baseline: float, doffs: float, size: tuple[int, int] | None
) -> Calibration:
    focal, focal_y = float(matrix[0, 0]), float(matrix[1, 1])
    if not (math.isfinite(baseline) and baseline > 0):
        raise ValueError(f"the baseline must be a positive length, it is {baseline:g} m")
    return Calibration(
        focal=focal,
        baseline=float(baseline),
        cx=float(matrix[0, 2]),
        cy=float(matrix[1, 2]),
        doffs=float(doffs),
        focal_y=None if focal_y == focal else focal_y,
        size=size,
    )
