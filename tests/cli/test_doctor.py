"""`stereopsis doctor`: what it says, the pictures, the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fakes.planes import planes_sample
from stereopsis.cli.main import main
from stereopsis.io.calibration import write_calibration
from stereopsis.io.images import read_image, write_image
from stereopsis.io.video import write_video
from stereopsis.structures import Calibration
from stereopsis.visual import image_picture


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound pair with its calibration, the same exchanged, and one whose right image is cut."""
    folder = tmp_path_factory.mktemp("pairs")
    pair = planes_sample().pair
    views = image_picture(pair.left), image_picture(pair.right)
    for name, (left, right) in (("sound", views), ("exchanged", views[::-1]), ("torn", views)):
        (folder / name).mkdir()
        write_image(folder / name / "left.png", left)
        write_image(folder / name / "right.png", right)
    torn = folder / "torn" / "right.png"
    torn.write_bytes(torn.read_bytes()[:500])
    calibration = Calibration(focal=300.0, baseline=0.12, cx=160.0, cy=120.0, size=(240, 320))
    write_calibration(folder / "sound" / "calibration.json", calibration)
    return folder


def test_a_sound_pair_is_told_in_lines_and_drawn(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [str(pairs / "sound" / name) for name in ("left.png", "right.png")]
    calibration = str(pairs / "sound" / "calibration.json")
    assert main(["doctor", *images, "--calibration", calibration, "--output", str(tmp_path)]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("left: 320x240, ")
    assert [line.split()[0] for line in lines] == ["rows", "disparities", "depths", "field", "no"]
    assert read_image(tmp_path / "left.png").shape == (240, 644, 3)


def test_a_fault_ends_with_2(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [str(pairs / "exchanged" / name) for name in ("left.png", "right.png")]
    assert main(["doctor", *images, "--output", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert "FAULT: left and right look exchanged" in out
    assert "no fault found" not in out
    assert err == ""


def test_every_pair_of_a_folder_is_told_with_the_calibration_beside_it_and_a_torn_one_named(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", str(pairs), "--output", str(tmp_path), "--json"]) == 2
    out, err = capsys.readouterr()
    reports = {report["name"]: report for report in json.loads(out)}
    assert set(reports) == {"exchanged", "sound"}
    assert reports["sound"]["sound"]
    assert reports["sound"]["field_of_view"] == pytest.approx(56.1, abs=0.1)
    assert not reports["exchanged"]["sound"]
    assert reports["exchanged"]["findings"][0]["fault"]
    assert all(Path(report["picture"]).is_file() for report in reports.values())
    assert err.startswith("error: torn: ")
    assert err.count("\n") == 1


def test_five_frames_of_a_video_are_told_with_one_calibration(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    views = [read_image(pairs / "sound" / name) for name in ("left.png", "right.png")]
    write_video(tmp_path / "drive.avi", [np.concatenate(views, axis=1)] * 11, rate=10.0)
    calibration = str(pairs / "sound" / "calibration.json")
    arguments = [str(tmp_path / "drive.avi"), "--calibration", calibration, "--output", str(tmp_path)]
    assert main(["doctor", *arguments, "--json"]) == 0
    reports = json.loads(capsys.readouterr().out)
    assert [report["name"] for report in reports] == [f"frame-{index:06d}" for index in range(0, 10, 2)]
    assert all(report["field_of_view"] == pytest.approx(56.1, abs=0.1) for report in reports)
    assert all(Path(report["picture"]).is_file() for report in reports)


def test_predict_sends_a_doubtful_pair_to_the_doctor(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, doubtful in (("sound", False), ("exchanged", True)):
        images = [str(pairs / name / view) for view in ("left.png", "right.png")]
        assert main(["predict", *images, "--output", str(tmp_path / name)]) == 0
        assert ("run stereopsis doctor" in capsys.readouterr().err) == doubtful
