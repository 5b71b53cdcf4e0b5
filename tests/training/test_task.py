"""What a training builds before its first step."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from stereopsis.training.config import TrainSettings
from stereopsis.training.main import build_task, synchronise_batch_norms


class Norms(nn.Module):
    """One norm of images, one of volumes, one that stays frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm3d(3))
        self.frozen = nn.BatchNorm2d(3)

    def train(self, mode: bool = True) -> Norms:
        super().train(mode)
        self.frozen.eval()
        return self


def test_norms_that_learn_are_synchronised_and_frozen_ones_are_not() -> None:
    model = Norms()
    names = list(model.state_dict())
    synchronise_batch_norms(model, frozen=False)
    kinds = [type(part) for part in (*model.parts, model.frozen)]
    assert kinds == [nn.SyncBatchNorm, nn.SyncBatchNorm, nn.BatchNorm2d]
    assert list(model.state_dict()) == names


def test_norms_of_images_that_the_recipe_freezes_stay_as_they_are() -> None:
    model = Norms()
    synchronise_batch_norms(model, frozen=True)
    assert [type(part) for part in model.parts] == [nn.BatchNorm2d, nn.SyncBatchNorm]


@pytest.mark.parametrize(("devices", "synchronised"), [(1, False), (2, True)])
def test_several_cuda_processes_synchronise(
    tiny: Callable[..., TrainSettings], monkeypatch: pytest.MonkeyPatch, devices: int, synchronised: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    task = build_task(tiny(f"trainer.devices={devices}"))
    kinds = {type(part) for part in task.model.modules()}
    assert (nn.SyncBatchNorm in kinds) == synchronised
    assert (nn.BatchNorm2d in kinds) != synchronised
