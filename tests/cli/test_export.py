"""`export` and `bench` at the border: what is refused, in one sentence, before anything is computed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stereopsis.cli import bench
from stereopsis.cli.main import main


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["export", "fast-large"], "no weights for fast-large come with the package"),
        (["export", "fasst"], "did you mean fast"),
        (["export", "fast", "--random-weights", "--precision", "int8"], "random weights have none"),
        (["export", "fast", "--random-weights", "--size", "640"], "'640' is not WIDTHxHEIGHT"),
        (["export", "gone.safetensors"], "gone.safetensors"),
        (["export", "depth-anything-v2-small", "--random-weights"], "is monocular"),
        (["bench", "fast", "--runtimes", "tensorrt"], "no runtime is called 'tensorrt'"),
        (["bench", "fasst"], "did you mean fast"),
        (["bench", "sgbm", "--size", "8x8"], "at least 16x16"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.startswith("error: ")
    assert "Traceback" not in shown


def test_a_runtime_that_cannot_take_a_network_is_left_out_and_the_others_are_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object) -> Path:
        raise ValueError("stereonet is not for OpenVINO: GridSample is only supported for 4D")

    monkeypatch.setattr(bench, "_exported", refuse)
    arguments = ["bench", "stereonet", "--runtimes", "torch,openvino", "--size", "64x48", "--runs", "1"]
    assert main([*arguments, "--json", str(tmp_path / "bench.json")]) == 0
    assert "left out: stereonet by openvino: stereonet is not for OpenVINO" in capsys.readouterr().err
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert [row["contender"]["runtime"] for row in rows] == ["torch"]
