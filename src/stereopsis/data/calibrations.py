"""A pair's calibration, from values or from the file forms that only one data set uses."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stereopsis.data.files import CalibrationFile, PairFiles
from stereopsis.io.calibration import read_calibration
from stereopsis.io.files import read_text
from stereopsis.io.matrices import read_matrices
from stereopsis.structures import Calibration


def read_pair_calibration(files: PairFiles) -> Calibration | None:
    """The calibration of a pair, on its left image; None where the data set gives none."""
    given = files.calibration
    if given is None or isinstance(given, Calibration):
        return given
    if given.form == "auto":
        return read_calibration(given.path, given.right)
    if given.form == "kitti-gray":
        return read_calibration(given.path, gray=True)
    if given.form == "unrealstereo4k":
        return _unrealstereo4k(given)
    if given.form == "booster":
        return _booster(given.path)
    raise ValueError(f"{given.path}: {given.form!r} is no form of calibration")


def _unrealstereo4k(file: CalibrationFile) -> Calibration:
    """Two lines per camera: 3x3 intrinsics, and 3x4 from world to camera (metres)."""
    if file.right is None:
        raise ValueError(f"{file.path}: the right camera's pose is needed too")
    left, right = (_matrices(path) for path in (file.path, file.right))
    centres = [-pose[:, :3].T @ pose[:, 3] for _, pose in (left, right)]
    return Calibration(
        focal=float(left[0][0, 0]),
        cx=float(left[0][0, 2]),
        cy=float(left[0][1, 2]),
        doffs=float(right[0][0, 2] - left[0][0, 2]),
        baseline=float(np.linalg.norm(centres[0] - centres[1])),
    )


def _booster(path: Path) -> Calibration:
    """OpenCV XML with both projections and the baseline in millimetres."""
    found = read_matrices(path)
    try:
        left, right = (
            found[name].reshape(-1, 4 if found[name].size > 9 else 3) for name in ("proj_matL", "proj_matR")
        )
        baseline = float(found["baselineLR"].ravel()[0])
    except KeyError as error:
        raise ValueError(
            f"{path} has no {error.args[0]}: it should have proj_matL and _matR, baselineLR"
        ) from error
    return Calibration(
        focal=float(left[0, 0]),
        cx=float(left[0, 2]),
        cy=float(left[1, 2]),
        doffs=float(right[0, 2] - left[0, 2]),
        baseline=baseline / 1000,
    )


def _matrices(path: Path) -> tuple[np.ndarray, np.ndarray]:
    lines = read_text(path, "a pose").splitlines()
    try:
        intrinsics, pose = (np.array(line.split(), float) for line in lines[:2])
        return intrinsics.reshape(3, 3), pose.reshape(3, 4)
    except ValueError as error:
        raise ValueError(
            f"{path}: a line of 9 numbers (intrinsics) and one of 12 (world to camera) were expected"
        ) from error
