"""SCARED's keyframes, rectified on reading: images, and points of the raw views as disparity.

The point seen at a rectified pixel is that of the nearest raw pixel. Rectification turns it without
changing its distance from the camera, so that its depth is the distance over the length of the pixel's
ray, and disparity = focal * baseline / depth - doffs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32

from stereopsis.data.decoding import Truth
from stereopsis.data.files import MapFile, PairFiles
from stereopsis.io.images import read_image, read_stored
from stereopsis.io.raw_calibration import read_raw_calibration
from stereopsis.rectification import rectification
from stereopsis.structures import Calibration, StereoPair


@dataclass(frozen=True)
class RectifiedFiles:
    pair: StereoPair
    truth: Truth | None
    truth_right: Truth | None
    calibration: Calibration


def read_scared(files: PairFiles, path: Path) -> RectifiedFiles:
    """The pair of a keyframe, rectified; ValueError or OSError names the file that is wrong."""
    raw = read_raw_calibration(path)
    x, y, z = raw.translation
    raw = replace(raw, translation=(x / 1000, y / 1000, z / 1000))
    pair = StereoPair.from_arrays(read_image(files.left), read_image(files.right))
    found = rectification(raw, pair.size)
    calibration = found.calibration
    right = replace(calibration, cx=calibration.cx + calibration.doffs)
    return RectifiedFiles(
        found(pair),
        _truth(files.disparity, found.left_map, calibration, ray=calibration),
        _truth(files.disparity_right, found.right_map, calibration, ray=right),
        calibration,
    )


def _truth(
    file: MapFile | None, map_: Float32[np.ndarray, "h w 2"], calibration: Calibration, *, ray: Calibration
) -> Truth | None:
    """Disparity of the rectified view that `map_` shows; `ray` has that view's principal point."""
    if file is None:
        return None
    distance = _distances(file.path, map_.shape[:2])
    columns, rows = (np.ascontiguousarray(map_[..., axis]) for axis in (0, 1))
    seen = cv2.remap(distance, columns, rows, cv2.INTER_NEAREST, borderValue=(np.nan,))
    row, column = np.mgrid[: map_.shape[0], : map_.shape[1]]
    x, y = (column - ray.cx) / ray.focal, (row - ray.cy) / ray.focal
    depth = seen.astype(np.float64) / np.sqrt(1 + x * x + y * y)
    with np.errstate(invalid="ignore"):
        disparity = calibration.disparity(depth)
        valid = np.isfinite(disparity) & (disparity >= 0)
    return np.where(valid, disparity, 0).astype(np.float32), valid


def _distances(path: Path, size: tuple[int, ...]) -> np.ndarray:
    """Metres from the camera to the point seen at each raw pixel, from millimetres; NaN where unknown."""
    points = read_stored(path)
    if points.shape != (*size, 3) or points.dtype.kind != "f":
        raise ValueError(
            f"{path} holds {points.dtype} of shape {points.shape}: "
            f"X, Y, Z of {size[1]}x{size[0]} pixels were expected"
        )
    known = points[..., 2] > 0
    distance = np.linalg.norm(points.astype(np.float64), axis=-1) / 1000
    return np.where(known, distance, np.nan).astype(np.float32)
