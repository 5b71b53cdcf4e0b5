"""Figures of parity by hand-made predictors, and what passes."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from stereopsis.export.parity import Judged, Parity, failures, measure_parity, without_truth
from stereopsis.structures import StereoOutput, StereoPair, StereoSample


def _constant(disparity: torch.Tensor, confidence: float = 0.5):
    def predict(pair: StereoPair) -> StereoOutput:
        return StereoOutput(disparity, torch.full_like(disparity, confidence))

    return predict


def _sample(truth: float = 10.0) -> StereoSample:
    pair = StereoPair(torch.zeros(3, 4, 5), torch.zeros(3, 4, 5))
    valid = torch.ones(4, 5, dtype=torch.bool)
    valid[0] = False
    return StereoSample(pair, torch.full((4, 5), truth), valid)


def test_differences_are_over_all_pixels_and_accuracy_over_the_true_ones() -> None:
    original = torch.full((4, 5), 10.5)
    exported = original.clone()
    exported[0] += 100  # no truth here
    exported[1, 0] += 2
    found = measure_parity(
        _constant(original), _constant(exported, 0.75), [_sample(), _sample()], runtime="fake"
    )
    assert found.pairs == 2
    assert found.sizes == ("5x4",)
    assert found.largest == 100
    assert found.mean == pytest.approx((5 * 100 + 2) / 20)
    assert found.close == pytest.approx(14 / 20)
    assert found.confidence == pytest.approx(0.25)
    assert found.epe == pytest.approx((0.5, 0.5 + 2 / 15))
    assert found.bad2 == pytest.approx((0, 1 / 15))


def test_a_missing_answer_differs_infinitely() -> None:
    disparity = torch.full((4, 5), 10.0)
    broken = disparity.clone()
    broken[2, 2] = math.nan
    assert (
        measure_parity(_constant(disparity), _constant(broken), [_sample()], runtime="").largest == math.inf
    )


def test_without_truth_accuracy_is_unknown() -> None:
    same = _constant(torch.zeros(4, 5))
    found = measure_parity(same, same, without_truth([_sample().pair]), runtime="")
    assert math.isnan(found.epe_change)
    assert math.isnan(found.bad2_change)
    with pytest.raises(ValueError, match="give pairs with truth"):
        failures(found, "int8", trained=True)


_EQUAL = Parity(
    runtime="fake",
    pairs=1,
    sizes=("5x4",),
    largest=0.0,
    mean=0.0,
    close=1.0,
    confidence=0.0,
    epe=(1.0, 1.0),
    bad2=(0.1, 0.1),
)


@pytest.mark.parametrize(
    ("precision", "change", "said"),
    [
        ("fp32", {"close": 0.9991}, None),
        ("fp32", {"close": 0.9989}, "99.89 % of pixels"),
        ("fp32", {"epe": (1.0, 9.0)}, None),
        ("bf16", {"epe": (1.0, 1.049)}, None),
        ("bf16", {"epe": (1.0, 1.051)}, "EPE grows by 0.051 px"),
        ("int8", {"epe": (1.0, 1.09), "bad2": (0.1, 0.1049)}, None),
        ("int8", {"epe": (1.0, 1.11)}, "EPE grows by 0.110 px"),
        ("int8", {"bad2": (0.1, 0.1051)}, "bad-2 grows by 0.51 points"),
        ("int8", {"epe": (1.0, 0.5), "bad2": (0.1, 0.05)}, None),
    ],
)
def test_tolerances(precision: Judged, change: dict[str, object], said: str | None) -> None:
    found = failures(dataclasses.replace(_EQUAL, **change), precision, trained=True)
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


def test_random_weights_are_judged_in_fp32_alone() -> None:
    assert failures(_EQUAL, "fp32", trained=False) == []
    for precision in ("fp16", "bf16", "int8"):
        with pytest.raises(ValueError, match="random weights have none"):
            failures(_EQUAL, precision, trained=False)
