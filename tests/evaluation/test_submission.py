"""Archives as the benchmarks want them: written, read back by value, and every rule broken once."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from fakes.predictors import Offset
from fakes.tiny import tiny, write_image
from stereopsis.data.files import PairFiles
from stereopsis.evaluation.submission import (
    Benchmark,
    benchmark,
    check_submission,
    list_benchmarks,
    submission_pairs,
    write_submission,
)

Pairs = list[tuple[str, PairFiles]]


def _small(name: str) -> Benchmark:
    """The benchmark with one pair per split."""
    wanted = benchmark(name)
    return dataclasses.replace(wanted, splits=tuple((split, 1) for split, _ in wanted.splits))


def _write_pairs(root: Path, name: str) -> Pairs:
    scene = tiny(0)
    places = {
        "kitti2012": [("testing/colored_0/000000_10.png", "testing/colored_1/000000_10.png")],
        "kitti2015": [("testing/image_2/000000_10.png", "testing/image_3/000000_10.png")],
        "middlebury-v3-h": [
            ("trainingH/Adirondack/im0.png", "trainingH/Adirondack/im1.png"),
            ("testH/Australia/im0.png", "testH/Australia/im1.png"),
        ],
        "eth3d": [
            ("two_view_training/forest_1s/im0.png", "two_view_training/forest_1s/im1.png"),
            ("two_view_testing/lakeside_1l/im0.png", "two_view_testing/lakeside_1l/im1.png"),
        ],
    }
    for left, right in places[name]:
        write_image(root / left, scene.left)
        write_image(root / right, scene.right)
    return submission_pairs(_small(name), root)


_MEMBERS = {
    "kitti2012": ["000000_10.png"],
    "kitti2015": ["disp_0/000000_10.png"],
    "middlebury-v3-h": [
        "testH/Australia/disp0ours.pfm",
        "testH/Australia/timeours.txt",
        "trainingH/Adirondack/disp0ours.pfm",
        "trainingH/Adirondack/timeours.txt",
    ],
    "eth3d": [
        "low_res_two_view/forest_1s.pfm",
        "low_res_two_view/forest_1s.txt",
        "low_res_two_view/lakeside_1l.pfm",
        "low_res_two_view/lakeside_1l.txt",
    ],
}


@pytest.mark.parametrize("name", _MEMBERS)
def test_archive_has_what_the_benchmark_asks_for(name: str, tmp_path: Path) -> None:
    pairs, path = _write_pairs(tmp_path, name), tmp_path / "ours.zip"
    write_submission(path, Offset(12.5), _small(name), pairs, method="ours")
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == _MEMBERS[name]
        for member in archive.namelist():
            content = archive.read(member)
            if member.endswith(".png"):
                stored = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
                assert stored.dtype == np.uint16
                assert stored.shape == (12, 16)
                assert (stored == 12.5 * 256).all()
            elif member.endswith(".pfm"):
                assert content.startswith(b"Pf\n16 12\n-1")
                assert (np.frombuffer(content[-4 * 192 :], "<f4") == 12.5).all()
            else:
                text = content.decode()
                seconds = text.removeprefix("runtime ") if name == "eth3d" else text
                assert text.startswith("runtime ") == (name == "eth3d")
                assert float(seconds) > 0
    assert check_submission(path, _small(name), pairs, method="ours") == []


def _repacked(path: Path, change: dict[str, bytes | None]) -> None:
    with zipfile.ZipFile(path) as archive:
        members: dict[str, bytes | None] = {name: archive.read(name) for name in archive.namelist()}
    members |= change
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            if content is not None:
                archive.writestr(name, content)


def _pfm(values: np.ndarray) -> bytes:
    return f"Pf\n{values.shape[1]} {values.shape[0]}\n-1\n".encode() + values.astype("<f4").tobytes()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"low_res_two_view/forest_1s.pfm": None}, "forest_1s.pfm is missing"),
        ({"extra.txt": b"hello"}, "extra.txt is not asked for"),
        ({"low_res_two_view/forest_1s.pfm": b"no map"}, "cannot be read"),
        ({"low_res_two_view/forest_1s.pfm": _pfm(np.ones((4, 5)))}, "(5, 4), its image (16, 12)"),
        ({"low_res_two_view/forest_1s.pfm": _pfm(np.full((12, 16), np.nan))}, "holds NaN"),
        ({"low_res_two_view/forest_1s.pfm": _pfm(np.full((12, 16), -1.0))}, "negative"),
        ({"low_res_two_view/forest_1s.pfm": _pfm(np.full((12, 16), np.inf))}, "no disparity at all"),
        ({"low_res_two_view/forest_1s.txt": b"0.5"}, "must read 'runtime <seconds>'"),
        ({"low_res_two_view/forest_1s.txt": b"runtime -1"}, "gives -1.0 seconds"),
    ],
)
def test_every_broken_rule_is_found(change: dict[str, bytes | None], fault: str, tmp_path: Path) -> None:
    pairs, path = _write_pairs(tmp_path, "eth3d"), tmp_path / "ours.zip"
    write_submission(path, Offset(12.5), _small("eth3d"), pairs, method="ours")
    _repacked(path, change)
    faults = check_submission(path, _small("eth3d"), pairs, method="ours")
    assert any(fault in found for found in faults), faults


def test_eight_bits_are_refused_for_kitti(tmp_path: Path) -> None:
    pairs, path = _write_pairs(tmp_path, "kitti2015"), tmp_path / "ours.zip"
    write_submission(path, Offset(12.5), _small("kitti2015"), pairs, method="ours")
    _, encoded = cv2.imencode(".png", np.ones((12, 16), np.uint8))
    _repacked(path, {"disp_0/000000_10.png": encoded.tobytes()})
    faults = check_submission(path, _small("kitti2015"), pairs, method="ours")
    assert faults == ["disp_0/000000_10.png is uint8: 16 bits in one channel are asked for"]


def test_large_disparities_are_cut_for_kitti(tmp_path: Path) -> None:
    pairs, path = _write_pairs(tmp_path, "kitti2015"), tmp_path / "ours.zip"
    write_submission(path, Offset(300.0), _small("kitti2015"), pairs, method="ours")
    with zipfile.ZipFile(path) as archive:
        stored = cv2.imdecode(
            np.frombuffer(archive.read("disp_0/000000_10.png"), np.uint8), cv2.IMREAD_UNCHANGED
        )
    assert (stored == 65535).all()


def test_incomplete_data_and_odd_names_are_refused(tmp_path: Path) -> None:
    pairs = _write_pairs(tmp_path, "kitti2015")
    with pytest.raises(ValueError, match="wants 200 pairs"):
        submission_pairs(benchmark("kitti2015"), tmp_path)
    with pytest.raises(ValueError, match="letters and digits"):
        write_submission(tmp_path / "a.zip", Offset(1.0), _small("kitti2015"), pairs, method="a/b")
    pairs[0][1].left.unlink()
    with pytest.raises(ValueError, match="000000_10 cannot be predicted"):
        write_submission(tmp_path / "a.zip", Offset(1.0), _small("kitti2015"), pairs, method="a")
    assert not (tmp_path / "a.zip").exists()


def test_no_archive_at_all_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"no zip")
    (fault,) = check_submission(tmp_path / "a.zip", benchmark("eth3d"), [], method="a")
    assert "no whole zip" in fault


def test_official_counts() -> None:
    counts = {name: [count for _, count in benchmark(name).splits] for name in list_benchmarks()}
    assert counts["kitti2012"] == [195]
    assert counts["kitti2015"] == [200]
    assert counts["middlebury-v3-f"] == [15, 15]
    assert counts["eth3d"] == [27, 20]
