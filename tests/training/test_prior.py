"""A fusing network's training starts from a monocular network's weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from stereopsis.io.weights import WeightsHeader, write_weights
from stereopsis.models.registry import create
from stereopsis.training.config import ModelSettings
from stereopsis.training.main import build_model


@pytest.fixture
def prior(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = create("depth-anything-v2-small", encoder="tiny")
    header = WeightsHeader(network="depth-anything-v2-small", config=dataclasses.asdict(model.config))
    write_weights(tmp_path / "prior.safetensors", model.state_dict(), header)
    return tmp_path / "prior.safetensors"


def test_the_monocular_part_is_the_priors(prior: Path) -> None:
    model = build_model(ModelSettings(name="sydenet", options={"encoder": "tiny"}, prior=str(prior)))
    from stereopsis.prediction.loading import load_model

    theirs = load_model(prior).state_dict()
    assert torch.equal(model.state_dict()["monocular_encoder.positions"], theirs["encoder.positions"])


def test_a_network_that_holds_no_other_takes_no_prior(prior: Path) -> None:
    with pytest.raises(ValueError, match="stereonet"):
        build_model(ModelSettings(name="stereonet", prior=str(prior)))
