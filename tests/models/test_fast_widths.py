"""Weights for another width of `fast` (`benchmarks/narrow_weights.py`, `widen_weights.py`)."""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from stereopsis.models.fast import Fast, FastConfig
from stereopsis.structures import StereoPair

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
WIDE = FastConfig(width=16, depth=2)


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(BENCHMARKS / "narrow_weights.py"))


@pytest.fixture
def widening(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return runpy.run_path(str(BENCHMARKS / "widen_weights.py"))


def random_network(config: FastConfig = WIDE) -> Fast:
    torch.manual_seed(0)
    model = Fast(config).eval()
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            tensor.copy_(torch.rand_like(tensor) + 0.1)
    return model


def test_as_wide_and_deep_as_before_nothing_changes(script: dict[str, Any]) -> None:
    state = random_network().state_dict()
    kept = script["Narrowing"](state, WIDE, WIDE).result()
    assert kept.keys() == state.keys()
    assert all(torch.equal(kept[name], state[name]) for name in state)


def test_without_its_last_blocks_every_other_tensor_stays(script: dict[str, Any]) -> None:
    state = random_network().state_dict()
    shallow = dataclasses.replace(WIDE, depth=1)
    kept = script["Narrowing"](state, WIDE, shallow).result()
    moved = {name for name in kept if name.startswith("aggregation.body32.2.")}
    assert all(torch.equal(kept[name], state[name]) for name in kept.keys() - moved)
    assert all(torch.equal(kept[name], state[name.replace("32.2", "32.3")]) for name in moved)


def test_silent_channels_go_first_and_leave_no_gap(script: dict[str, Any]) -> None:
    """Features at 1/4 that are zero, and read with weights of zero, are not among those that are kept."""
    model = random_network()
    silent = torch.arange(0, WIDE.width, 2)
    for name in ("encoder.stem", "encoder.quarter.second"):
        norm = model.get_submodule(f"{name}.1")
        norm.weight.data[silent] = norm.bias.data[silent] = 0
    narrowing = script["Narrowing"](model.state_dict(), WIDE, dataclasses.replace(WIDE, width=8))
    assert narrowing.kept["quarter"].tolist() == list(range(1, WIDE.width, 2))
    narrow = Fast(narrowing.narrow).eval()
    narrow.load_state_dict(narrowing.result())
    left, right = torch.rand(2, 1, 3, 64, 96)
    assert narrow(left, right).disparity.isfinite().all()


NARROW = FastConfig(width=8, groups=2, depth=1)
WIDER = FastConfig(width=16, groups=4, depth=1)


def noise(size: tuple[int, int]) -> StereoPair:
    generator = torch.Generator().manual_seed(3)
    left, right = torch.rand(2, 2, 3, *size, generator=generator)
    return StereoPair(left, right)


def test_what_a_widened_network_compares_is_all_that_changes_its_answer(widening: dict[str, Any]) -> None:
    narrow, wide = random_network(NARROW), Fast(WIDER).eval()
    widening["widen"](wide, narrow.state_dict(), NARROW)
    pair = noise((64, 96))
    with torch.inference_mode():
        before, whispered = narrow(pair.left, pair.right), wide(pair.left, pair.right)
        torch.testing.assert_close(whispered.probabilities, before.probabilities)
        assert not torch.equal(whispered.disparity, before.disparity)
        wide.refinement.describe.weight[NARROW.width :] = 0
        wide.refinement.describe.bias[NARROW.width :] = 0
        silent = wide(pair.left, pair.right)
    torch.testing.assert_close(silent.disparity, before.disparity, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(silent.confidence, before.confidence)


def test_new_channels_are_given_the_statistics_of_their_inputs_and_old_ones_keep_theirs(
    widening: dict[str, Any],
) -> None:
    narrow, wide = random_network(NARROW), Fast(WIDER).eval()
    widening["widen"](wide, narrow.state_dict(), NARROW)
    pair, new = noise((64, 96)), slice(NARROW.width, None)
    widening["settle"](wide, narrow.state_dict(), pair)
    stem, norm = wide.encoder.stem[0], wide.encoder.stem[1]
    assert torch.equal(norm.running_mean[: NARROW.width], narrow.encoder.stem[1].running_mean)
    with torch.inference_mode():
        given = stem(torch.cat([pair.left, pair.right]) * 4 - 2)[:, new]
    torch.testing.assert_close(norm.running_mean[new], given.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var[new], given.var((0, 2, 3)))
    assert not wide.encoder.stem[1]._forward_pre_hooks


@pytest.mark.parametrize("other", [{"depth": 2}, {"groups": 2}])
def test_another_depth_or_size_of_groups_is_refused(widening: dict[str, Any], other: dict[str, int]) -> None:
    wide = Fast(dataclasses.replace(WIDER, **other))
    with pytest.raises(ValueError, match="no other depth"):
        widening["widen"](wide, random_network(NARROW).state_dict(), NARROW)
