"""Rectification against projected points, its valid area, its refinement, and the open raw pair."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fakes.planes import planes_sample
from stereopsis.io.raw_calibration import read_raw_calibration
from stereopsis.rectification import (
    Rectification,
    match_features,
    rectification,
    rectify,
    refined,
    vertical_offset,
)
from stereopsis.structures import RawCalibration, StereoPair

SIZE = (240, 320)


def cameras(*, fisheye: bool = False) -> RawCalibration:
    """Two cameras that squint, roll and distort a little, 12 cm apart."""
    rotation = cv2.Rodrigues(np.array([0.01, 0.03, -0.02]))[0]
    rows = [(float(r[0]), float(r[1]), float(r[2])) for r in rotation]
    return RawCalibration(
        left_matrix=((250.0, 0.0, 158.0), (0.0, 251.0, 121.0), (0.0, 0.0, 1.0)),
        right_matrix=((252.0, 0.0, 163.0), (0.0, 252.0, 118.0), (0.0, 0.0, 1.0)),
        left_distortion=(-0.05, 0.01, 0.0, 0.0) if fisheye else (-0.2, 0.05, 0.001, -0.001, 0.0),
        right_distortion=(-0.04, 0.01, 0.0, 0.0) if fisheye else (-0.21, 0.04, 0.0, 0.001, 0.0),
        rotation=(rows[0], rows[1], rows[2]),
        translation=(-0.12, 0.004, 0.003),
        size=SIZE,
        fisheye=fisheye,
    )


def projected(raw: RawCalibration, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where both raw cameras see points [n 3] of the left camera's frame."""
    turn = cv2.Rodrigues(np.asarray(raw.rotation))[0]
    poses = ((np.zeros((3, 1)), np.zeros((3, 1))), (turn, np.reshape(raw.translation, (3, 1))))
    lenses = ((raw.left_matrix, raw.left_distortion), (raw.right_matrix, raw.right_distortion))
    seen = []
    for (rotation, shift), (matrix, distortion) in zip(poses, lenses, strict=True):
        project = cv2.fisheye.projectPoints if raw.fisheye else cv2.projectPoints
        seen.append(project(points[:, None], rotation, shift, np.asarray(matrix), np.asarray(distortion))[0])
    return seen[0].reshape(-1, 2), seen[1].reshape(-1, 2)


def found_in(map_: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The rectified (x, y) that shows a raw location: the nearest pixel, then two Newton steps."""
    distance = ((map_ - target) ** 2).sum(-1)[2:-2, 2:-2]
    y, x = (index + 2.0 for index in np.unravel_index(distance.argmin(), distance.shape))
    row, column = int(y), int(x)
    slopes = np.stack(
        [
            (map_[row, column + 1] - map_[row, column - 1]) / 2,
            (map_[row + 1, column] - map_[row - 1, column]) / 2,
        ],
        axis=1,
    )
    return np.array([x, y]) + np.linalg.solve(slopes.astype(np.float64), target - map_[row, column])


def random_points(count: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    depth = generator.uniform(0.8, 6, count)
    across = generator.uniform(-0.35, 0.35, (count, 2)) * depth[:, None]
    return np.concatenate([across, depth[:, None]], axis=1)


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("fisheye", [False, True])
def test_rectified_points_share_rows_and_keep_their_distance(*, fisheye: bool, parallel: bool) -> None:
    raw = cameras(fisheye=fisheye)
    result = rectification(raw, SIZE, keep=1.0, parallel=parallel)
    points = random_points(20)
    left, right = projected(raw, points)
    calibration = result.calibration
    if parallel:
        assert calibration.doffs == 0
    else:
        assert abs(calibration.doffs) > 0.5
    assert calibration.baseline == pytest.approx(np.linalg.norm(raw.translation))
    for point, raw_left, raw_right in zip(points, left, right, strict=True):
        x, y = found_in(result.left_map, raw_left)
        other_x, other_y = found_in(result.right_map, raw_right)
        assert y == pytest.approx(other_y, abs=0.02)
        z = float(calibration.depth(np.array([x - other_x]))[0])
        metres = np.array([(x - calibration.cx) * z, (y - calibration.cy) * z]) / calibration.focal
        assert np.linalg.norm([*metres, z]) == pytest.approx(np.linalg.norm(point), rel=2e-3)


def test_the_valid_area_is_valid_and_large() -> None:
    result = rectification(cameras(), SIZE, keep=1.0)
    top, left, height, width = result.area
    both = result.left_valid & result.right_valid
    assert both[top : top + height, left : left + width].all()
    assert not both.all()
    assert height * width > 0.75 * both.sum()
    inner = result.cropped()
    assert inner.left_map.shape == (height, width, 2)
    assert inner.calibration.size == (height, width)
    assert inner.calibration.cx == result.calibration.cx - left
    assert inner.left_valid.all()


def test_rectify_gives_the_pair_and_its_calibration() -> None:
    generator = torch.Generator().manual_seed(0)
    pair = StereoPair(
        torch.rand(2, 3, *SIZE, generator=generator), torch.rand(2, 3, *SIZE, generator=generator)
    )
    rectified, calibration = rectify(pair, cameras())
    assert rectified.left.shape == (2, 3, *SIZE)
    assert calibration.size == SIZE
    single, _ = rectify(StereoPair(pair.left[1], pair.right[1]), cameras())
    assert torch.equal(single.left, rectified.left[1])


def test_cameras_without_distortion_or_rotation_stay_as_they_are() -> None:
    matrix = ((250.0, 0.0, 160.0), (0.0, 250.0, 120.0), (0.0, 0.0, 1.0))
    identity = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    raw = RawCalibration(
        left_matrix=matrix,
        right_matrix=matrix,
        left_distortion=(),
        right_distortion=(),
        rotation=identity,
        translation=(-0.1, 0.0, 0.0),
    )
    result = rectification(raw, SIZE)
    expected = np.stack(np.meshgrid(np.arange(320.0), np.arange(240.0)), -1)
    shift = result.left_map - expected
    assert float(np.abs(shift - shift.mean((0, 1))).max()) < 1.0


@pytest.mark.parametrize(
    ("change", "size", "message"),
    [
        ({}, (100, 100), "is for images of 320x240, these are 100x100"),
        ({"translation": (0.0, -0.1, 0.0)}, SIZE, "above each other"),
        ({"translation": (0.1, 0.0, 0.0)}, SIZE, "exchange the cameras"),
    ],
)
def test_what_cannot_be_rectified_is_said(
    change: dict[str, object], size: tuple[int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        rectification(dataclasses.replace(cameras(), **change), size)
    with pytest.raises(ValueError, match="between 0 and 1"):
        rectification(cameras(), SIZE, keep=2.0)


def test_refinement_finds_the_true_pose_among_wrong_matches() -> None:
    raw = cameras()
    left, right = projected(raw, random_points(300))
    generator = np.random.default_rng(1)
    right = right + generator.normal(0, 0.2, right.shape)
    right[:100] = generator.uniform(0, 240, (100, 2))
    bump = cv2.Rodrigues(np.array([-0.015, 0.0, 0.008]))[0] @ np.asarray(raw.rotation)
    rows = [(float(r[0]), float(r[1]), float(r[2])) for r in bump]
    aged = dataclasses.replace(raw, rotation=(rows[0], rows[1], rows[2]))
    mended = refined(aged, left, right)
    angle = np.linalg.norm(cv2.Rodrigues(np.asarray(mended.rotation) @ np.asarray(raw.rotation).T)[0][[0, 2]])
    assert angle < 0.001
    assert np.linalg.norm(mended.translation) == pytest.approx(np.linalg.norm(raw.translation))
    with pytest.raises(ValueError, match="at least 50 matched features, there are 3"):
        refined(raw, left[:3], right[:3])


def test_vertical_offset_ignores_wrong_matches() -> None:
    generator = np.random.default_rng(0)
    left = generator.uniform(0, 500, (400, 2))
    right = left - [12.0, 3.0]
    right[:100] = generator.uniform(0, 500, (100, 2))
    count, median = vertical_offset(left, right)
    assert 300 <= count < 310
    assert median == pytest.approx(3.0, abs=0.01)
    assert vertical_offset(left[:0], right[:0])[0] == 0


def test_images_without_features_match_nothing() -> None:
    flat = torch.full((3, 40, 40), 0.5)
    left, right = match_features(StereoPair(flat, flat))
    assert left.shape == right.shape == (0, 2)


def test_a_view_of_less_exposure_matches_as_well() -> None:
    pair = planes_sample().pair
    alike, darker = (len(match_features(StereoPair(pair.left, pair.right * gain))[0]) for gain in (1, 0.4))
    assert darker > 0.95 * alike > 1000


def test_the_open_raw_pair_shares_rows_once_refined(shared_data: Path) -> None:
    """Its recorded calibration is off by a third of a degree: as it is, matches stay 8 px apart."""
    folder = shared_data / "real" / "raw_machine_room_nogt"
    raw = read_raw_calibration(folder / "calib.xml")
    pair = StereoPair.open(folder / "left.png", folder / "right.png")
    matches = match_features(pair)
    count, before = vertical_offset(*matches)
    assert count >= 500
    assert before > 5
    result = rectification(refined(raw, *matches), pair.size)
    assert isinstance(result, Rectification)
    count, after = vertical_offset(*match_features(result(pair)))
    assert count >= 500
    assert after < 0.5
