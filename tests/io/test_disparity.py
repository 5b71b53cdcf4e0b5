"""Disparity read back: floats bit for bit, PNG within half a step; unknown stays apart from zero."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stereopsis.io.arrays import write_npy, write_npz
from stereopsis.io.disparity import read_disparity, write_disparity
from stereopsis.io.images import read_stored, write_image
from stereopsis.io.pfm import read_pfm, write_pfm

_shapes = st.tuples(st.integers(1, 8), st.integers(1, 8))
_any_float = hnp.arrays(np.float32, _shapes, elements=st.floats(width=32))
_many = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _floats(suffix: str) -> None:
    if suffix == ".exr":
        pytest.importorskip("OpenEXR", reason="the extra exr is not installed")


@_many
@given(values=_any_float)
def test_pfm_holds_every_bit(tmp_path: Path, values: np.ndarray) -> None:
    write_pfm(tmp_path / "map.pfm", values)
    np.testing.assert_array_equal(read_pfm(tmp_path / "map.pfm").view(np.uint32), values.view(np.uint32))


@pytest.mark.parametrize("suffix", [".pfm", ".npy", ".npz", ".exr"])
@_many
@given(values=_any_float)
def test_float_formats_are_bit_exact(tmp_path: Path, suffix: str, values: np.ndarray) -> None:
    _floats(suffix)
    path = tmp_path / f"map{suffix}"
    write_disparity(path, values)
    disparity, valid = read_disparity(path)
    np.testing.assert_array_equal(valid, np.isfinite(values) & (values >= 0))
    np.testing.assert_array_equal(disparity[valid].view(np.uint32), values[valid].view(np.uint32))
    assert not disparity[~valid].any()


@_many
@given(
    values=hnp.arrays(np.float32, _shapes, elements=st.floats(0.001953125, 255.9375, width=32)),
    known=hnp.arrays(np.bool_, (8, 8)),
)
def test_kitti_png_is_within_half_a_step(tmp_path: Path, values: np.ndarray, known: np.ndarray) -> None:
    known = known[: values.shape[0], : values.shape[1]]
    write_disparity(tmp_path / "map.png", values, valid=known)
    disparity, valid = read_disparity(tmp_path / "map.png", "png16/256")
    np.testing.assert_array_equal(valid, known)
    assert np.abs(disparity[valid].astype(np.float64) - values[valid]).max(initial=0) <= 1 / 512


@pytest.mark.parametrize("scale", [3, 8])
def test_scaled_png_is_within_half_a_step(tmp_path: Path, scale: int) -> None:
    values = np.random.default_rng(0).uniform(0.5, 255 / scale, (6, 7)).astype(np.float32)
    write_disparity(tmp_path / "map.png", values, encoding=f"png8*{scale}")
    assert read_stored(tmp_path / "map.png").dtype == np.uint8
    disparity, valid = read_disparity(tmp_path / "map.png", f"png8*{scale}")
    assert valid.all()
    assert np.abs(disparity - values).max() <= 0.5 / scale + 1e-6


def test_unknown_is_infinity_in_pfm_and_zero_in_png(tmp_path: Path) -> None:
    values = np.array([[1.5, -2.0, np.nan], [np.inf, 0.0, 7.25]], np.float32)
    write_disparity(tmp_path / "map.pfm", values)
    write_disparity(tmp_path / "map.png", values)
    np.testing.assert_array_equal(
        read_pfm(tmp_path / "map.pfm"), np.array([[1.5, np.inf, np.inf], [np.inf, 0, 7.25]], np.float32)
    )
    np.testing.assert_array_equal(read_stored(tmp_path / "map.png"), [[384, 0, 0], [0, 1, 1856]])


def test_npz_keeps_a_mask(tmp_path: Path) -> None:
    values, known = np.ones((2, 3), np.float32), np.array([[True, False, True], [False, True, True]])
    write_disparity(tmp_path / "map.npz", values, valid=known)
    disparity, valid = read_disparity(tmp_path / "map.npz")
    np.testing.assert_array_equal(valid, known)
    np.testing.assert_array_equal(disparity, known.astype(np.float32))


@pytest.mark.parametrize("largest", [256.0, 1000.0])
def test_too_large_for_the_png_is_refused(tmp_path: Path, largest: float) -> None:
    with pytest.raises(ValueError, match=r"map\.png: a disparity of .* px does not fit .* 255\.996"):
        write_disparity(tmp_path / "map.png", np.array([[1.0, largest]], np.float32))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scale", [b"-0.003922", b"-255", b"-1.0"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_only_the_sign_of_the_pfm_scale_counts(tmp_path: Path, scale: bytes, order: str) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    sign = scale if order == "<" else scale.removeprefix(b"-")
    body = values[::-1].astype(order + "f4").tobytes()
    (tmp_path / "map.pfm").write_bytes(b"Pf\n3 2\n" + sign + b"\n" + body)
    np.testing.assert_array_equal(read_pfm(tmp_path / "map.pfm"), values)


@pytest.mark.parametrize(
    "header",
    [b"Pf\n# made by hand\n3 2\n-1\n", b"Pf 3 2 -1\n", b"Pf\r\n3 2\r\n-1.000\r\n", b"Pf\n3\n2\n-1 # low\n"],
)
def test_pfm_headers_may_hold_comments_and_any_spaces(tmp_path: Path, header: bytes) -> None:
    values = np.arange(6, dtype="<f4").reshape(2, 3)
    (tmp_path / "map.pfm").write_bytes(header + values[::-1].tobytes())
    np.testing.assert_array_equal(read_pfm(tmp_path / "map.pfm"), values)


def test_colour_pfm_of_equal_channels_is_read_and_others_refused(tmp_path: Path) -> None:
    values = np.arange(6, dtype="<f4").reshape(2, 3)
    three = np.repeat(values[::-1, :, None], 3, axis=2)
    (tmp_path / "map.pfm").write_bytes(b"PF\n3 2\n-1\n" + three.tobytes())
    np.testing.assert_array_equal(read_pfm(tmp_path / "map.pfm"), values)
    three[0, 0, 1] += 1
    (tmp_path / "map.pfm").write_bytes(b"PF\n3 2\n-1\n" + three.tobytes())
    with pytest.raises(ValueError, match=r"map\.pfm is a colour PFM"):
        read_pfm(tmp_path / "map.pfm")


def test_an_eight_bit_png_needs_its_scale(tmp_path: Path) -> None:
    write_image(tmp_path / "map.png", np.full((2, 2), 12, np.uint8))
    with pytest.raises(ValueError, match=r"map\.png does not tell its scale"):
        read_disparity(tmp_path / "map.png")
    assert read_disparity(tmp_path / "map.png", "png8*4")[0].tolist() == [[3, 3], [3, 3]]


def test_a_gray_png_of_three_equal_channels_is_one_map(tmp_path: Path) -> None:
    write_image(tmp_path / "map.png", np.full((2, 2, 3), 12, np.uint8))
    assert read_disparity(tmp_path / "map.png", "png8*4")[0].tolist() == [[3, 3], [3, 3]]


@pytest.mark.parametrize("encoding", ["png8", "png16*256x", "png8*0", "tiff", "png16/0"])
def test_an_unknown_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    write_disparity(tmp_path / "map.png", np.ones((2, 2), np.float32))
    with pytest.raises(ValueError, match="no encoding of disparity"):
        read_disparity(tmp_path / "map.png", encoding)


def test_arrays_of_other_kinds_are_read_as_float32(tmp_path: Path) -> None:
    write_npy(tmp_path / "a.npy", np.arange(6, dtype=np.float64).reshape(1, 2, 3))
    write_npz(tmp_path / "b.npz", {"anything": np.arange(6, dtype=np.int16).reshape(2, 3)})
    for name in ("a.npy", "b.npz"):
        disparity, valid = read_disparity(tmp_path / name)
        assert disparity.dtype == np.float32
        assert valid.all()
        np.testing.assert_array_equal(disparity, np.arange(6).reshape(2, 3))
