"""Depth metrics against a loop over pixels."""

from __future__ import annotations

import math

import pytest
import torch

from stereopsis.metrics.depth import abs_rel, delta, mae, rmse


def test_depth_metrics_equal_a_loop_over_pixels() -> None:
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        truth = torch.rand(6, 8, generator=generator) * 10 + 0.1
        depth = truth * (1 + torch.randn(6, 8, generator=generator) * 0.3)
        for value in (math.nan, math.inf, 0.0, -1.0):
            truth[torch.rand(6, 8, generator=generator) < 0.06] = value
            depth[torch.rand(6, 8, generator=generator) < 0.06] = value
        mask = torch.rand(6, 8, generator=generator) < 0.8
        measured = [
            (d, t)
            for d, t, m in zip(
                depth.flatten().tolist(), truth.flatten().tolist(), mask.flatten().tolist(), strict=True
            )
            if m and math.isfinite(t) and t > 0
        ]
        answered = [(d, t) for d, t in measured if math.isfinite(d) and d > 0]
        assert abs_rel(depth, truth, mask).item() == pytest.approx(
            sum(abs(d - t) / t for d, t in answered) / len(answered), rel=1e-12
        )
        assert mae(depth, truth, mask).item() == pytest.approx(
            sum(abs(d - t) for d, t in answered) / len(answered), rel=1e-12
        )
        assert rmse(depth, truth, mask).item() == pytest.approx(
            math.sqrt(sum((d - t) ** 2 for d, t in answered) / len(answered)), rel=1e-12
        )
        for power in (1, 2, 3):
            close = sum(max(d / t, t / d) < 1.25**power for d, t in answered)
            assert delta(depth, truth, mask, power=power).item() == pytest.approx(
                close / len(measured), rel=1e-12
            )


def test_empty_mask_gives_nan() -> None:
    ones, nothing = torch.ones(2, 2), torch.zeros(2, 2, dtype=torch.bool)
    assert all(math.isnan(metric(ones, ones, nothing).item()) for metric in (abs_rel, mae, rmse, delta))
