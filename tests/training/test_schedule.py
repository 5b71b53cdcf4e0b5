"""Learning rates over the steps of a recipe."""

from __future__ import annotations

import pytest
from torch import nn

from stereopsis.training.config import OptimizerSettings
from stereopsis.training.schedule import build_optimizer, build_schedule


def test_a_trapezoid_climbs_holds_and_falls() -> None:
    settings = OptimizerSettings(lr=2.0, schedule="trapezoid", warmup=0.1, hold=0.6, final=0.05)
    optimizer = build_optimizer(nn.Linear(1, 1), settings)
    schedule = build_schedule(optimizer, settings, 100)
    rates = []
    for _ in range(101):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(0.1)
    assert rates[5] == pytest.approx(2 * (0.05 + 0.95 * 0.5))
    assert rates[10:61] == pytest.approx([2.0] * 51)
    assert rates[80] == pytest.approx(2 * (0.05 + 0.95 * 0.5))
    assert rates[100] == pytest.approx(0.1)
