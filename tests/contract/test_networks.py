"""What every registered network promises, in a small configuration."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import pytest
import torch

from stereopsis.io.weights import WeightsHeader, write_weights
from stereopsis.models.base import StereoModel
from stereopsis.models.registry import create, entry, list_models
from stereopsis.prediction.loading import load
from stereopsis.prediction.network import NetworkPredictor
from stereopsis.structures import StereoPair

_SIZE = (70, 135)


def _stereo_names() -> list[str]:
    return [name for name in list_models() if issubclass(entry(name).network, StereoModel)]


def _tiny(name: str) -> StereoModel[Any, Any]:
    """The network in its small configuration, the same random weights each time, outputs not degenerate."""
    torch.manual_seed(0)
    model = create(name, **entry(name).tiny)
    assert isinstance(model, StereoModel)
    model.load_state_dict(_calibrated(name))
    return model.eval()


@functools.cache
def _calibrated(name: str) -> dict[str, torch.Tensor]:
    """Random weights whose batch norms know their inputs, so that activations neither vanish nor explode."""
    torch.manual_seed(0)
    model = create(name, **entry(name).tiny)
    assert isinstance(model, StereoModel)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
            module.momentum = 1.0
    pairs = StereoPair.stack([_pair(0), _pair(1)]).map(model.padding.pad)
    with torch.no_grad():
        model.train()(pairs.left, pairs.right)
    return model.state_dict()


def _pair(seed: int = 0) -> StereoPair:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(3, 20, 40, generator=generator)
    wide = torch.nn.functional.interpolate(coarse[None], (_SIZE[0], _SIZE[1] + 8), mode="bilinear")[0]
    return StereoPair(wide[..., :-8].contiguous(), wide[..., 8:].contiguous())


@pytest.mark.parametrize("name", _stereo_names())
def test_odd_sizes_give_full_size_finite_output(name: str) -> None:
    output = NetworkPredictor(_tiny(name))(_pair())
    assert output.disparity.shape == _SIZE
    assert output.confidence is not None
    assert output.confidence.shape == _SIZE
    assert bool(torch.isfinite(output.disparity).all())
    assert bool(((output.confidence >= 0) & (output.confidence <= 1)).all())


@pytest.mark.parametrize("name", _stereo_names())
def test_a_pair_in_a_batch_is_the_pair_alone(name: str) -> None:
    pairs = [_pair(0), _pair(1)]
    batch = StereoPair.stack(pairs)
    predictor = NetworkPredictor(_tiny(name), batch_size=2)
    together = predictor(batch).disparity
    alone = torch.stack([predictor(pair).disparity for pair in pairs])
    assert float((together - alone).abs().max()) < 1e-2


@pytest.mark.parametrize("name", _stereo_names())
def test_saved_weights_load_by_path_alone(name: str, tmp_path: Path) -> None:
    model = _tiny(name)
    config = dataclasses.asdict(model.config)
    path = tmp_path / "weights.safetensors"
    write_weights(path, model.state_dict(), WeightsHeader(network=name, config=config))
    loaded = load(path)
    assert isinstance(loaded, NetworkPredictor)
    assert loaded.model.config == model.config
    assert torch.equal(loaded(_pair()).disparity, NetworkPredictor(model)(_pair()).disparity)
