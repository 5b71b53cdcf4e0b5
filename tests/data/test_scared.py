"""SCARED: points of the raw views become disparity of the rectified pair; depth errors are millimetres."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from fakes.datasets import WRITERS
from fakes.predictors import Offset
from fakes.tiny import write_image, write_text
from stereopsis.data.dataset import StereoDataset
from stereopsis.data.sources.registry import list_pairs
from stereopsis.evaluation.protocols import protocol
from stereopsis.evaluation.run import evaluate
from stereopsis.io.raw_calibration import read_raw_calibration
from stereopsis.rectification import rectification

SIZE = (120, 160)
LEFT = np.array([[130.0, 0.0, 79.0], [0.0, 130.5, 60.5], [0.0, 0.0, 1.0]])
RIGHT = np.array([[131.0, 0.0, 81.5], [0.0, 131.0, 59.0], [0.0, 0.0, 1.0]])
BENDING = np.array([-0.2, 0.05, 0.001, -0.001, 0.0]), np.array([-0.21, 0.04, 0.0, 0.001, 0.0])
TURN = cv2.Rodrigues(np.array([0.01, 0.03, -0.02]))[0]
SHIFT = np.array([-4.2, 0.15, 0.1])  # millimetres
NORMAL, FAR = np.array([0.3, -0.2, -1.0]), -70.0  # of the plane: NORMAL @ point = FAR, millimetres


def seen(locations: np.ndarray) -> np.ndarray:
    """The plane's points [n 3] that the left camera sees at raw locations [n 2]."""
    rays = cv2.undistortPoints(locations[:, None].astype(np.float64), LEFT, BENDING[0])[:, 0]
    rays = np.concatenate([rays, np.ones((len(rays), 1))], 1)
    return rays * (FAR / (rays @ NORMAL))[:, None]


def write_keyframe(folder: Path) -> None:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    points = seen(np.stack([columns, rows], -1).reshape(-1, 2)).reshape(*SIZE, 3)
    points[:30, :30] = np.nan
    image = np.zeros((*SIZE, 3), np.uint8)
    for side in ("Left", "Right"):
        write_image(folder / f"{side}_Image.png", image)
        write_image(folder / f"{side.lower()}_depth_map.tiff", points.astype(np.float32))
    matrix = "{0}: !!opencv-matrix\n   rows: {1}\n   cols: {2}\n   dt: d\n   data: [ {3} ]\n"
    parts = {"M1": LEFT, "D1": BENDING[0][None], "M2": RIGHT, "D2": BENDING[1][None], "R": TURN}
    text = "%YAML:1.0\n---\n"
    for name, values in (parts | {"T": SHIFT[:, None]}).items():
        text += matrix.format(name, *values.shape, ", ".join(repr(float(v)) for v in values.ravel()))
    write_text(folder / "endoscope_calibration.yaml", text)


def shown_at(map_: np.ndarray, target: np.ndarray) -> float:
    """The rectified column that shows a raw location."""
    distance = ((map_ - target) ** 2).sum(-1)[2:-2, 2:-2]
    row, column = (int(index) + 2 for index in np.unravel_index(distance.argmin(), distance.shape))
    across = (map_[row, column + 1] - map_[row, column - 1]) / 2
    down = (map_[row + 1, column] - map_[row - 1, column]) / 2
    step = np.linalg.solve(np.stack([across, down], 1).astype(np.float64), target - map_[row, column])
    return column + step[0]


def test_disparity_joins_the_views_of_squinting_bent_cameras(tmp_path: Path) -> None:
    write_keyframe(tmp_path / "dataset_1/keyframe_1")
    (sample,) = StereoDataset(list_pairs("scared", "keyframes-train", root=tmp_path))
    calibration = sample.info[0].calibration
    assert calibration is not None
    assert calibration.baseline == pytest.approx(np.linalg.norm(SHIFT) / 1000)
    raw = read_raw_calibration(tmp_path / "dataset_1/keyframe_1/endoscope_calibration.yaml")
    x, y, z = raw.translation
    found = rectification(dataclasses.replace(raw, translation=(x / 1000, y / 1000, z / 1000)), SIZE)
    known = np.argwhere(sample.valid.numpy())
    assert 0.6 * SIZE[0] * SIZE[1] < len(known) < SIZE[0] * SIZE[1]
    checked = 0
    for row, column in known[:: len(known) // 60]:
        point = seen(found.left_map[row, column][None])
        right = cv2.projectPoints(point, TURN, SHIFT, RIGHT, BENDING[1])[0][0, 0]
        if not (4 < right[0] < SIZE[1] - 5 and 4 < right[1] < SIZE[0] - 5):
            continue
        shown = shown_at(found.right_map, right)
        if not 2 < shown < SIZE[1] - 3:
            continue
        expected = column - shown
        # Points are of the nearest raw pixel: up to half a pixel away on a slanted plane.
        assert float(sample.disparity[row, column]) == pytest.approx(expected, abs=0.03)
        checked += 1
    assert checked > 30


def test_depth_errors_are_reported_in_millimetres(tmp_path: Path) -> None:
    expected = WRITERS["scared"](tmp_path)[0]
    assert (expected.focal, expected.baseline) == (40.0, 0.005)
    answer = 7.0
    found = evaluate(Offset(answer), protocol("scared"), name="n", roots={"scared": tmp_path})
    counted = expected.known & (expected.disparity > 0)
    error = np.abs(200 / answer - 200 / expected.disparity[counted].astype(np.float64))  # 40 px times 5 mm
    assert found.value("mae-mm all") == pytest.approx(error.mean(), rel=1e-3)
    assert found.value("rmse-mm all") == pytest.approx(np.sqrt((error**2).mean()), rel=1e-3)
