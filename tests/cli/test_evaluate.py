"""The verbs that measure, as typed: tables, files, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fakes.predictors import write_scene
from fakes.tiny import tiny, write_image, write_pfm
from stereopsis.cli.main import main
from stereopsis.evaluation.results import read_evaluation


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name, error in (("a", 1.0), ("b", 3.5)):
        write_scene(tmp_path / "data", name, truth=10.0)
        write_pfm(tmp_path / "theirs" / f"{name}.pfm", np.full((12, 16), 10.0 + error))
        write_pfm(tmp_path / "ours" / f"{name}.pfm", np.full((12, 16), 10.0 + error / 2))
    return tmp_path


def _evaluate(data: Path, who: str, *more: str) -> int:
    options = ["--root", str(data / "data"), "--json", str(data / f"{who}.json")]
    return main(["evaluate", str(data / who), "scenes", *options, *more])


def test_evaluate_prints_writes_and_leaves_nothing_behind(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _evaluate(data, "theirs", "--report", str(data / "r.html")) == 0
    printed = capsys.readouterr().out
    for text in ("epe all", "2.250", "50.00 %", "no published column", "mean over images"):
        assert text in printed
    assert read_evaluation(data / "theirs.json").value("epe all") == 2.25
    assert "data:image/png" in (data / "r.html").read_text()
    assert not [path for path in data.iterdir() if path.name.startswith(".")]


def test_corrupt_file_is_named_the_rest_finished_and_then_continued(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = data / "data/a/right.png"
    whole = image.read_bytes()
    image.write_bytes(whole[:80])
    assert _evaluate(data, "theirs") == 2
    printed = capsys.readouterr().out
    assert "right.png" in printed.replace("\n", "")
    assert "1 of 2 images FAILED" in printed.replace("\n", " ")
    assert read_evaluation(data / "theirs.json").value("epe all") == 3.5
    image.write_bytes(whole)
    (data / "theirs/b.pfm").unlink()
    assert _evaluate(data, "theirs") == 0
    assert read_evaluation(data / "theirs.json").value("epe all") == 2.25


def test_compare_pairs_two_evaluations(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _evaluate(data, "theirs") == _evaluate(data, "ours") == 0
    capsys.readouterr()
    assert main(["compare", str(data / "theirs.json"), str(data / "ours.json")]) == 0
    printed = capsys.readouterr().out
    assert "-1.125" in printed
    assert main(["compare", str(data / "theirs.json"), str(data / "theirs/a.pfm")]) == 2


def test_unknown_protocols_and_data_sets_are_explained(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(data / "theirs"), "kiti"]) == 2
    assert "stereopsis datasets" in capsys.readouterr().err.replace("\n", " ")
    assert main(["evaluate", str(data / "theirs"), "zero-shot", "--root", str(data)]) == 2
    assert "NAME=FOLDER" in capsys.readouterr().err.replace("\n", " ")


def test_datasets_lists_every_card(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["datasets"]) == 0
    printed = capsys.readouterr().out
    assert "kitti2015  KITTI 2015 stereo" in printed
    assert "CC BY-NC-SA 3.0" in printed


def test_datasets_check_passes_real_scenes_and_writes_a_sheet(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--root", str(shared_data / "real"), "--samples", "2", "--sheet", str(tmp_path / "sheet.png")]
    assert main(["datasets", "check", "open", *options]) == 0
    assert "2 of 12 pairs checked" in capsys.readouterr().out
    assert (tmp_path / "sheet.png").stat().st_size > 10_000


def test_datasets_check_fails_where_images_are_exchanged(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = tmp_path / "teddy"
    scene.mkdir()
    for path in (shared_data / "real/middlebury2003_teddy").iterdir():
        (scene / path.name).write_bytes(path.read_bytes())
    described = json.loads((scene / "scene.json").read_text())
    described |= {"left": "right.png", "right": "left.png", "disparity_right": None, "occlusion_mask": None}
    (scene / "scene.json").write_text(json.dumps(described))
    assert main(["datasets", "check", "scenes", "--root", str(tmp_path)]) == 2
    assert "images exchanged" in capsys.readouterr().out


def test_submit_writes_and_checks_an_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = tiny(0)
    for part, count in (("training", 27), ("testing", 20)):
        for number in range(count):
            folder = tmp_path / "eth3d" / f"two_view_{part}" / f"{part}_{number}"
            write_image(folder / "im0.png", scene.left)
            write_image(folder / "im1.png", scene.right)
            write_pfm(tmp_path / "theirs" / f"{part}_{number}.pfm", np.full((12, 16), 5.0))
    arguments = [str(tmp_path / "theirs"), "eth3d", "--root", str(tmp_path / "eth3d")]
    arguments += ["--output", str(tmp_path / "out.zip")]
    assert main(["submit", *arguments]) == 0
    assert "47 pairs" in capsys.readouterr().out
    assert main(["submit", *arguments, "--check"]) == 0
    (tmp_path / "theirs/training_3.pfm").unlink()
    assert main(["submit", *arguments]) == 2
    assert "training_3" in capsys.readouterr().err
