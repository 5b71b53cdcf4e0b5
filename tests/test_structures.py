"""The types that everything speaks: geometry stays true when images change, images come in any kind."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from records import records_equal
from stereopsis.structures import (
    Calibration,
    IterativeOutput,
    RawCalibration,
    SceneInfo,
    StereoOutput,
    StereoPair,
    StereoSample,
    VolumeOutput,
    luma,
)

_CALIBRATION = Calibration(focal=100.0, baseline=0.2, cx=31.5, cy=20.0, doffs=3.0, size=(48, 64))


def _project(calibration: Calibration, point: tuple[float, float, float]) -> tuple[float, float, float]:
    """Column and row in the left image, and column in the right one, of a point in metres."""
    x, y, z = point
    column = calibration.focal * x / z + calibration.cx
    row = (calibration.focal_y or calibration.focal) * y / z + calibration.cy
    right = calibration.focal * (x - calibration.baseline) / z + calibration.cx + calibration.doffs
    return column, row, right


_points = st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(0.5, 50))


@given(point=_points)
def test_disparity_of_a_projected_point_gives_its_depth(point: tuple[float, float, float]) -> None:
    column, _, right = _project(_CALIBRATION, point)
    disparity = np.array([column - right])
    assert _CALIBRATION.depth(disparity)[0] == pytest.approx(point[2], rel=1e-9)
    assert _CALIBRATION.disparity(np.array([point[2]]))[0] == pytest.approx(disparity[0], abs=1e-9)


@given(point=_points, sx=st.floats(0.1, 4), sy=st.floats(0.1, 4))
def test_scaled_keeps_edges_on_edges(point: tuple[float, float, float], sx: float, sy: float) -> None:
    scaled = _CALIBRATION.scaled(sx, sy)
    column, row, right = _project(_CALIBRATION, point)
    expected = ((column + 0.5) * sx - 0.5, (row + 0.5) * sy - 0.5, (right + 0.5) * sx - 0.5)
    assert _project(scaled, point) == pytest.approx(expected, abs=1e-6)
    assert scaled.size == (max(1, round(48 * sy)), max(1, round(64 * sx)))


@given(point=_points)
def test_cropped_and_padded_move_both_images(point: tuple[float, float, float]) -> None:
    column, row, right = _project(_CALIBRATION, point)
    cropped = _CALIBRATION.cropped(5, 7, 30, 40)
    assert _project(cropped, point) == pytest.approx((column - 7, row - 5, right - 7), abs=1e-9)
    assert cropped.size == (30, 40)
    padded = _CALIBRATION.padded(5, 7, 1, 2)
    assert _project(padded, point) == pytest.approx((column + 7, row + 5, right + 7), abs=1e-9)
    assert padded.size == (54, 73)


def test_depth_is_infinite_where_the_sum_is_not_positive() -> None:
    disparity = torch.tensor([[-4.0, -3.0, 1.0]])
    depth = _CALIBRATION.depth(disparity)
    assert depth.tolist() == [[math.inf, math.inf, 5.0]]
    np.testing.assert_array_equal(_CALIBRATION.depth(disparity.numpy()), depth.numpy())


def test_depth_uncertainty_is_the_slope_of_depth() -> None:
    disparity, sigma = np.array([7.0, 20.0]), np.array([1e-4, 1e-4])
    slope = _CALIBRATION.depth(disparity - sigma) - _CALIBRATION.depth(disparity)
    np.testing.assert_allclose(_CALIBRATION.depth_uncertainty(disparity, sigma), slope, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("focal", 0.0),
        ("focal", -1.0),
        ("focal", math.nan),
        ("baseline", 0.0),
        ("baseline", math.inf),
        ("cx", math.nan),
        ("doffs", math.inf),
        ("focal_y", -2.0),
    ],
)
def test_a_calibration_of_nonsense_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"calibration: {name} must be"):
        dataclasses.replace(_CALIBRATION, **{name: value})


_EYE = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
_RAW = RawCalibration(
    left_matrix=((9.0, 0.0, 3.0), (0.0, 9.0, 2.0), (0.0, 0.0, 1.0)),
    right_matrix=((9.0, 0.0, 3.0), (0.0, 9.0, 2.0), (0.0, 0.0, 1.0)),
    left_distortion=(),
    right_distortion=(0.1,),
    rotation=_EYE,
    translation=(-0.1, 0.0, 0.0),
)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "left_matrix",
            ((0.0, 0.0, 3.0), (0.0, 9.0, 2.0), (0.0, 0.0, 1.0)),
            "left_matrix needs positive focal",
        ),
        ("right_matrix", ((9.0, 0.0, math.nan), (0.0, 9.0, 2.0), (0.0, 0.0, 1.0)), "right_matrix"),
        ("translation", (0.0, 0.0, 0.0), "baseline is zero"),
        ("translation", (math.nan, 0.0, 0.0), "must be finite"),
        ("left_distortion", (math.inf,), "must be finite"),
        ("rotation", ((2.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), "not a rotation matrix"),
    ],
)
def test_raw_cameras_of_nonsense_are_refused(name: str, value: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(_RAW, **{name: value})


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[51, 255]], np.uint8), [[[0.2, 1.0]]] * 3),
        (np.array([[[13107], [65535]]], np.uint16), [[[0.2, 1.0]]] * 3),
        (np.array([[13107, 65535]], ">u2"), [[[0.2, 1.0]]] * 3),
        (np.array([[0.25, 0.5]], np.float64), [[[0.25, 0.5]]] * 3),
        (np.array([[[0, 51, 255]]], np.uint8), [[[0.0]], [[0.2]], [[1.0]]]),
        (np.array([[[0, 51, 255, 7]]], np.uint8), [[[0.0]], [[0.2]], [[1.0]]]),
        (torch.tensor([[[0.25]], [[0.5]], [[0.75]]]), [[[0.25]], [[0.5]], [[0.75]]]),
        (torch.tensor([[51, 255]], dtype=torch.uint8), [[[0.2, 1.0]]] * 3),
        (np.zeros((4, 6, 3), np.uint8)[:, ::-1][:1, :1], [[[0.0]]] * 3),
    ],
)
def test_images_of_any_kind_become_rgb_in_the_unit_range(array, expected) -> None:
    pair = StereoPair.from_arrays(array, array)
    assert pair.left.dtype == torch.float32
    torch.testing.assert_close(pair.left, torch.tensor(expected))
    assert records_equal(pair, StereoPair(pair.left, pair.right))


def test_a_pair_does_not_share_the_callers_memory() -> None:
    image = np.zeros((2, 2, 3), np.float32)
    pair = StereoPair.from_arrays(image, image)
    image += 1
    assert not pair.left.any()


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((2, 2, 2), np.uint8), "gray, RGB or RGBA"),
        (np.zeros(5, np.uint8), "gray, RGB or RGBA"),
        (np.zeros((0, 5), np.uint8), "is empty"),
        (np.zeros((2, 2), np.int32), "uint8, uint16 or float"),
        (np.array([[np.nan]], np.float32), "NaN or infinite"),
        (np.array([[0, 255]], np.float32), r"ranges from 0 to 255: rescale floats to \[0, 1\]"),
        (np.array([[-1, 1]], np.float32), "ranges from -1 to 1"),
    ],
)
def test_what_is_no_image_is_refused(array: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=f"the left image .*{said}"):
        StereoPair.from_arrays(array, array)


def test_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="left is 6x4, right is 7x4"):
        StereoPair.from_arrays(np.zeros((4, 6), np.uint8), np.zeros((4, 7), np.uint8))


def _sample(seed: int, *, name: str = "a") -> StereoSample:
    generator = torch.Generator().manual_seed(seed)
    pair = StereoPair(*(torch.rand(3, 4, 6, generator=generator) for _ in range(2)))
    disparity = torch.rand(4, 6, generator=generator)
    return StereoSample(pair, disparity, disparity > 0.5, info=(SceneInfo(name=name),))


def test_samples_stack_and_keep_their_names() -> None:
    batch = StereoSample.stack([_sample(0, name="a"), _sample(1, name="b")])
    assert batch.pair.left.shape == (2, 3, 4, 6)
    assert batch.valid.shape == (2, 4, 6)
    assert [info.name for info in batch.info] == ["a", "b"]
    assert torch.equal(batch.disparity[1], _sample(1).disparity)


def test_samples_of_different_kinds_do_not_stack() -> None:
    with_right = dataclasses.replace(_sample(0), disparity_right=torch.zeros(4, 6))
    with pytest.raises(ValueError, match="missing in some"):
        StereoSample.stack([_sample(0), with_right])


def test_a_dtype_moves_floating_tensors_only() -> None:
    moved = _sample(0).to(torch.float64)
    assert moved.pair.left.dtype == moved.disparity.dtype == torch.float64
    assert moved.valid.dtype == torch.bool
    assert _sample(0).to("meta").pair.left.device.type == "meta"


def test_outputs_are_cropped_where_they_are_full_size() -> None:
    full, coarse = torch.rand(1, 8, 8), torch.rand(1, 4, 4)
    output = IterativeOutput(full, confidence=full, iterates=(full,), initial=full).cropped(1, 2, 3, 4)
    assert {tuple(t.shape) for t in (output.disparity, *output.iterates)} == {(1, 3, 4)}
    assert torch.equal(output.disparity, full[:, 1:4, 2:6])
    volume = VolumeOutput(full, stages=(coarse,)).cropped(0, 0, 2, 2)
    assert volume.stages[0].shape == (1, 4, 4)


def test_records_are_equal_by_their_tensors() -> None:
    assert records_equal(_sample(0), _sample(0))
    assert not records_equal(_sample(0), _sample(1))
    assert not records_equal(
        StereoOutput(torch.zeros(2, 2)), StereoOutput(torch.zeros(2, 2), torch.zeros(2, 2))
    )


def test_luma_weighs_the_colours_of_itu_r_601() -> None:
    colours = torch.eye(3)[..., None, None]
    torch.testing.assert_close(luma(colours).flatten(), torch.tensor([0.299, 0.587, 0.114]))
