"""Confidence metrics against loops over sorted pixels and pairs."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from stereopsis.metrics.confidence import auroc, ause, calibration_error, risk_coverage, sparsification


def _pixels(seed: int, *, count: int = 57) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    error = torch.rand(count, generator=generator) * 5
    confidence = ((1 - error / 6 + torch.rand(count, generator=generator) * 0.4) * 8).round() / 8
    return error, confidence.clamp(0, 1)


def _naive_curve(error: list[float], confidence: list[float], steps: int) -> list[float]:
    """Means after removal; a tie counts with the mean error of all pixels of that confidence."""
    shared = [
        sum(e for e, other in zip(error, confidence, strict=True) if other == c) / confidence.count(c)
        for c in confidence
    ]
    ordered = [e for _, e in sorted(zip(confidence, shared, strict=True), key=lambda pixel: -pixel[0])]
    curve = []
    for step in range(steps):
        kept = max(1, math.ceil(len(ordered) * (steps - step) / steps - 1e-9))
        curve.append(sum(ordered[:kept]) / kept)
    return curve


def test_sparsification_and_ause_equal_loops() -> None:
    for seed in range(10):
        error, confidence = _pixels(seed)
        expected = _naive_curve(error.tolist(), confidence.tolist(), 20)
        assert sparsification(error, confidence, steps=20).tolist() == pytest.approx(expected, rel=1e-9)
        best = _naive_curve(error.tolist(), [-e for e in error.tolist()], 20)
        gap = sum(a - b for a, b in zip(expected, best, strict=True)) / 20
        assert ause(error, confidence, steps=20) == pytest.approx(gap, rel=1e-6)


def test_risk_coverage_is_the_share_of_errors_among_the_surest() -> None:
    error, confidence = _pixels(3)
    wrong = [float(e > 1) for e in error.tolist()]
    assert risk_coverage(error, confidence, threshold=1.0, steps=10).tolist() == pytest.approx(
        _naive_curve(wrong, confidence.tolist(), 10), rel=1e-9
    )


def test_auroc_equals_counting_pairs() -> None:
    for seed in range(10):
        error, confidence = _pixels(seed)
        pairs = [
            1.0 if bad < good else 0.5 if bad == good else 0.0
            for e, bad in zip(error.tolist(), confidence.tolist(), strict=True)
            if e > 2
            for f, good in zip(error.tolist(), confidence.tolist(), strict=True)
            if f <= 2
        ]
        assert auroc(error, confidence, threshold=2.0) == pytest.approx(sum(pairs) / len(pairs), rel=1e-12)


def test_calibration_error_equals_a_loop_over_bins() -> None:
    for seed in range(10):
        error, confidence = _pixels(seed)
        total = 0.0
        for low, high in pairwise(step / 10 for step in range(11)):
            inside = [
                (e, c)
                for e, c in zip(error.tolist(), confidence.tolist(), strict=True)
                if low <= c < high or (high == 1 and c == 1)
            ]
            if inside:
                right = sum(e <= 1 for e, _ in inside) / len(inside)
                total += abs(right - sum(c for _, c in inside) / len(inside)) * len(inside) / len(error)
        assert calibration_error(error, confidence, threshold=1.0) == pytest.approx(total, rel=1e-9)


def test_perfect_ranking_has_no_area_and_order_of_ties_does_not_matter() -> None:
    error, confidence = _pixels(0)
    assert ause(error, 1 / (1 + error)) == pytest.approx(0, abs=1e-12)
    shuffled = torch.randperm(len(error), generator=torch.Generator().manual_seed(1))
    assert ause(error, confidence) == pytest.approx(ause(error[shuffled], confidence[shuffled]), rel=1e-12)


def test_nothing_to_rank_gives_nan() -> None:
    nothing = torch.empty(0)
    assert math.isnan(ause(nothing, nothing))
    assert math.isnan(auroc(torch.zeros(4), torch.rand(4), threshold=1.0))
    assert math.isnan(calibration_error(nothing, nothing, threshold=1.0))
