"""Rectification: maps from a raw calibration, how well they fit the images, and their refinement.

Rectified views show each scene point in the same row. Whether they do is measured on matched features;
where a calibration has aged (a bump, warmth), the right camera's pose is refined on the same matches.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, UInt8
from torch import Tensor

from stereopsis.structures import Calibration, Matrix3, RawCalibration, StereoPair

Locations = Float64[np.ndarray, "n 2"]


@dataclass(frozen=True)
class Rectification:
    """What turns raw images into a rectified pair.

    left_map, right_map: (x, y) in the raw image that each rectified pixel shows; left_valid, right_valid:
    where that lies inside the raw image; area: (top, left, height, width) of a rectangle in which both
    are valid everywhere; calibration: of the rectified pair.
    """

    left_map: Float32[np.ndarray, "h w 2"]
    right_map: Float32[np.ndarray, "h w 2"]
    left_valid: Bool[np.ndarray, "h w"]
    right_valid: Bool[np.ndarray, "h w"]
    area: tuple[int, int, int, int]
    calibration: Calibration

    def __call__(self, pair: StereoPair) -> StereoPair:
        """The rectified pair, cubic between pixels; black where the raw images end."""
        return StereoPair(_remapped(pair.left, self.left_map), _remapped(pair.right, self.right_map))

    def cropped(self) -> Rectification:
        """The same, of the valid area only."""
        top, left, height, width = self.area
        part = (slice(top, top + height), slice(left, left + width))
        return Rectification(
            left_map=self.left_map[part].copy(),
            right_map=self.right_map[part].copy(),
            left_valid=self.left_valid[part].copy(),
            right_valid=self.right_valid[part].copy(),
            area=(0, 0, height, width),
            calibration=self.calibration.cropped(top, left, height, width),
        )


def rectification(
    raw: RawCalibration,
    size: tuple[int, int],
    *,
    output_size: tuple[int, int] | None = None,
    keep: float = 0.0,
    parallel: bool = True,
) -> Rectification:
    """Maps and calibration that rectify raw images of (height, width) `size` (OpenCV's `stereoRectify`).

    output_size: of the rectified pair, `size` if None; keep: 0 zooms until only valid pixels show, 1
    keeps all raw pixels (of a fisheye lens: OpenCV's balance); parallel: equal principal points, so that
    doffs is 0, else the views are shifted for the largest common area. Raises ValueError where the sizes
    differ, or the cameras stand above each other or in exchanged order.
    """
    if raw.size is not None and raw.size != size:
        raise ValueError(
            f"the calibration is for images of {raw.size[1]}x{raw.size[0]}, these are {size[1]}x{size[0]}"
        )
    if not 0 <= keep <= 1:
        raise ValueError(f"keep must lie between 0 and 1, it is {keep}")
    output_size = output_size or size
    rotations, projections = _rectified_cameras(raw, size, output_size, keep, parallel)
    maps = _maps(raw, rotations, projections, output_size)
    valid = [_inside(map_, size) for map_ in maps]
    focal, shift = float(projections[1][0, 0]), float(projections[1][0, 3])
    if abs(projections[1][1, 3]) > abs(shift):
        raise ValueError("the cameras stand above each other: turn the images by 90 degrees before")
    if shift >= 0:
        raise ValueError("the right camera stands left of the left one: exchange the cameras and the images")
    calibration = Calibration(
        focal=focal,
        baseline=-shift / focal,
        cx=float(projections[0][0, 2]),
        cy=float(projections[0][1, 2]),
        doffs=float(projections[1][0, 2] - projections[0][0, 2]),
        size=output_size,
    )
    return Rectification(*maps, *valid, area=_valid_area(valid[0] & valid[1]), calibration=calibration)


def rectify(pair: StereoPair, raw: RawCalibration) -> tuple[StereoPair, Calibration]:
    """The rectified pair and its calibration, of the raw size (see `rectification` for choices and maps)."""
    found = rectification(raw, pair.size)
    return found(pair), found.calibration


def _rectified_cameras(
    raw: RawCalibration, size: tuple[int, int], output_size: tuple[int, int], keep: float, parallel: bool
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Both cameras' rotations [3 3] and projections [3 4]."""
    left, right, rotation = (np.asarray(m) for m in (raw.left_matrix, raw.right_matrix, raw.rotation))
    distortions = [np.asarray(d, np.float64) for d in (raw.left_distortion, raw.right_distortion)]
    cameras = (
        left,
        distortions[0],
        right,
        distortions[1],
        size[::-1],
        rotation,
        np.reshape(raw.translation, (3, 1)),
    )
    flags = cv2.CALIB_ZERO_DISPARITY if parallel else 0
    if raw.fisheye:
        found = cv2.fisheye.stereoRectify(*cameras, flags, newImageSize=output_size[::-1], balance=keep)
    else:
        found = cv2.stereoRectify(*cameras, flags=flags, alpha=keep, newImageSize=output_size[::-1])
    return [found[0], found[1]], [found[2], found[3]]


def _maps(
    raw: RawCalibration, rotations: list[np.ndarray], projections: list[np.ndarray], size: tuple[int, int]
) -> list[Float32[np.ndarray, "h w 2"]]:
    undistort = cv2.fisheye.initUndistortRectifyMap if raw.fisheye else cv2.initUndistortRectifyMap
    matrices = (np.asarray(raw.left_matrix), np.asarray(raw.right_matrix))
    distortions = (np.asarray(raw.left_distortion), np.asarray(raw.right_distortion))
    cameras = zip(matrices, distortions, rotations, projections, strict=True)
    return [
        np.stack(undistort(matrix, distortion, rotation, projection[:, :3], size[::-1], cv2.CV_32FC1), -1)
        for matrix, distortion, rotation, projection in cameras
    ]


def _inside(map_: Float32[np.ndarray, "h w 2"], size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    x, y = map_[..., 0], map_[..., 1]
    return (x >= 0) & (x <= size[1] - 1) & (y >= 0) & (y <= size[0] - 1)


def _valid_area(valid: Bool[np.ndarray, "h w"]) -> tuple[int, int, int, int]:
    """A large rectangle of valid pixels: the side with most invalid pixels recedes until none has any."""
    top, left, bottom, right = 0, 0, *valid.shape
    while top < bottom and left < right:
        inner = valid[top:bottom, left:right]
        shares = [1 - side.mean() for side in (inner[0], inner[-1], inner[:, 0], inner[:, -1])]
        worst = int(np.argmax(shares))
        if shares[worst] == 0:
            break
        top, bottom = top + (worst == 0), bottom - (worst == 1)
        left, right = left + (worst == 2), right - (worst == 3)
    if top >= bottom or left >= right:
        raise ValueError("the two rectified views share no pixel: the calibration cannot be of these images")
    return top, left, bottom - top, right - left


def _remapped(
    image: Float[Tensor, "*b 3 h w"], map_: Float32[np.ndarray, "ho wo 2"]
) -> Float[Tensor, "*b 3 ho wo"]:
    flat = image.reshape(-1, *image.shape[-3:]).permute(0, 2, 3, 1).cpu().numpy()
    x, y = np.ascontiguousarray(map_[..., 0]), np.ascontiguousarray(map_[..., 1])
    remapped = [cv2.remap(np.ascontiguousarray(view), x, y, cv2.INTER_CUBIC) for view in flat]
    result = torch.from_numpy(np.stack(remapped)).clamp(0, 1).permute(0, 3, 1, 2)
    return result.reshape(*image.shape[:-2], *map_.shape[:2]).to(image.device)


def match_features(pair: StereoPair) -> tuple[Locations, Locations]:
    """(x, y) in the left and in the right image of features that match, some wrong ones included.

    SIFT (Lowe 2004), both ways nearest and clearly nearer than the second (ratio 0.87); the right ends
    then settle where 21 x 21 pixels look alike (Lucas and Kanade 1981), or are dropped where they leave
    by 3 pixels; for that the right view is made as bright in the mean as the left one. Nothing is assumed
    of the rows.
    """
    gain = pair.left.mean() / pair.right.mean().clamp(min=1e-3)
    views = _gray(pair.left), _gray(pair.right * gain)
    detector = cv2.SIFT.create(nfeatures=20_000, contrastThreshold=0.004)
    (left, left_words), (right, right_words) = (detector.detectAndCompute(view, None) for view in views)
    if len(left) < 2 or len(right) < 2:
        return np.zeros((0, 2)), np.zeros((0, 2))
    matcher = cv2.FlannBasedMatcher({"algorithm": 1, "trees": 4}, {"checks": 64})
    back = {match[0].queryIdx: match[0].trainIdx for match in matcher.knnMatch(right_words, left_words, k=1)}
    kept = [
        first
        for first, second in matcher.knnMatch(left_words, right_words, k=2)
        if first.distance < 0.87 * second.distance and back.get(first.trainIdx) == first.queryIdx
    ]
    ends = np.array([(*left[m.queryIdx].pt, *right[m.trainIdx].pt) for m in kept], np.float64).reshape(-1, 4)
    return _settled(*views, ends[:, :2], ends[:, 2:]) if len(ends) else (ends[:, :2], ends[:, 2:])


def _settled(
    left_view: UInt8[np.ndarray, "h w"],
    right_view: UInt8[np.ndarray, "h w"],
    left: Locations,
    right: Locations,
) -> tuple[Float64[np.ndarray, "k 2"], Float64[np.ndarray, "k 2"]]:
    start = right.astype(np.float32)[:, None]
    found, there, _ = cv2.calcOpticalFlowPyrLK(
        left_view,
        right_view,
        left.astype(np.float32)[:, None],
        start.copy(),
        winSize=(21, 21),
        maxLevel=0,
        criteria=(cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 0.001),
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    kept = (there[:, 0] > 0) & (np.linalg.norm(found - start, axis=-1)[:, 0] < 3)
    return left[kept], found[kept, 0].astype(np.float64)


def vertical_offset(left: Locations, right: Locations) -> tuple[int, float]:
    """How many matches agree, and the median |y_left - y_right| of these in pixels (NaN if there are none).

    Matches agree whose vertical offsets lie in the fullest interval of 10 pixels, wherever that is:
    wrong matches are spread over the image.
    """
    offsets = np.sort(left[:, 1] - right[:, 1])
    if len(offsets) == 0:
        return 0, float("nan")
    ends = np.searchsorted(offsets, offsets + 10.0, side="right")
    start = int(np.argmax(ends - np.arange(len(offsets))))
    agreeing = offsets[start : ends[start]]
    return len(agreeing), float(np.median(np.abs(agreeing)))


def refined(raw: RawCalibration, left: Locations, right: Locations) -> RawCalibration:
    """The calibration with the right camera turned and the baseline's direction bent until matches fit.

    Minimises the Sampson distance to epipolar lines (Hartley and Zisserman 2003, 11.4.3) in pixels over
    three angles and two tangents with Geman-McClure weights, whose scale shrinks from 8 px to 0.5.
    The baseline's length stays: images cannot tell it. ValueError with fewer than 50 matches.
    """
    if len(left) < 50:
        raise ValueError(f"refining a calibration needs at least 50 matched features, there are {len(left)}")
    rays = (
        _rays(left, raw.left_matrix, raw.left_distortion, fisheye=raw.fisheye),
        _rays(right, raw.right_matrix, raw.right_distortion, fisheye=raw.fisheye),
    )
    focal = (raw.left_matrix[0][0] + raw.right_matrix[0][0]) / 2

    def distances(pose: np.ndarray) -> np.ndarray:
        return focal * _sampson(*rays, *_turned(raw, pose))

    pose, step = np.zeros(5), 1e-6
    for scale in np.repeat(np.geomspace(8, 0.5, 12), 3):
        distance = distances(pose)
        slopes = np.stack([(distances(pose + step * unit) - distance) / step for unit in np.eye(5)], axis=1)
        weight = 1 / (1 + (distance / scale) ** 2) ** 2
        curvature = slopes.T @ (weight[:, None] * slopes) + 1e-9 * np.eye(5)
        pose = pose - np.linalg.solve(curvature, slopes.T @ (weight * distance))
    rotation, direction = _turned(raw, pose)
    translation = np.linalg.norm(raw.translation) * direction
    rows = [(float(row[0]), float(row[1]), float(row[2])) for row in rotation]
    return dataclasses.replace(
        raw,
        rotation=(rows[0], rows[1], rows[2]),
        translation=(float(translation[0]), float(translation[1]), float(translation[2])),
    )


def _turned(raw: RawCalibration, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and unit translation after three angles and two tangents of change."""
    rotation = cv2.Rodrigues(pose[:3])[0] @ np.asarray(raw.rotation)
    direction = np.asarray(raw.translation) / np.linalg.norm(raw.translation) + [0, *pose[3:]]
    return rotation, direction / np.linalg.norm(direction)


def _rays(
    locations: Locations, matrix: Matrix3, distortion: tuple[float, ...], *, fisheye: bool
) -> Float64[np.ndarray, "n 3"]:
    undistort = cv2.fisheye.undistortPoints if fisheye else cv2.undistortPoints
    points = undistort(locations[:, None], np.asarray(matrix), np.asarray(distortion))[:, 0]
    return np.concatenate([points, np.ones((len(points), 1))], axis=1)


def _sampson(
    left: np.ndarray, right: np.ndarray, rotation: np.ndarray, translation: np.ndarray
) -> np.ndarray:
    x, y, z = translation
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ rotation
    right_lines, left_lines = left @ essential.T, right @ essential
    slopes = (right_lines[:, :2] ** 2).sum(axis=1) + (left_lines[:, :2] ** 2).sum(axis=1)
    return (right * right_lines).sum(axis=1) / np.sqrt(slopes + 1e-18)


def _gray(image: Float[Tensor, "3 h w"]) -> UInt8[np.ndarray, "h w"]:
    stored = (image * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return cv2.cvtColor(np.ascontiguousarray(stored), cv2.COLOR_RGB2GRAY)
