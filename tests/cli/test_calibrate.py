"""`stereopsis calibrate` says what it cannot fit on, and leaves the weights alone then."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fakes.predictors import write_scene
from stereopsis.cli.main import main
from stereopsis.io.weights import WeightsHeader, write_weights
from stereopsis.models.registry import create


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    model = create("stereonet", downsamplings=3, refinements=1, max_disparity=32)
    path = tmp_path / "a.safetensors"
    header = WeightsHeader(network="stereonet", config=dataclasses.asdict(model.config))
    write_weights(path, model.state_dict(), header)
    return path


def test_what_cannot_be_fitted_is_said(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = weights.read_bytes()
    for count in range(3):
        write_scene(tmp_path / "few", f"scene{count}", size=(48, 80))
    for count in range(6):
        write_scene(tmp_path / "wrong", f"scene{count}", size=(48, 80), truth=900.0)
    for arguments, said in (
        ([str(tmp_path / "b.safetensors")], "there is no file"),
        (
            [str(weights), "--scenes", str(tmp_path / "few")],
            "holds 3 pairs with truth: at least 6 are needed",
        ),
        ([str(weights), "--scenes", str(tmp_path / "wrong")], "all right, or all wrong"),
    ):
        assert main(["calibrate", *arguments]) == 2
        assert said in capsys.readouterr().err
    assert weights.read_bytes() == before
