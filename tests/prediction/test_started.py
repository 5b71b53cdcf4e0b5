"""A disparity to start from: given, SGBM's, a coarse pass's, the frame before's; and what refuses it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from stereopsis.io.weights import WeightsHeader, write_weights
from stereopsis.models.base import StereoModel
from stereopsis.models.registry import create
from stereopsis.prediction.classical import SGBM
from stereopsis.prediction.loading import load
from stereopsis.prediction.network import NetworkPredictor
from stereopsis.prediction.started import Following, started
from stereopsis.structures import StereoOutput, StereoPair

SIZE = (60, 121)
"""Not what networks take: it is padded."""


def _network(name: str = "igev-plusplus-rt", **options: object) -> NetworkPredictor:
    torch.manual_seed(0)
    least: dict[str, object] = {"iterations": 1, "max_disparity": 64} if "igev" in name else {}
    return NetworkPredictor(cast(StereoModel[Any, Any], create(name, **(least | options))))


def _still() -> NetworkPredictor:
    """A network that moves nothing: where it starts is what comes out, away from borders."""
    network = _network()
    for parameter in network.model.get_submodule("delta_head.conv2").parameters():
        parameter.data.zero_()
    return network


def _pair(size: tuple[int, int] = SIZE, *, seed: int = 0) -> StereoPair:
    """Fine texture, shifted by 12 pixels."""
    wide = torch.rand(3, size[0], size[1] + 12, generator=torch.Generator().manual_seed(seed))
    return StereoPair(wide[..., : size[1]], wide[..., 12:])


def _inner(output: StereoOutput) -> torch.Tensor:
    return output.disparity[..., 16:-16, 16:-16]


def test_without_a_start_no_bit_changes() -> None:
    network, pair = _network(iterations=2), _pair()
    plain = network(pair).disparity
    assert torch.equal(network(pair, initial=torch.full(SIZE, math.inf)).disparity, plain)
    assert torch.equal(Following(network)(pair).disparity, plain)
    assert torch.equal(_network(iterations=2, stop_below=0.0)(pair).disparity, plain)


def test_updates_begin_at_what_is_given_in_every_pair_of_a_batch() -> None:
    network = _still()
    network.batch_size = 2
    single = _pair()
    pair = StereoPair.stack([single, single, single])
    initial = torch.tensor([8.0, 20.0, 33.0])[:, None, None].expand(3, *SIZE)
    inner = _inner(network(pair, initial=initial))
    torch.testing.assert_close(inner, initial[:, 16:-16, 16:-16], rtol=1e-5, atol=1e-4)


def test_sgbm_gives_the_start() -> None:
    found = _inner(started(_still(), "sgbm")(_pair()))
    # In its band of disparities; where it matched nothing, the network's own start remains.
    assert float((found - 12).abs().median()) < 0.05


def test_a_coarse_pass_is_of_the_same_network_at_half_size() -> None:
    network, pair = _network(iterations=2), _pair((128, 256))
    seen = []
    network.model.register_forward_pre_hook(lambda _module, images: seen.append(images[0].shape[-2:]))
    started(network, "coarse")(pair)
    assert seen == [(64, 128), (128, 256)]


def test_a_frame_starts_from_the_one_before_where_sizes_agree() -> None:
    network, first, second = _network(), _pair(), _pair(seed=1)
    following = Following(network)
    before = following(first).disparity
    assert torch.equal(following(second).disparity, network(second, initial=before).disparity)
    other = _pair((64, 128))
    assert torch.equal(following(other).disparity, network(other).disparity)


def test_the_right_view_starts_as_ever() -> None:
    network, pair = _network(), _pair()
    network.both = True
    plain, begun = network(pair), network(pair, initial=torch.full(SIZE, 30.0))
    assert plain.right_disparity is not None
    assert begun.right_disparity is not None
    assert torch.equal(plain.right_disparity, begun.right_disparity)
    assert not torch.equal(plain.disparity, begun.disparity)


def test_a_file_is_loaded_with_a_start_and_an_early_stop(tmp_path: Path) -> None:
    path, pair = tmp_path / "rt.safetensors", _pair()
    model = _network(iterations=4).model
    header = WeightsHeader(network="igev-plusplus-rt", config=dataclasses.asdict(model.config))
    write_weights(path, model.state_dict(), header)
    once, stopped = load(path, iterations=1), load(path, stop_below=1e6)
    assert torch.equal(stopped(pair).disparity, once(pair).disparity)
    begun = load(path, start="sgbm", iterations=2)
    initial = SGBM(fill=None)(pair).disparity
    plain = load(path, iterations=2)
    assert isinstance(plain, NetworkPredictor)
    assert torch.equal(begun(pair).disparity, plain(pair, initial=initial).disparity)


@pytest.mark.parametrize(
    ("initial", "message"),
    [
        (torch.full(SIZE, math.nan), "holds NaN: write infinity where it is unknown"),
        (torch.zeros(64, 121), r"the shape of the pair, \[60, 121\]: it is \[64, 121\]"),
        (torch.zeros(1, *SIZE), r"the shape of the pair, \[60, 121\]: it is \[1, 60, 121\]"),
    ],
)
def test_a_start_that_cannot_be_one_is_refused(initial: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _network()(_pair(), initial=initial)


@pytest.mark.parametrize("name", ["stereonet", "crestereo"])
def test_networks_that_take_no_start_say_so(name: str) -> None:
    network = _network(name)
    with pytest.raises(ValueError, match="takes no disparity to start from"):
        network(_pair(), initial=torch.zeros(SIZE))
    with pytest.raises(ValueError, match="takes no disparity to start from"):
        started(network, "previous")


def test_a_compiled_network_takes_no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda graph, **_: graph)
    network = NetworkPredictor(_network().model, compile="default")
    with pytest.raises(ValueError, match="compile='no'"):
        started(network, "sgbm")


def test_an_unknown_start_is_refused() -> None:
    with pytest.raises(ValueError, match="start must be one of sgbm, coarse, previous, not 'elas'"):
        started(_network(), "elas")
