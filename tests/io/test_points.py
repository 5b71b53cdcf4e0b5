"""Point clouds that other programs read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stereopsis.io.points import read_ply, write_ply

_GENERATOR = np.random.default_rng(0)
_POINTS = _GENERATOR.normal(size=(50, 3)).astype(np.float32)
_COLOURS = _GENERATOR.integers(0, 256, (50, 3), np.uint8)


def test_trimesh_reads_points_and_colours(tmp_path: Path) -> None:
    write_ply(tmp_path / "cloud.ply", _POINTS, colours=_COLOURS)
    cloud = trimesh.load(tmp_path / "cloud.ply")
    assert isinstance(cloud, trimesh.PointCloud)
    np.testing.assert_array_equal(np.asarray(cloud.vertices, np.float32), _POINTS)
    np.testing.assert_array_equal(cloud.colors[:, :3], _COLOURS)


def test_the_header_is_the_one_of_the_format(tmp_path: Path) -> None:
    write_ply(
        tmp_path / "cloud.ply", _POINTS[:2], colours=_COLOURS[:2], scalars={"confidence": _POINTS[:2, 0]}
    )
    header = (
        b"ply\nformat binary_little_endian 1.0\nelement vertex 2\nproperty float x\nproperty float y\n"
        b"property float z\nproperty uchar red\nproperty uchar green\nproperty uchar blue\n"
        b"property float confidence\nend_header\n"
    )
    data = (tmp_path / "cloud.ply").read_bytes()
    assert data.startswith(header)
    assert len(data) == len(header) + 2 * (3 * 4 + 3 + 4)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    points=hnp.arrays(
        np.float32,
        st.tuples(st.integers(0, 9), st.just(3)),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    ),
    coloured=st.booleans(),
    scored=st.booleans(),
)
def test_round_trip_is_exact(tmp_path: Path, points: np.ndarray, coloured: bool, scored: bool) -> None:
    colours = _COLOURS[: len(points)] if coloured else None
    scalars = {"confidence": points[:, 0]} if scored else None
    write_ply(tmp_path / "cloud.ply", points, colours=colours, scalars=scalars)
    cloud = read_ply(tmp_path / "cloud.ply")
    np.testing.assert_array_equal(cloud.points, points)
    assert (cloud.colours is None) == (colours is None)
    if colours is not None:
        np.testing.assert_array_equal(cloud.colours, colours)
    assert list(cloud.scalars) == list(scalars or {})
    if scalars:
        np.testing.assert_array_equal(cloud.scalars["confidence"], points[:, 0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_points_that_are_nowhere_are_refused(tmp_path: Path, value: float) -> None:
    points = _POINTS.copy()
    points[3, 2] = value
    with pytest.raises(ValueError, match=r"cloud\.ply: the points hold NaN or infinite"):
        write_ply(tmp_path / "cloud.ply", points)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x", "two words", "", "red"])
def test_names_that_ply_cannot_hold_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="no name of a scalar"):
        write_ply(tmp_path / "cloud.ply", _POINTS, scalars={name: _POINTS[:, 0]})
