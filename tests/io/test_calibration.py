"""Every form of calibration gives the same camera: 1000 px, 0.12 m, principal points 320 and 340."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from stereopsis.io.calibration import read_calibration, read_raw_calibration, write_calibration
from stereopsis.structures import Calibration

_EXPECTED = Calibration(focal=1000.0, baseline=0.12, cx=320.0, cy=240.0, doffs=20.0, size=(480, 640))
_P1 = [1000.0, 0, 320, 0, 0, 1000, 240, 0, 0, 0, 1, 0]
_P2 = [1000.0, 0, 340, -120, 0, 1000, 240, 0, 0, 0, 1, 0]
_ROTATION = cv2.Rodrigues(np.array([0.01, -0.02, 0.005]))[0]


def _words(values: object) -> str:
    return " ".join(f"{value:.12e}" for value in np.ravel(np.asarray(values, float)))


def _opencv(path: Path, matrices: dict[str, np.ndarray], *, size: bool = True) -> Path:
    """A file by OpenCV itself."""
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    if size:
        storage.write("image_width", 640)
        storage.write("image_height", 480)
    for name, matrix in matrices.items():
        storage.write(name, np.asarray(matrix, float))
    storage.release()
    return path


def _ros(path: Path, projection: list[float], rotation: np.ndarray, *, model: str = "plumb_bob") -> Path:
    def matrix(name: str, rows: int, values: object) -> str:
        numbers = ", ".join(f"{value:.12f}" for value in np.ravel(np.asarray(values, float)))
        columns = np.size(values) // rows
        return f"{name}:\n  rows: {rows}\n  cols: {columns}\n  data: [{numbers}]\n"

    path.write_text(
        "image_width: 640\nimage_height: 480\ncamera_name: narrow\n"
        + matrix("camera_matrix", 3, [900, 0, 310, 0, 910, 250, 0, 0, 1])
        + f"distortion_model: {model}\n"
        + matrix("distortion_coefficients", 1, [-0.3, 0.1, 0.001, 0.002, 0.0])
        + matrix("rectification_matrix", 3, rotation)
        + matrix("projection_matrix", 3, projection)
    )
    return path


def _middlebury(folder: Path) -> Path:
    path = folder / "calib.txt"
    path.write_text(
        "cam0=[1000 0 320; 0 1000 240; 0 0 1]\ncam1=[1000 0 340; 0 1000 240; 0 0 1]\ndoffs=20\n"
        "baseline=120\nwidth=640\nheight=480\nndisp=64\nisint=0\n"
    )
    return path


def _kitti_2012(folder: Path) -> Path:
    path = folder / "000000.txt"
    path.write_text("".join(f"P{i}: {_words(p)}\n" for i, p in enumerate((_P1, _P2, _P1, _P2))))
    return path


def _kitti_2015(folder: Path) -> Path:
    path = folder / "000001.txt"
    shifted = [np.array(p) for p in (_P1, _P2)]
    for projection in shifted:
        projection[3] += 45.0  # both colour cameras stand beside camera 0
    path.write_text(
        "calib_time: 09-Jan-2012 13:57:47\ncorner_dist: 9.950000e-02\nS_rect_02: 640 480\n"
        + "".join(f"P_rect_0{i + 2}: {_words(p)}\n" for i, p in enumerate(shifted))
    )
    return path


def _opencv_yaml(folder: Path) -> Path:
    return _opencv(folder / "stereo.yml", {"P1": np.reshape(_P1, (3, 4)), "P2": np.reshape(_P2, (3, 4))})


def _opencv_xml(folder: Path) -> Path:
    return _opencv(folder / "stereo.xml", {"P1": np.reshape(_P1, (3, 4)), "P2": np.reshape(_P2, (3, 4))})


def _opencv_q(folder: Path) -> Path:
    q = [[1, 0, 0, -320], [0, 1, 0, -240], [0, 0, 0, 1000], [0, 0, 1 / 0.12, 20 / 0.12]]
    return _opencv(folder / "q.yaml", {"Q": np.array(q)})


def _ros_pair(folder: Path) -> Path:
    _ros(folder / "right.yaml", _P2, _ROTATION.T)
    return _ros(folder / "left.yaml", _P1, _ROTATION)


def _json(folder: Path) -> Path:
    path = folder / "camera.json"
    content = {"fx": 1000, "cx": 320, "cy": 240, "cx_right": 340, "width": 640, "height": 480}
    path.write_text(json.dumps(content | {"baseline": 120, "baseline_unit": "mm"}))
    return path


def _own_json(folder: Path) -> Path:
    write_calibration(folder / "own.json", _EXPECTED)
    return folder / "own.json"


def _scene(folder: Path) -> Path:
    path = folder / "scene.json"
    geometry = {
        "focal_px": 1000,
        "baseline": 12,
        "baseline_unit": "cm",
        "doffs": 20,
        "cx_left": 320,
        "cy": 240,
    }
    scene = {"left": "a.png", "right": "b.png", "width": 640, "height": 480, "calibration": geometry}
    path.write_text(json.dumps(scene))
    return path


_SIZED = (_middlebury, _kitti_2015, _opencv_yaml, _opencv_xml, _opencv_q, _ros_pair, _json, _own_json, _scene)


@pytest.mark.parametrize("form", [*_SIZED, _kitti_2012], ids=lambda form: form.__name__.strip("_"))
def test_every_form_gives_the_same_camera(tmp_path: Path, form) -> None:
    found = read_calibration(form(tmp_path))
    for name in ("focal", "baseline", "cx", "cy", "doffs"):
        assert getattr(found, name) == pytest.approx(getattr(_EXPECTED, name), rel=1e-9), name
    assert found.size == (_EXPECTED.size if form in _SIZED else None)


def test_intrinsics_and_baseline_as_text(tmp_path: Path) -> None:
    (tmp_path / "K.txt").write_text("1000.0 0.0 320.0 0.0 1000.0 240.0 0.0 0.0 1.0\n0.12\n")
    expected = Calibration(focal=1000.0, baseline=0.12, cx=320.0, cy=240.0)
    assert read_calibration(tmp_path / "K.txt") == expected


def test_kitti_gray_and_colour_pairs_differ(tmp_path: Path) -> None:
    colour = [np.array(p) for p in (_P1, _P2)]
    colour[1][3] = -110
    lines = [f"P{i}: {_words(p)}\n" for i, p in enumerate((_P1, _P2, *colour))]
    (tmp_path / "calib.txt").write_text("".join(lines))
    assert read_calibration(tmp_path / "calib.txt").baseline == pytest.approx(0.11)
    assert read_calibration(tmp_path / "calib.txt", gray=True).baseline == pytest.approx(0.12)


def test_own_json_round_trip_is_exact(tmp_path: Path) -> None:
    calibration = Calibration(
        focal=1 / 3, focal_y=2 / 7, baseline=0.1, cx=-1.25, cy=1e-9, doffs=-3.5, size=(7, 9)
    )
    write_calibration(tmp_path / "c.json", calibration)
    assert read_calibration(tmp_path / "c.json") == calibration


def test_a_baseline_in_millimetres_without_a_unit_is_questioned(tmp_path: Path) -> None:
    second = np.reshape(_P2, (3, 4)).copy()
    second[0, 3] *= 1000
    path = _opencv(tmp_path / "mm.yml", {"P1": np.reshape(_P1, (3, 4)), "P2": second})
    with pytest.raises(ValueError, match=r"mm\.yml: the baseline is 120 without a unit"):
        read_calibration(path)
    assert read_calibration(path, unit="mm").baseline == pytest.approx(0.12)


def test_block_lists_of_ros_2_are_read(tmp_path: Path) -> None:
    for name, projection in (("left", _P1), ("right", _P2)):
        lists = {
            "k": [900, 0, 310, 0, 910, 250, 0, 0, 1],
            "r": np.eye(3).ravel(),
            "p": projection,
            "d": [0.1],
        }
        text = "height: 480\nwidth: 640\ndistortion_model: plumb_bob\n"
        text += "".join(
            f"{key}:\n" + "".join(f"- {float(v)}\n" for v in values) for key, values in lists.items()
        )
        (tmp_path / f"camera_{name}.yaml").write_text(text)
    found = read_calibration(tmp_path / "camera_left.yaml")
    assert (found.focal, found.baseline, found.doffs, found.size) == (1000, 0.12, 20, (480, 640))


_RAW = {
    "M1": np.array([[900, 0, 310], [0, 910, 250], [0, 0, 1.0]]),
    "D1": np.array([[-0.3, 0.1, 0.001, 0.002, 0.0]]),
    "M2": np.array([[905, 0, 312], [0, 915, 251], [0, 0, 1.0]]),
    "D2": np.array([[-0.2, 0.1, 0.001, 0.002, 0.0]]),
}
_POSE = {"R": _ROTATION, "T": np.array([[-0.12], [0.001], [0.002]])}


@pytest.mark.parametrize("suffix", [".yml", ".xml"])
def test_raw_cameras_of_opencv_in_one_file_or_two(tmp_path: Path, suffix: str) -> None:
    whole = read_raw_calibration(_opencv(tmp_path / f"raw{suffix}", {**_RAW, **_POSE}))
    _opencv(tmp_path / f"intrinsics{suffix}", _RAW)
    split = read_raw_calibration(_opencv(tmp_path / f"extrinsics{suffix}", _POSE, size=False))
    assert whole == split
    np.testing.assert_array_equal(whole.left_matrix, _RAW["M1"])
    np.testing.assert_array_equal(whole.right_distortion, _RAW["D2"].ravel())
    np.testing.assert_allclose(whole.rotation, _ROTATION, rtol=1e-12)
    assert whole.translation == (-0.12, 0.001, 0.002)
    assert whole.size == (480, 640)
    assert not whole.fisheye


def test_raw_cameras_of_a_ros_pair(tmp_path: Path) -> None:
    """Rectified by R_l and R_r, both see a point at the same place, shifted by the baseline."""
    raw = read_raw_calibration(_ros_pair(tmp_path))
    point = np.array([0.3, -0.2, 2.0])
    right = np.array(raw.rotation) @ point + raw.translation
    np.testing.assert_allclose(_ROTATION.T @ right, _ROTATION @ point + [-0.12, 0, 0], atol=1e-9)
    assert raw.size == (480, 640)


def test_a_fisheye_model_is_told(tmp_path: Path) -> None:
    _ros(tmp_path / "right.yaml", _P2, np.eye(3), model="equidistant")
    left = _ros(tmp_path / "left.yaml", _P1, np.eye(3), model="equidistant")
    assert read_raw_calibration(left).fisheye


def test_a_raw_calibration_is_no_rectified_one(tmp_path: Path) -> None:
    path = _opencv(tmp_path / "raw.yml", {**_RAW, **_POSE})
    with pytest.raises(ValueError, match=r"raw\.yml holds raw cameras.* stereopsis rectify"):
        read_calibration(path)


_BAD_TEXTS = {
    "no_baseline.txt": "cam0=[1000 0 320; 0 1000 240; 0 0 1]\ndoffs=0\n",
    "zero_baseline.txt": "cam0=[1000 0 320; 0 1000 240; 0 0 1]\ndoffs=0\nbaseline=0\n",
    "negative_focal.txt": "cam0=[-1000 0 320; 0 -1000 240; 0 0 1]\ndoffs=0\nbaseline=100\n",
    "nan_focal.txt": "cam0=[nan 0 320; 0 1000 240; 0 0 1]\ndoffs=0\nbaseline=100\n",
    "short_matrix.txt": "cam0=[1000 0 320]\ndoffs=0\nbaseline=100\n",
    "two_widths.txt": "cam0=[1 0 3; 0 1 2; 0 0 1]\ndoffs=0\nbaseline=100\nwidth=1 2\nheight=3\n",
    "words.txt": "this is a letter, not a calibration\n",
    "kitti_words.txt": f"P2: {_words(_P1)}\nP3: nothing\nP1: 1\n",
    "kitti_same.txt": f"P0: {_words(_P1)}\nP1: {_words(_P1)}\n",
    "kitti_swapped.txt": f"P0: {_words(_P2)}\nP1: {_words(_P1)}\n",
    "only_k.txt": "1000 0 320 0 1000 240 0 0 1\n",
    "k_words.txt": "1000 0 320 0 1000 240 0 0 1\nfar\n",
    "list.json": "[1, 2]",
    "broken.json": '{"focal": 1000, ',
    "no_focal.json": '{"baseline": 0.1}',
    "no_baseline.json": '{"focal": 1000}',
    "word_focal.json": '{"focal": "wide", "baseline": 0.1}',
    "nan_baseline.json": '{"focal": 1000, "baseline": NaN}',
    "infinite.json": '{"focal": 1e999, "baseline": 0.1}',
    "odd_unit.json": '{"focal": 1000, "baseline": 0.1, "baseline_unit": "scene unit"}',
    "half_size.json": '{"focal": 1000, "baseline": 0.1, "width": 0.5, "height": 3}',
    "no_cameras.json": '{"camera_data_": []}',
    "scene_without_right.json": '{"left": "a.png", "right": null}',
    "deep.json": '{"calibration": ' + "[" * 100000,
    "broken.xml": "<?xml version='1.0'?><opencv_storage><P1>",
    "entities.xml": "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
    "no_names.yaml": '!!python/object/apply:os.system ["true"]\n',
    "no_matrices.yml": "%YAML:1.0\n---\nname: something\n",
    "short_p.yml": "P1: [1, 2, 3]\nP2: [1, 2, 3]\n",
    "zero_q.yml": "Q: [" + ", ".join(["0"] * 16) + "]\n",
    "vertical.yml": f"P1: [{', '.join(map(str, _P1))}]\nP2: [1000,0,320,0, 0,1000,240,-100, 0,0,1,0]\n",
    "one_ros.yaml": "projection_matrix:\n  data: [1, 2]\n",
}


@pytest.mark.parametrize("name", _BAD_TEXTS)
def test_nonsense_gives_one_sentence_that_names_the_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(_BAD_TEXTS[name])
    with pytest.raises(ValueError) as caught:
        read_calibration(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "zip()" not in str(caught.value)


def test_a_rectified_pair_s_file_is_no_raw_calibration(tmp_path: Path) -> None:
    path = tmp_path / "calib.txt"
    path.write_text("cam0=[1000 0 320; 0 1000 240; 0 0 1]\ndoffs=0\nbaseline=100\n")
    with pytest.raises(ValueError, match="no raw calibration of two cameras"):
        read_raw_calibration(path)


_BAD_RAW = {
    "no_rotation.yml": {**_RAW, "T": _POSE["T"]},
    "only_left.yml": {"M1": _RAW["M1"], "D1": _RAW["D1"], **_POSE},
    "zero_baseline.yml": {**_RAW, "R": _ROTATION, "T": np.zeros((3, 1))},
    "not_a_rotation.yml": {**_RAW, "R": np.ones((3, 3)), "T": _POSE["T"]},
    "nan_translation.yml": {**_RAW, "R": _ROTATION, "T": np.array([np.nan, 0, 0])},
    "exchanged.yml": {**_RAW, "R": _ROTATION, "T": -_POSE["T"]},
    "millimetres.yml": {**_RAW, "R": _ROTATION, "T": 1000 * _POSE["T"]},
    "negative_focal.yml": {**_RAW, **_POSE, "M1": -_RAW["M1"]},
    "small_matrix.yml": {**_RAW, **_POSE, "M1": np.eye(2)},
}


@pytest.mark.parametrize("name", _BAD_RAW)
def test_raw_nonsense_gives_one_sentence_that_names_the_file(tmp_path: Path, name: str) -> None:
    path = _opencv(tmp_path / name, _BAD_RAW[name])
    with pytest.raises(ValueError) as caught:
        read_raw_calibration(path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
