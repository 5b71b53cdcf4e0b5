"""`stereopsis rectify`: one raw pair, and all pairs of a rig, which share maps and calibration."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from fakes.planes import planes_sample
from stereopsis.cli.main import main
from stereopsis.io.calibration import read_calibration
from stereopsis.io.images import read_image, write_image
from stereopsis.io.video import write_video
from stereopsis.visual import image_picture

CAMERA = np.array([[300.0, 0, 160], [0, 300, 120], [0, 0, 1]])
RIG = {
    "M1": CAMERA,
    "M2": CAMERA,
    "D1": np.zeros((1, 5)),
    "D2": np.zeros((1, 5)),
    "R": np.eye(3),
    "T": np.array([[-0.12], [0], [0]]),
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`calib.yml` of a rig, and three pairs of it whose right camera has rolled by half a degree since."""
    folder = tmp_path_factory.mktemp("rig") / "raw"
    pair = planes_sample().pair
    roll = cv2.Rodrigues(np.radians([0, 0, 0.5]))[0]
    rolled = cv2.warpPerspective(
        image_picture(pair.right), CAMERA @ roll @ np.linalg.inv(CAMERA), (320, 240), flags=cv2.INTER_CUBIC
    )
    for name in ("000", "001", "002"):
        (folder / name).mkdir(parents=True)
        write_image(folder / name / "left.png", image_picture(pair.left))
        write_image(folder / name / "right.png", rolled)
    _write_rig(folder / "calib.yml", RIG)
    return folder


def _write_rig(path: Path, rig: dict[str, np.ndarray]) -> None:
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    for name, matrix in rig.items():
        storage.write(name, matrix)
    storage.release()


def rectified(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict:
    assert main(["rectify", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_one_pair_is_written_as_predict_takes_it(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = raw / "000" / "left.png", raw / "000" / "right.png"
    arguments = (*images, "--calibration", raw / "calib.yml", "-o", tmp_path / "out")
    report = rectified(capsys, *arguments)
    assert report["after"]["matches"] > 100
    assert report["after"]["median_row_difference"] > 0.5
    assert report["baseline"] == pytest.approx(0.12)
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {"left.png", "right.png", "maps.npz", "calibration.json"}
    assert read_calibration(out / "calibration.json").size == (240, 320)
    assert np.load(out / "maps.npz")["left_map"].shape == (240, 320, 2)
    assert main(["rectify", *map(str, arguments), "--size", "160x120"]) == 0
    said = capsys.readouterr()
    assert "160x120, valid " in said.out
    assert read_image(out / "left.png").shape == (120, 160, 3)


def test_a_sound_pair_with_its_calibration_shares_rows(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = planes_sample().pair
    images = tmp_path / "left.png", tmp_path / "right.png"
    for path, view in zip(images, (pair.left, pair.right), strict=True):
        write_image(path, image_picture(view))
    report = rectified(capsys, *images, "--calibration", raw / "calib.yml", "-o", tmp_path / "out")
    assert report["after"]["matches"] > 100
    assert report["after"]["median_row_difference"] < 0.2


def test_a_rigs_pairs_share_maps_and_what_their_features_refine(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    report = rectified(capsys, raw, "--refine", "--output", out)
    assert report["pairs"] == ["000", "001", "002"]
    assert report["before"]["matches"] > 300
    assert report["before"]["median_row_difference"] > 0.5
    assert report["after"]["median_row_difference"] < 0.2
    assert {path.name for path in out.iterdir()} == {*report["pairs"], "maps.npz", "calibration.json"}
    assert {path.name for path in (out / "001").iterdir()} == {"left.png", "right.png"}
    assert main(["predict", str(out), "--model", "sgbm", "--output", str(tmp_path / "depth")]) == 0
    assert (tmp_path / "depth" / "002" / "cloud.ply").is_file()


def test_a_raw_video_becomes_a_folder_of_pairs(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    views = [read_image(raw / "000" / name) for name in ("left.png", "right.png")]
    write_video(tmp_path / "raw.avi", [np.concatenate(views, axis=1)] * 2, rate=10.0)
    out = tmp_path / "out"
    report = rectified(capsys, tmp_path / "raw.avi", "--calibration", raw / "calib.yml", "--output", out)
    assert report["pairs"] == ["frame-000000", "frame-000001"]
    assert read_image(out / "frame-000001" / "right.png").shape == (240, 320, 3)


def test_a_pair_that_does_not_fit_is_named_and_the_others_are_written(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = shutil.copytree(raw, tmp_path / "raw")
    (broken / "000" / "right.png").write_bytes(b"torn")
    for name in ("left.png", "right.png"):
        write_image(broken / "002" / name, read_image(broken / "002" / name)[:200])
    assert main(["rectify", str(broken), "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert said.out.startswith("1 pair, 320x240, ")
    first, second, *_ = said.err.splitlines()
    assert first.startswith("error: 000: ")
    assert second == "error: 002: the images are 320x200, others are 320x240: rectify each rig's pairs apart"
    assert (tmp_path / "out" / "001" / "left.png").is_file()
    assert not (tmp_path / "out" / "002").exists()


def test_raw_images_are_never_overwritten(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (raw / "000" / "right.png").read_bytes()
    for inputs in ([raw], [raw / "000" / "left.png", raw / "000" / "right.png"]):
        calibration = str(raw / "calib.yml")
        folder = raw if len(inputs) == 1 else raw / "000"
        arguments = [*map(str, inputs), "--calibration", calibration, "--output", str(folder)]
        assert main(["rectify", *arguments]) == 2
        assert "name another --output" in capsys.readouterr().err
    assert (raw / "000" / "right.png").read_bytes() == before
    assert not (raw / "maps.npz").exists()


def test_pairs_of_two_rigs_are_refused_and_two_files_of_one_taken(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        shutil.copytree(raw / "000", tmp_path / "rigs" / name)
        shutil.copy(raw / "calib.yml", tmp_path / "rigs" / name)
    other = tmp_path / "rigs" / "two" / "calib.yml"
    assert rectified(capsys, tmp_path / "rigs", "--output", tmp_path / "out")["pairs"] == ["one", "two"]
    _write_rig(other, RIG | {"T": RIG["T"] * 2})
    assert main(["rectify", str(tmp_path / "rigs"), "--output", str(tmp_path / "second")]) == 2
    assert "not of one rig" in capsys.readouterr().err
    assert not (tmp_path / "second").exists()
