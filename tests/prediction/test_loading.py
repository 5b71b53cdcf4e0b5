"""What `load` takes for the network that was named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from stereopsis.io.weights import WeightsHeader, write_weights
from stereopsis.models.registry import create, entry
from stereopsis.prediction.loading import load
from stereopsis.prediction.monocular import load_monocular


def _written(path: Path, name: str) -> Path:
    model = create(name, **entry(name).tiny)
    header = WeightsHeader(network=name, config=dataclasses.asdict(model.config))
    write_weights(path, model.state_dict(), header)
    return path


def test_weights_of_the_named_network_are_taken_whatever_their_options(tmp_path: Path) -> None:
    load("raft-stereo", weights=_written(tmp_path / "w.safetensors", "raft-stereo"), iterations=1)


@pytest.mark.parametrize("other", ["stereonet", "raft-stereo-realtime"])
def test_weights_of_another_network_or_variant_are_refused(tmp_path: Path, other: str) -> None:
    weights = _written(tmp_path / "w.safetensors", other)
    with pytest.raises(ValueError, match=f"holds {other}, not raft-stereo: name that or no model"):
        load("raft-stereo", weights=weights)


def test_weights_of_another_monocular_variant_are_refused(tmp_path: Path) -> None:
    model = create("depth-anything-v2-small", encoder="tiny", input_size=56)
    header = WeightsHeader(network="depth-anything-v2-small", config=dataclasses.asdict(model.config))
    weights = tmp_path / "w.safetensors"
    write_weights(weights, model.state_dict(), header)
    load_monocular("depth-anything-v2-small", weights=weights)
    with pytest.raises(ValueError, match="holds depth-anything-v2-small, not depth-anything-v2-large"):
        load_monocular("depth-anything-v2-large", weights=weights)
