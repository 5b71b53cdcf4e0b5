"""What the filters reject: by value at points that define them, and by property on any pair."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stereopsis.labelling.filters import Filters, Reason, contradicted, saturated, shares, sky
from stereopsis.structures import StereoOutput, StereoPair

OFF = Filters(confidence=None, left_right=None, photometric=None, sky=False, saturated=False)


def _case(seed: int) -> tuple[StereoPair, StereoOutput]:
    """Any pair with any answer, unknown pixels and impossible values among them."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.rand(3, 12, 20, generator=generator) for _ in range(2))
    left[:, :6] = 1.0
    disparity, other = (torch.rand(12, 20, generator=generator) * 15 - 1 for _ in range(2))
    disparity[3, 4], disparity[5, 6], other[2, :] = math.inf, math.nan, math.inf
    confidence = torch.rand(12, 20, generator=generator)
    confidence[7, 7] = math.nan
    return StereoPair(left, right), StereoOutput(disparity, confidence, right_disparity=other)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), low=st.floats(0, 1), high=st.floats(0, 1))
def test_stricter_filters_keep_no_more(seed: int, low: float, high: float) -> None:
    low, high = sorted((low, high))
    pair, output = _case(seed)
    lenient = dataclasses.replace(OFF, confidence=low, left_right=1 + high, photometric=0.05 + high)
    strict = Filters(confidence=high, left_right=1 + low, photometric=0.05 + low, min_disparity=2.0)
    kept, still = (filters.reasons(pair, output) == 0 for filters in (lenient, strict))
    assert not bool((still & ~kept).any())


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31))
def test_a_mask_is_the_union_of_its_filters_and_what_is_kept_is_fit_to_train_on(seed: int) -> None:
    pair, output = _case(seed)
    everything = Filters(min_disparity=1.0, max_disparity=9.0)
    alone = [
        dataclasses.replace(OFF, **{name: getattr(everything, name)})
        for name in ("confidence", "left_right", "photometric", "sky", "saturated")
    ]
    alone.append(dataclasses.replace(OFF, min_disparity=1.0, max_disparity=9.0))
    union = torch.zeros(12, 20, dtype=torch.uint8)
    for filters in alone:
        union |= filters.reasons(pair, output)
    reasons = everything.reasons(pair, output)
    assert torch.equal(reasons, union)
    kept = reasons == 0
    assert bool(output.disparity[kept].isfinite().all())
    assert bool(((output.disparity[kept] >= 1) & (output.disparity[kept] < 9)).all())
    assert output.confidence is not None
    assert bool((output.confidence[kept] >= 0.5).all())
    told = shares(reasons)
    assert max(told.values(), default=0.0) <= 1 - float(kept.float().mean()) + 1e-5


def test_each_reason_has_its_bit() -> None:
    pair = StereoPair(torch.full((3, 4, 8), 0.5), torch.full((3, 4, 8), 0.5))
    disparity = torch.full((4, 8), 2.0)
    disparity[0, 7], disparity[1, 7] = math.inf, 30.0
    confidence = torch.ones(4, 8)
    confidence[2, 7] = 0.2
    right = torch.full((4, 8), 2.0)
    right[3, 4] = 9.0
    reasons = Filters(max_disparity=20.0, sky=False).reasons(
        pair, StereoOutput(disparity, confidence, right_disparity=right)
    )
    assert Reason.UNKNOWN in Reason(int(reasons[0, 7]))
    assert Reason.RANGE in Reason(int(reasons[1, 7]))
    assert int(reasons[2, 7]) == Reason.CONFIDENCE
    assert int(reasons[3, 6]) == Reason.LEFT_RIGHT
    assert int(reasons[3, 7]) == 0
    outside = Reason(int(reasons[2, 1]))  # its match lies beside the right image
    assert outside == Reason.LEFT_RIGHT | Reason.PHOTOMETRIC
    assert shares(reasons)["range"] == pytest.approx(1 / 32)


def test_the_other_image_is_compared_whatever_its_exposure() -> None:
    generator = torch.Generator().manual_seed(0)
    texture = torch.rand(1, 40, 72, generator=generator).expand(3, -1, -1) * 0.5
    left, right = texture[..., :64], texture[..., 8:] * 1.0 + 0.3
    filters = dataclasses.replace(OFF, photometric=0.1)
    answers = [StereoOutput(torch.full((40, 64), value)) for value in (8.0, 3.0)]
    right_one, wrong_one = (filters.reasons(StereoPair(left, right), a)[8:-8, 16:-8] for a in answers)
    assert not bool(right_one.any())
    assert float((wrong_one > 0).float().mean()) > 0.9


def test_sky_is_plain_bright_and_reaches_the_top() -> None:
    image = torch.full((3, 60, 80), 0.5)
    image[:, ::2, ::2] = 0.2
    image[:, :20, :40] = torch.tensor([0.5, 0.6, 0.9])[:, None, None]  # blue, at the top
    image[:, 40:55, 50:75] = 0.95  # as plain and bright, on the ground
    found = sky(image)
    assert bool(found[3:15, 3:35].all())
    assert not bool(found[25:].any())


def test_saturated_areas_count_in_either_image_and_single_pixels_do_not() -> None:
    left, right = torch.full((3, 20, 40), 0.5), torch.full((3, 20, 40), 0.5)
    left[:, 5:9, 20:24] = 1.0
    left[:, 15, 30] = 1.0
    right[:, 12:16, 4:8] = 0.0
    found = saturated(StereoPair(left, right), torch.full((20, 40), 3.0))
    expected = torch.zeros(20, 40, dtype=torch.bool)
    expected[5:9, 20:24] = True
    expected[12:16, 7:11] = True
    assert torch.equal(found, expected)


def test_what_a_teacher_lacks_is_said() -> None:
    pair, output = _case(0)
    bare = StereoOutput(output.disparity)
    with pytest.raises(ValueError, match="gives no confidence"):
        Filters().reasons(pair, bare)
    with pytest.raises(ValueError, match="no right view"):
        Filters(confidence=None).reasons(pair, bare)
    with pytest.raises(ValueError, match="no right view"):
        contradicted(bare, 1.0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"confidence": 1.5}, "between 0 and 1, it is 1.5"),
        ({"left_right": 0.0}, "left-right limit must be positive"),
        ({"photometric": -1.0}, "photometric limit must be positive"),
        ({"min_disparity": 5.0, "max_disparity": 5.0}, "above the smallest, 5"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Filters(**settings)
