"""The open scenes by value: every image, the truth as scene.json describes it, every calibration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stereopsis.io.calibration import read_calibration, read_raw_calibration
from stereopsis.io.disparity import read_disparity, write_disparity
from stereopsis.io.pairs import find_pairs
from stereopsis.io.scene import read_scene
from stereopsis.structures import StereoPair


@pytest.fixture(scope="module")
def real(shared_data: Path) -> Path:
    return shared_data / "real"


def test_every_pair_opens_at_its_size(real: Path) -> None:
    pairs = find_pairs(real)
    assert len(pairs) >= 16
    for found in pairs:
        scene = read_scene(found.left.parent)
        pair = StereoPair.open(found.left, found.right)
        assert pair.size == scene.size, found.name
        assert 0 <= float(pair.left.min()) < float(pair.left.max()) <= 1, found.name
    assert [pair.name for pair in pairs if not pair.rectified] == ["raw_machine_room_nogt"]


def test_truth_is_what_the_scene_says(real: Path) -> None:
    scenes = [read_scene(path) for path in sorted(real.glob("*/scene.json"))]
    with_truth = [scene for scene in scenes if scene.truth and scene.disparity]
    assert len(with_truth) >= 12
    for scene in with_truth:
        assert scene.disparity is not None
        assert scene.truth is not None
        disparity, valid = read_disparity(scene.disparity.path, scene.disparity.encoding)
        assert disparity.shape == scene.size, scene.name
        assert round(float(valid.mean()), 4) == scene.truth.density, scene.name
        assert round(float(disparity[valid].min()), 3) == scene.truth.smallest, scene.name
        assert round(float(disparity[valid].max()), 3) == scene.truth.largest, scene.name


def test_kitti_truth_survives_writing(real: Path, tmp_path: Path) -> None:
    truth = real / "kitti2012_000070" / "disp_left.png"
    disparity, valid = read_disparity(truth)
    for name in ("again.png", "again.pfm"):
        write_disparity(tmp_path / name, disparity, valid=valid)
        again, still_valid = read_disparity(tmp_path / name)
        np.testing.assert_array_equal(again, disparity)
        np.testing.assert_array_equal(still_valid, valid)


def test_calibration_files_agree_with_the_scenes(real: Path) -> None:
    for name, file in (
        ("argoverse_1_nogt", "calib.json"),
        ("eth3d_playground_1l", "calib.txt"),
        ("kitti2012_000070", "calib.txt"),
        ("middlebury2014_motorcycle_q", "calib.txt"),
    ):
        own, scene = read_calibration(real / name / file), read_calibration(real / name / "scene.json")
        for part in ("focal", "baseline", "cx", "cy", "doffs"):
            assert getattr(own, part) == pytest.approx(getattr(scene, part), rel=2e-5), (name, part)


def test_what_is_no_metric_calibration_says_why(real: Path) -> None:
    for name, said in (
        ("middlebury2003_teddy", "has no calibration"),
        ("sceneflow_flyingthings3d_a0032_0006", "'scene unit', which is no length"),
        ("raw_machine_room_nogt", "stereopsis rectify"),
    ):
        with pytest.raises(ValueError, match=said):
            read_calibration(real / name / "scene.json")


def test_the_raw_pair_is_calibrated(real: Path) -> None:
    raw = read_raw_calibration(real / "raw_machine_room_nogt" / "calib.xml")
    assert raw == read_raw_calibration(real / "raw_machine_room_nogt" / "scene.json")
    assert raw.translation == (-0.1301186340535922, -0.00025794283659553237, -0.0010933857452932244)
    assert raw.left_matrix[0] == (1308.1149274297488, 0.0, 1039.3987599801476)
    assert raw.right_distortion[4] == -0.05291040040948055
