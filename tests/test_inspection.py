"""Each fault that a pair can have is found on a made pair, and none on the pair as it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from fakes.planes import Plane, planes_sample
from stereopsis.inspection import field_of_view, inspect, row_fit
from stereopsis.io.pairs import find_pairs
from stereopsis.structures import Calibration, StereoPair
from stereopsis.visual import matches_picture

PAIR = planes_sample().pair
CALIBRATION = Calibration(focal=300.0, baseline=0.12, cx=160.0, cy=120.0, size=(240, 320))


def turned(image: Tensor, degrees: float, *, down: float = 0.0) -> Tensor:
    """The image rolled around its middle and moved down, mirrored at its borders."""
    height, width = image.shape[-2:]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    matrix[1, 2] += down
    stored = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    moved = cv2.warpAffine(stored, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)
    return torch.from_numpy(moved).permute(2, 0, 1)


def blurred(image: Tensor) -> Tensor:
    stored = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    return torch.from_numpy(cv2.GaussianBlur(stored, (0, 0), 1.5)).permute(2, 0, 1)


def test_a_sound_pair_has_no_finding_and_its_range_and_depth_are_told() -> None:
    found = inspect(PAIR, CALIBRATION)
    assert found.findings == ()
    assert found.sound
    assert len(found.left) > 0.98 * found.matched > 1000
    assert found.rows is not None
    assert found.rows.median < 0.1
    low, middle, high = found.disparities or (0, 0, 0)
    assert 4 <= low < 5 < middle < 20 < 40 < high < 44
    assert found.depths == pytest.approx([36 / high, 36 / middle, 36 / low])
    assert found.field_of_view == pytest.approx(2 * np.degrees(np.arctan(160 / 300)), abs=0.1)
    assert found.brightness == pytest.approx(1, abs=0.02)
    assert found.sharpness == pytest.approx(1, abs=0.02)


FAULTS: dict[str, tuple[Callable[[], StereoPair], str, str]] = {
    "exchanged": (lambda: StereoPair(PAIR.right, PAIR.left), "look exchanged", "exchange them"),
    "both upside down": (
        lambda: StereoPair(PAIR.left.flip(1, 2), PAIR.right.flip(1, 2)),
        "look exchanged",
        "turn both if upside down",
    ),
    "one upside down": (
        lambda: StereoPair(PAIR.left, PAIR.right.flip(1, 2)), "mirrored or upside down", "turn it",
    ),
    "rolled": (lambda: StereoPair(PAIR.left, turned(PAIR.right, 1)), "rows differ by 1.", "rectify"),
    "higher": (
        lambda: StereoPair(PAIR.left, turned(PAIR.right, 0, down=7)), "rows differ by 7.0", "rectify",
    ),
    "one camera twice": (
        lambda: StereoPair(PAIR.left, (PAIR.left + 0.02 * torch.rand(PAIR.left.shape)).clamp(0, 1)),
        "no feature has moved",
        "two cameras",
    ),
    "converging": (
        lambda: StereoPair(PAIR.left[..., 10:].clone(), PAIR.right[..., :-10].clone()),
        "negative, down to -6 px",
        "--min-disparity -10",
    ),
    "another scene": (
        lambda: StereoPair(PAIR.left, planes_sample((Plane(9.0, seed=77),)).pair.right),
        "matched features agree",
        "different scenes",
    ),
    "no texture": (
        lambda: StereoPair(torch.full((3, 60, 80), 0.5), torch.full((3, 60, 80), 0.5)),
        "only 0 of 0",
        "hardly any texture",
    ),
    "a single pixel": (
        lambda: StereoPair(torch.rand(3, 1, 1), torch.rand(3, 1, 1)), "only 0 of 0", "hardly any texture",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_named_with_what_to_do(case: str) -> None:
    pair, told, advice = FAULTS[case]
    found = inspect(pair())
    faults = [finding for finding in found.findings if finding.fault]
    assert not found.sound
    assert len(faults) == 1, faults
    assert told in faults[0].found
    assert advice in faults[0].advice


HINTS: dict[str, tuple[Callable[[], StereoPair], str]] = {
    "darker": (lambda: StereoPair(PAIR.left, PAIR.right * 0.4), "the left view is 2.5 times as bright"),
    "out of focus": (
        lambda: StereoPair(PAIR.left, blurred(PAIR.right)),
        "the left view is 2.3 times as sharp",
    ),
    "burnt out": (
        lambda: StereoPair((PAIR.left * 2.2).clamp(0, 1), (PAIR.right * 2.2).clamp(0, 1)),
        "of the left view is burnt out",
    ),
    "far apart": (
        lambda: planes_sample((Plane(200.0, seed=3),), size=(120, 640)).pair,
        "disparities reach 200 px, and most predictors search 192: give --max-disparity 256",
    ),
}


@pytest.mark.parametrize("case", HINTS)
def test_a_hint_is_no_fault(case: str) -> None:
    pair, told = HINTS[case]
    found = inspect(pair())
    assert found.sound
    assert any(told in str(finding) for finding in found.findings), found.findings


WRONG: dict[str, tuple[dict, str]] = {
    "millimetres of baseline": ({"baseline": 120.0}, "120 m apart: is it in millimetres?"),
    "millimetres of focal length": ({"focal": 4.3}, "give it in pixels"),
    "another size": ({"size": (480, 640)}, "for images of 640x480, these are 320x240"),
    "a principal point elsewhere": ({"cx": 640.0, "size": None}, "lies outside the image"),
    "another offset": ({"doffs": -12.0}, "lie beyond infinity"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_calibration_that_cannot_be_theirs_is_a_fault(case: str) -> None:
    change, told = WRONG[case]
    found = inspect(PAIR, dataclasses.replace(CALIBRATION, **change))
    assert [finding.fault for finding in found.findings] == [True]
    assert told in str(found.findings[0])


def test_an_offset_of_the_calibration_explains_negative_disparities_of_no_depth() -> None:
    pair = StereoPair(PAIR.left[..., 10:].clone(), PAIR.right[..., :-10].clone())
    shifted = dataclasses.replace(CALIBRATION, cx=150.0, doffs=10.0, size=(240, 310))
    (finding,) = inspect(pair, shifted).findings
    assert "--min-disparity -10" in finding.advice


def test_rows_are_fitted_as_a_plane_in_spite_of_wrong_matches() -> None:
    generator = np.random.default_rng(0)
    left = generator.uniform(0, 1, (400, 2)) * [639, 479]
    difference = 12 + 5 * (left[:, 0] / 639 - 0.5) - 3 * (left[:, 1] / 479 - 0.5)
    right = left - np.stack([np.full(400, 20.0), difference], axis=1)
    right[:120] = generator.uniform(0, 480, (120, 2))
    rows, agreeing = row_fit(left, right, (480, 640))
    assert rows is not None
    assert (rows.shift, rows.tilt, rows.stretch) == pytest.approx((12, 5, -3), abs=0.1)
    assert agreeing[120:].all()
    assert agreeing[:120].sum() < 12
    assert row_fit(left[:10], right[:10], (480, 640))[0] is None


def test_the_field_of_view_counts_both_sides_of_the_principal_point() -> None:
    assert field_of_view(Calibration(focal=50.0, baseline=1.0, cx=49.5), 100) == pytest.approx(90)
    assert field_of_view(Calibration(focal=100.0, baseline=1.0, cx=-0.5), 100) == pytest.approx(45)


def test_lines_of_the_picture_are_green_where_rows_agree_and_red_where_not() -> None:
    gray = StereoPair(torch.full((3, 40, 60), 0.5), torch.full((3, 40, 60), 0.5))
    level, tilted = np.array([[30.0, 10.0]]), np.array([[20.0, 15.0]])
    for right, colour in ((level, (0, 200, 0)), (tilted, (230, 0, 0))):
        picture = matches_picture(gray, level, right)
        assert picture.shape == (40, 124, 3)
        assert np.abs(picture.astype(int) - colour).max(-1).min() < 20  # antialiased
    assert matches_picture(gray, level[:0], level[:0]).shape == (40, 124, 3)
    assert matches_picture(gray, level, level, widest=30).shape == (20, 64, 3)


def test_open_scenes_are_sound_but_for_those_whose_rows_the_truth_moves_too(shared_data: Path) -> None:
    """NTU's pair matches its own truth best with the right view half a pixel to one higher."""
    names = {"middlebury2001_venus": True, "middlebury2003_teddy": True, "synthetic_ntu_05": False}
    for paths in find_pairs(shared_data / "real"):
        if paths.name in names:
            assert inspect(StereoPair.open(paths.left, paths.right)).sound == names[paths.name]
