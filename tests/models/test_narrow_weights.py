"""`benchmarks/narrow_weights.py`: a narrower `fast` starts from a wider one's strongest channels."""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from stereopsis.models.fast import Fast, FastConfig

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "narrow_weights.py"
WIDE = FastConfig(width=16, depth=2)


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def random_network() -> Fast:
    torch.manual_seed(0)
    model = Fast(WIDE).eval()
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
