"""Calibrations of cameras before rectification: OpenCV YAML or XML, ROS camera_info pairs, S2M2's XML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stereopsis.io.files import existing_file, read_json
from stereopsis.io.matrices import matrices_size, read_matrices, read_word
from stereopsis.io.names import partner
from stereopsis.structures import Matrix3, RawCalibration

RAW_NAMES = {
    "left_matrix": (
        "M1",
        "K1",
        "cameraMatrix1",
        "camera_matrix_1",
        "camera_matrix_left",
        "K_left",
        "left_matrix",
    ),
    "right_matrix": (
        "M2",
        "K2",
        "cameraMatrix2",
        "camera_matrix_2",
        "camera_matrix_right",
        "K_right",
        "right_matrix",
    ),
    "left_distortion": (
        "D1",
        "distCoeffs1",
        "dist_coeffs_1",
        "dist_coeffs_left",
        "D_left",
        "left_distortion",
    ),
    "right_distortion": (
        "D2",
        "distCoeffs2",
        "dist_coeffs_2",
        "dist_coeffs_right",
        "D_right",
        "right_distortion",
    ),
    "rotation": ("R", "rotation"),
    "translation": ("T", "translation"),
}
"""What OpenCV's samples and users call each part."""


def read_raw_calibration(path: str | Path, other: str | Path | None = None) -> RawCalibration:
    """The two cameras in a file, or in two: OpenCV's `intrinsics.yml` and `extrinsics.yml`, two ROS files.

    `other` is found by its name beside the first where it is not given. A `scene.json` leads to the file
    that it names. Raises FileNotFoundError or ValueError with one sentence.
    """
    path = existing_file(path, "a calibration")
    if path.suffix.lower() == ".json":
        entry = read_json(path, "a calibration").get("calibration")
        if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
            raise ValueError(f"{path} names no raw calibration file: give the file itself")
        return read_raw_calibration(path.parent / entry["file"])
    try:
        return _read(path, None if other is None else Path(other))
    except KeyError as error:
        raise ValueError(f"{path} is incomplete: {error.args[0]} is missing in it, add it") from error
    except (ValueError, OverflowError) as error:
        raise ValueError(
            str(error) if str(path) in str(error) else f"{path}: {error}; correct the file"
        ) from error


def _read(path: Path, other: Path | None) -> RawCalibration:
    found = read_matrices(path)
    if "stereo_extrinsic.rotation" in found:
        return _from_s2m2(found)
    if "projection_matrix" in found or "P" in found or "p" in found:
        right = other or partner(path)
        if right is None:
            raise ValueError(f"{path} is one ROS camera_info: give the other camera's too")
        return _from_ros(*ros_pair(path, right))
    other = other or _companion(path)
    if other is not None:
        found = read_matrices(other) | found
    return _from_opencv(found, path)


@dataclass(frozen=True)
class RosCamera:
    """One camera_info message: K, D, R (camera to rectified camera), P, and whether the lens is a fisheye."""

    matrix: np.ndarray
    distortion: np.ndarray
    rectification: np.ndarray
    projection: np.ndarray
    size: tuple[int, int] | None
    fisheye: bool


def ros_pair(left: Path, right: Path) -> tuple[RosCamera, RosCamera]:
    """Both cameras of a ROS stereo calibration; ValueError where they do not fit each other."""
    first, second = _ros_camera(left), _ros_camera(right)
    if first.size != second.size:
        raise ValueError(f"{left} and {right} are of images of different sizes")
    return first, second


def _ros_camera(path: Path) -> RosCamera:
    found = read_matrices(path)

    def part(long: str, short: str, count: int) -> np.ndarray:
        for name in (long, short, short.lower()):
            if name in found:
                if count and found[name].size != count:
                    raise ValueError(f"{path}: {name} has {found[name].size} numbers, {count} were expected")
                return found[name]
        raise ValueError(f"{path} is no whole ROS camera_info: {long} is missing in it")

    distorted = {"distortion_coefficients", "D", "d"} & found.keys()
    return RosCamera(
        matrix=part("camera_matrix", "K", 9).reshape(3, 3),
        distortion=part("distortion_coefficients", "D", 0) if distorted else np.zeros(0),
        rectification=part("rectification_matrix", "R", 9).reshape(3, 3),
        projection=part("projection_matrix", "P", 12).reshape(3, 4),
        size=matrices_size(found),
        fisheye=_is_fisheye(path),
    )


def _from_ros(left: RosCamera, right: RosCamera) -> RawCalibration:
    """From the rectified cameras: `R_l X_l + t = R_r X_r` with `t = (P_r[0, 3] / focal, 0, 0)`."""
    shift = np.array([right.projection[0, 3] / right.projection[0, 0], 0.0, 0.0])
    return _raw(
        matrices=(left.matrix, right.matrix),
        distortions=(left.distortion, right.distortion),
        rotation=right.rectification.T @ left.rectification,
        translation=right.rectification.T @ shift,
        size=left.size,
        fisheye=left.fisheye,
    )


def _from_s2m2(found: Mapping[str, np.ndarray]) -> RawCalibration:
    """S2M2's sample: both cameras, and rotation and translation (metres) to the right one."""

    def camera(side: str) -> tuple[np.ndarray, np.ndarray]:
        name = f"distorted_{side}_intrinsic"
        fx, fy, cx, cy = (found[f"{name}.{part}"][0] for part in ("fx", "fy", "cx", "cy"))
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), found[f"{name}.dist"]

    (left, left_distortion), (right, right_distortion) = camera("left"), camera("right")
    return _raw(
        matrices=(left, right),
        distortions=(left_distortion, right_distortion),
        rotation=_shaped(found, "stereo_extrinsic.rotation", (3, 3)),
        translation=_shaped(found, "stereo_extrinsic.translation", (3,)),
        size=None,
        fisheye=False,
    )


def _from_opencv(found: Mapping[str, np.ndarray], path: Path) -> RawCalibration:
    parts = {name: named(found, aliases) for name, aliases in RAW_NAMES.items()}
    missing = [RAW_NAMES[name][0] for name, value in parts.items() if value is None]
    if missing:
        raise ValueError(
            f"{path} is no raw calibration of two cameras: {', '.join(missing)} missing "
            "(OpenCV's names are M1 D1 M2 D2 R T)"
        )
    given = {name: value for name, value in parts.items() if value is not None}
    rotation = given["rotation"]
    if rotation.size == 3:
        rotation = _from_vector(rotation)
    return _raw(
        matrices=(_shaped(given, "left_matrix", (3, 3)), _shaped(given, "right_matrix", (3, 3))),
        distortions=(given["left_distortion"], given["right_distortion"]),
        rotation=_shaped({"rotation": rotation}, "rotation", (3, 3)),
        translation=_shaped(given, "translation", (3,)),
        size=matrices_size(found),
        fisheye=_is_fisheye(path) or bool(found.get("fisheye", np.zeros(1))[0]),
    )


def named(found: Mapping[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray | None:
    """The first of the names that is there."""
    return next((found[name] for name in names if name in found), None)


def _companion(path: Path) -> Path | None:
    """OpenCV's sample writes `intrinsics.yml` and `extrinsics.yml`: the other one, where it lies there."""
    for own, theirs in (("intrinsics", "extrinsics"), ("extrinsics", "intrinsics")):
        other = path.with_name(theirs + path.suffix)
        if path.stem == own and other.is_file():
            return other
    return None


def _is_fisheye(path: Path) -> bool:
    names = ("distortion_model", "camera_model", "model")
    return any(read_word(path, name) in ("equidistant", "fisheye") for name in names)


def _from_vector(vector: np.ndarray) -> np.ndarray:
    """Rodrigues' rotation matrix of a rotation vector."""
    angle = float(np.linalg.norm(vector))
    if angle == 0:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)


def _shaped(found: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
    values = found[name]
    if values.size != np.prod(shape):
        raise ValueError(f"{name} has {values.size} numbers where {np.prod(shape)} were expected")
    return values.reshape(shape)


def _raw(
    *,
    matrices: tuple[np.ndarray, np.ndarray],
    distortions: tuple[np.ndarray, np.ndarray],
    rotation: np.ndarray,
    translation: np.ndarray,
    size: tuple[int, int] | None,
    fisheye: bool,
) -> RawCalibration:
    if translation[0] > 0:
        raise ValueError(
            "the second camera lies left of the first (T points to positive x): "
            "exchange the cameras and the images"
        )
    if np.abs(translation).max() > 10:
        raise ValueError(
            f"the translation is {np.linalg.norm(translation):g} long, too much for metres: "
            "divide it by 1000 if it is in millimetres"
        )
    return RawCalibration(
        left_matrix=_rows(matrices[0]),
        right_matrix=_rows(matrices[1]),
        left_distortion=tuple(float(value) for value in distortions[0]),
        right_distortion=tuple(float(value) for value in distortions[1]),
        rotation=_rows(rotation),
        translation=(float(translation[0]), float(translation[1]), float(translation[2])),
        size=size,
        fisheye=fisheye,
    )


def _rows(matrix: np.ndarray) -> Matrix3:
    first, second, third = ((float(row[0]), float(row[1]), float(row[2])) for row in matrix)
    return first, second, third
