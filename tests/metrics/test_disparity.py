"""Every disparity metric against a pure-Python loop, on random maps with masks, NaN and infinities."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from stereopsis.metrics import disparity as metrics


def _maps(seed: int, *, height: int = 7, width: int = 9) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(height, width, generator=generator) * 60
    disparity = truth + torch.randn(height, width, generator=generator) * 3
    holes = torch.rand(2, 4, height, width, generator=generator) < 0.08
    for value, (in_truth, in_disparity) in zip(
        (math.nan, math.inf, -math.inf, 0.0), holes.transpose(0, 1), strict=True
    ):
        truth[in_truth], disparity[in_disparity] = value, value
    return disparity, truth, torch.rand(height, width, generator=generator) < 0.7


def _pixels(disparity: Tensor, truth: Tensor, mask: Tensor) -> tuple[list[tuple[float, float]], int]:
    """(error, truth) of the answered pixels, and how many pixels were measured."""
    answered, measured = [], 0
    for d, t, m in zip(
        disparity.flatten().tolist(), truth.flatten().tolist(), mask.flatten().tolist(), strict=True
    ):
        if m and math.isfinite(t):
            measured += 1
            if math.isfinite(d):
                answered.append((abs(d - t), t))
    return answered, measured


def _naive_epe(*maps: Tensor) -> float:
    answered, _ = _pixels(*maps)
    return sum(e for e, _ in answered) / len(answered) if answered else math.nan


def _naive_rms(*maps: Tensor) -> float:
    answered, _ = _pixels(*maps)
    return math.sqrt(sum(e * e for e, _ in answered) / len(answered)) if answered else math.nan


def _naive_share(wrong: Callable[[float, float], bool]) -> Callable[..., float]:
    def share(*maps: Tensor) -> float:
        answered, measured = _pixels(*maps)
        right = sum(not wrong(e, t) for e, t in answered)
        return (measured - right) / measured if measured else math.nan

    return share


def _naive_quantile(share: float) -> Callable[..., float]:
    def quantile(*maps: Tensor) -> float:
        errors = sorted(e for e, _ in _pixels(*maps)[0])
        for candidate in errors:
            if sum(e <= candidate for e in errors) >= share * len(errors) - 1e-9:
                return candidate
        return math.nan

    return quantile


def _naive_density(*maps: Tensor) -> float:
    answered, measured = _pixels(*maps)
    return len(answered) / measured if measured else math.nan


_CASES = {
    "epe": (metrics.epe, _naive_epe),
    "rms": (metrics.rms, _naive_rms),
    "d1": (metrics.d1, _naive_share(lambda e, t: e > 3 and e > 0.05 * abs(t))),
    "density": (metrics.density, _naive_density),
}
for _threshold in (0.5, 1.0, 2.0, 3.0, 4.0):
    _CASES[f"bad-{_threshold}"] = (
        lambda *maps, threshold=_threshold: metrics.bad(*maps, threshold=threshold),
        _naive_share(lambda e, _, threshold=_threshold: e > threshold),
    )
for _share in (0.5, 0.9, 0.95, 0.99):
    _CASES[f"a{_share}"] = (
        lambda *maps, share=_share: metrics.quantile(*maps, share=share),
        _naive_quantile(_share),
    )


@pytest.mark.parametrize("name", _CASES)
def test_metric_equals_a_loop_over_pixels(name: str) -> None:
    ours, naive = _CASES[name]
    for seed in range(20):
        maps = _maps(seed)
        assert ours(*maps).item() == pytest.approx(naive(*maps), abs=1e-12), f"seed {seed}"


@pytest.mark.parametrize("name", _CASES)
def test_batch_gives_one_number_per_image(name: str) -> None:
    ours, _ = _CASES[name]
    images = [_maps(seed) for seed in range(3)]
    together = ours(*(torch.stack(maps) for maps in zip(*images, strict=True)))
    assert together.tolist() == [ours(*maps).item() for maps in images]


@pytest.mark.parametrize("name", _CASES)
def test_empty_mask_gives_nan(name: str) -> None:
    ours, _ = _CASES[name]
    disparity, truth, mask = _maps(0)
    assert math.isnan(ours(disparity, truth, torch.zeros_like(mask)).item())


def test_unanswered_pixels_are_wrong_in_shares_and_absent_from_means() -> None:
    truth = torch.full((1, 4), 10.0)
    disparity = torch.tensor([[10.0, 12.0, math.nan, math.inf]])
    mask = torch.ones(1, 4, dtype=torch.bool)
    assert metrics.epe(disparity, truth, mask).item() == 1.0
    assert metrics.bad(disparity, truth, mask, threshold=1.0).item() == 0.75
    assert metrics.density(disparity, truth, mask).item() == 0.5


def test_d1_needs_both_three_pixels_and_five_percent() -> None:
    truth = torch.tensor([[100.0, 100.0, 10.0, 10.0]])
    disparity = truth + torch.tensor([[4.0, 5.5, 2.5, 3.5]])
    assert metrics.d1(disparity, truth, torch.ones(1, 4, dtype=torch.bool)).item() == 0.5
