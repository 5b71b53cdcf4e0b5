"""Networks that start from their own disparity learn as ever, at any size of the pair."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from stereopsis.models.base import StereoModel
from stereopsis.models.registry import create
from stereopsis.structures import IterativeOutput, StereoOutput, StereoPair
from stereopsis.training import main, task
from stereopsis.training.config import TrainSettings
from stereopsis.training.forward import padded_forward, restarted_forward
from stereopsis.training.main import build_task, train


def _pair() -> StereoPair:
    left, right = torch.rand(2, 1, 3, 40, 130, generator=torch.Generator().manual_seed(0))
    return StereoPair(left, right)


def test_a_start_is_padded_as_the_images_are() -> None:
    torch.manual_seed(0)
    model = create("raft-stereo-realtime", iterations=1).train()
    first = torch.full((1, 40, 130), 8.0)
    output = padded_forward(model, _pair(), initial=first)
    assert isinstance(output, IterativeOutput)
    assert output.disparity.shape == (1, 40, 130)
    assert not torch.equal(output.disparity, padded_forward(model, _pair()).disparity)


def test_a_restarted_pass_starts_from_the_networks_own_disparity() -> None:
    torch.manual_seed(0)
    model = create("raft-stereo-realtime", iterations=1).train()
    own = padded_forward(model, _pair()).disparity.detach()
    found = restarted_forward(model, _pair()).disparity
    torch.testing.assert_close(found, padded_forward(model, _pair(), initial=own).disparity)


def test_every_weight_still_learns_under_autocast_after_the_pass_without_gradients() -> None:
    torch.manual_seed(0)
    model = create("raft-stereo-realtime", iterations=2).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        restarted_forward(model, _pair()).disparity.sum().backward()
    idle = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert idle == []


def test_networks_that_take_no_start_are_refused(tiny: Callable[..., TrainSettings]) -> None:
    with pytest.raises(ValueError, match=r"takes no start: leave trainer\.restart_every out"):
        build_task(tiny("trainer.restart_every=2"))


def test_every_so_many_steps_begin_from_the_networks_own_disparity(
    tiny: Callable[..., TrainSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: list[str] = []

    def noting(kind: str) -> Callable[..., StereoOutput]:
        def forward(model: StereoModel, pair: StereoPair) -> StereoOutput:
            kinds.append(kind)
            return padded_forward(model, pair)

        return forward

    monkeypatch.setattr(main, "StartableModel", StereoModel)  # StereoNet, which is quick, may pass for one
    monkeypatch.setattr(task, "restarted_forward", noting("restarted"))
    monkeypatch.setattr(task, "padded_forward", noting("plain"))
    train(tiny("trainer.restart_every=3", "trainer.max_steps=6"))
    assert kinds == ["plain", "plain", "restarted"] * 2
