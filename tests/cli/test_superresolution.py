from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from stereopsis.cli.main import main
from stereopsis.io.images import write_image
from stereopsis.io.pfm import read_pfm
from stereopsis.io.weights import WeightsHeader, write_weights
from stereopsis.models.registry import create
from stereopsis.models.smd import SMDNet


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images, and the weights of a tiny network that can be asked anywhere."""
    torch.manual_seed(0)
    model = create("smd-stereodepth", max_disparity=128, width=4, head=(16, 8))
    assert isinstance(model, SMDNet)
    header = WeightsHeader(network="smd-stereodepth", config=dataclasses.asdict(model.config))
    write_weights(tmp_path / "smd.safetensors", model.state_dict(), header)
    random = np.random.default_rng(0)
    for name in ("left.png", "right.png"):
        write_image(tmp_path / name, random.integers(0, 255, (40, 50, 3), dtype=np.uint8))
    return tmp_path


def predict(folder: Path, *options: str, model: str = "smd.safetensors") -> int:
    weights = str(folder / model) if model.endswith(".safetensors") else model
    pair = [str(folder / "left.png"), str(folder / "right.png")]
    arguments = ["predict", *pair, "--model", weights, "--output", str(folder / "out"), *options]
    return main(arguments)


def test_superresolution_writes_a_finer_map_beside_the_others(folder):
    assert predict(folder, "--superresolution", "2.5") == 0
    fine = read_pfm(folder / "out" / "disparity_superresolved.pfm")
    coarse = read_pfm(folder / "out" / "disparity.pfm")
    assert fine.shape == (100, 125)
    assert coarse.shape == (40, 50)
    assert abs(fine[5, 5] / 2.5 - coarse[2, 2]) < 2


@pytest.mark.parametrize(
    ("options", "model", "sentence"),
    [
        (("--superresolution", "99"), "smd.safetensors", "at most 32"),
        (("--superresolution", "2"), "sgbm", "can be asked at any position"),
    ],
)
def test_what_cannot_be_superresolved_is_an_error_in_a_sentence(folder, options, model, sentence, capsys):
    assert predict(folder, *options, model=model) == 2
    assert sentence in capsys.readouterr().err
