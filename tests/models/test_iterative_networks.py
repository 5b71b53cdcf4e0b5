"""RAFT-Stereo, the IGEV family, Selective-Stereo: they learn, as a whole; options do what they say."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stereopsis.losses import SequenceLoss
from stereopsis.models.base import StereoModel, count_parameters
from stereopsis.models.registry import create
from stereopsis.structures import IterativeOutput, StereoPair, StereoSample

NAMES = (
    "raft-stereo",
    "raft-stereo-realtime",
    "raft-stereo-rvc",
    "selective-raft",
    "igev-stereo",
    "selective-igev",
    "igev-plusplus",
    "igev-plusplus-rt",
)
SIZE = (64, 128)
OPTIONS: dict[str, dict[str, object]] = {
    "igev-stereo": {"max_disparity": 64},
    "selective-igev": {"max_disparity": 64},
    "igev-plusplus": {"max_disparity": 256},
    "igev-plusplus-rt": {"max_disparity": 64},
}
CANCELLED = {
    "raft-stereo": ("features.trunk.",),
    "raft-stereo-realtime": ("project.0.",),
    "raft-stereo-rvc": (
        "features.trunk.",
        "context.trunk.",
        "context.coarser.",
        "context.hidden_heads.0.0.",
        "context.hidden_heads.1.0.",
        "context.context_heads.0.0.",
        "context.context_heads.1.0.",
    ),
    "selective-raft": ("features.trunk.",),
}
"""Biases before an instance norm: their gradients are rounding."""


def _model(name: str, **options: object) -> StereoModel[Any, Any]:
    torch.manual_seed(0)
    model = create(name, **{**OPTIONS.get(name, {}), "iterations": 3, **options})
    assert isinstance(model, StereoModel)
    return model.eval()


def _sample(size: tuple[int, int] = SIZE) -> StereoSample:
    """Two pairs of smooth texture, shifted by 6 and by 15 pixels."""
    generator = torch.Generator().manual_seed(0)
    height, width = size
    texture = torch.rand(2, 3, height // 3, (width + 15) // 3, generator=generator)
    wide = nn.functional.interpolate(texture, (height, width + 15), mode="bicubic").clamp(0, 1)
    shifts = (6, 15)
    left = torch.stack([image[..., :width] for image in wide])
    right = torch.stack([image[..., s : s + width] for image, s in zip(wide, shifts, strict=True)])
    disparity = torch.stack([torch.full(size, float(s)) for s in shifts])
    columns = torch.arange(width).expand(2, height, width)
    return StereoSample(StereoPair(left, right), disparity, columns >= disparity)


def _single() -> tuple[torch.Tensor, torch.Tensor]:
    pair = _sample().pair
    return pair.left[:1], pair.right[:1]


def _loss(name: str) -> SequenceLoss:
    if name == "igev-plusplus":
        wider = ((0.5, 384.0), (0.2, 700.0))
        return SequenceLoss(max_disparity=700.0, initial=1.0, initial_below=192.0, wider=wider)
    return SequenceLoss(max_disparity=192.0, initial=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_twenty_steps_on_two_pairs_reduce_the_loss(name: str) -> None:
    model, sample, loss = _model(name).train(), _sample(), _loss(name)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4, weight_decay=1e-5)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        value = loss(model(sample.pair.left, sample.pair.right), sample)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(value.detach()))
    assert min(losses[-3:]) < 0.8 * losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter(name: str) -> None:
    # RAFT starts from no displacement, which tells nothing to the weights that read it.
    iterations = 2 if "raft" in name else 1
    model, sample = _model(name, iterations=iterations).train(), _sample()
    _loss(name)(model(sample.pair.left, sample.pair.right), sample).backward()
    untouched = {
        key
        for key, value in model.named_parameters()
        if not (key.endswith("bias") and key.startswith(CANCELLED.get(name, ())))
        and (value.grad is None or not value.grad.abs().sum() > 1e-12)
    }
    assert untouched == set()


@pytest.mark.parametrize("name", ["raft-stereo-realtime", "igev-plusplus", "igev-plusplus-rt"])
def test_training_gives_every_iterate_and_keeps_the_statistics_of_2d_norms(name: str) -> None:
    model, sample = _model(name).train(), _sample()
    before = {key: value.clone() for key, value in model.named_buffers()}
    with torch.no_grad():
        output = model(sample.pair.left, sample.pair.right)
    assert isinstance(output, IterativeOutput)
    assert [tuple(iterate.shape) for iterate in output.iterates] == [(2, *SIZE)] * 3
    assert torch.equal(output.iterates[-1], output.disparity)
    flat = {key for key, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    changed = {
        key.rsplit(".", 1)[0] for key, value in model.named_buffers() if not torch.equal(value, before[key])
    }
    assert not changed & flat
    assert len(output.wider) == (2 if name == "igev-plusplus" else 0)


@pytest.mark.parametrize("name", NAMES)
def test_options_switched_off_change_no_bit(name: str) -> None:
    model, (left, right) = _model(name, iterations=2), _single()
    with torch.no_grad():
        plain = model(left, right).disparity
        unknown = torch.full_like(plain, torch.nan)
        assert torch.equal(model(left, right, initial=unknown).disparity, plain)
        model.config = dataclasses.replace(model.config, stop_below=0.0)
        assert torch.equal(model(left, right).disparity, plain)


@pytest.mark.parametrize(
    "name", ["raft-stereo-realtime", "selective-raft", "igev-plusplus-rt", "igev-plusplus"]
)
def test_a_start_near_the_result_and_an_early_stop_are_taken(name: str) -> None:
    model, (left, right) = _model(name, stop_below=1e6), _single()
    with torch.no_grad():
        stopped = model(left, right).disparity
        model.config = dataclasses.replace(model.config, stop_below=None, iterations=1)
        assert torch.equal(model(left, right).disparity, stopped)
        for parameter in _last_layer(model).parameters():
            parameter.zero_()  # nothing moves, so that the start is what comes out
        start = torch.full((1, *SIZE), 20.0)
        inner = model(left, right, initial=start).disparity[:, 16:-16, 16:-16]
    torch.testing.assert_close(inner, torch.full_like(inner, 20.0), rtol=1e-5, atol=1e-4)


def _last_layer(model: StereoModel[Any, Any]) -> nn.Module:
    head = "flow_head" if hasattr(model, "flow_head") else "delta_head"
    return model.get_submodule(f"{head}.conv2")


@pytest.mark.parametrize("name", ["raft-stereo", "igev-stereo", "selective-igev", "igev-plusplus"])
def test_recomputed_correlations_give_the_stored_result(name: str) -> None:
    model, (left, right) = _model(name), _single()
    with torch.no_grad():
        stored = model(left, right).disparity
        model.config = dataclasses.replace(model.config, volume="recomputed")
        light = model(left, right).disparity
    torch.testing.assert_close(stored, light, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["raft-stereo-realtime", "igev-plusplus-rt"])
def test_bfloat16_autocast_keeps_disparity_in_float32(name: str) -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = _model(name)(*_single())
    assert output.disparity.dtype == torch.float32
    assert bool(output.disparity.isfinite().all())


@pytest.mark.parametrize(
    ("name", "published", "left_out"),
    [
        ("raft-stereo", 11_116_176, 0),
        ("raft-stereo-rvc", 11_108_688, 0),
        ("selective-raft", 11_654_706, 0),
        ("igev-stereo", 12_598_114, 16),
        ("selective-igev", 13_140_932, 16),
        ("igev-plusplus", 14_528_290, 0),
        ("igev-plusplus-rt", 4_165_162, 16),
    ],
)
def test_parameters_are_as_many_as_published(name: str, published: int, left_out: int) -> None:
    assert count_parameters(create(name)) == published - left_out


@pytest.mark.parametrize(
    ("name", "multiple"), [("igev-stereo", 32), ("igev-plusplus-rt", 32), ("igev-plusplus", 128)]
)
def test_odd_ranges_are_refused(name: str, multiple: int) -> None:
    with pytest.raises(ValueError, match=f"positive multiple of {multiple}, it is 200"):
        create(name, max_disparity=200)


def test_confidence_comes_from_the_last_coarse_fields() -> None:
    with torch.no_grad():
        output = _model("igev-plusplus-rt")(*_single())
    assert len(output.iterates) == 3
    assert all(tuple(iterate.shape) == (1, *SIZE) for iterate in output.iterates)
    cells = output.iterates[-1].unfold(1, 4, 4).unfold(2, 4, 4)
    assert torch.equal(cells, cells[..., :1, :1].expand_as(cells))


_COMPILE = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from stereopsis.models.registry import create
for name in sys.argv[2:]:
    torch.manual_seed(0)
    torch._dynamo.reset()
    model = create(name, iterations=1).eval()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        left, right = torch.rand(2, 1, 3, 64, 128)
        difference = (compiled(left, right).disparity - model(left, right).disparity).abs().max()
    assert difference < 1e-2, (name, float(difference))
"""


@pytest.mark.slow
@pytest.mark.compile
def test_networks_compile_without_graph_breaks(tmp_path: Path) -> None:
    """In a process of its own: the shape checks of this one cannot be traced."""
    script = tmp_path / "compile.py"
    script.write_text(_COMPILE)
    source = str(Path(__file__).resolve().parents[2] / "src")
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    result = subprocess.run(
        [sys.executable, str(script), source, *NAMES], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr[-2000:]
