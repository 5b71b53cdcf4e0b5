from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stereopsis.cli.main import main
from stereopsis.data import conversion
from stereopsis.data.conversion import convert_to_raw
from stereopsis.data.decoding import read_raw_view
from stereopsis.data.sources.registry import list_pairs
from stereopsis.io.images import write_image


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two frames, of a size small enough for a test."""
    monkeypatch.setattr(conversion, "RAW_SIZE", (6, 8))
    random = np.random.default_rng(0)
    for view in ("Image0", "Image1"):
        folder = tmp_path / "00001" / view
        folder.mkdir(parents=True)
        for frame in ("00000", "00001"):
            write_image(folder / f"{frame}.png", random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return tmp_path


def test_raw_files_hold_the_same_pixels_in_bgr(root: Path):
    from stereopsis.io.images import read_stored

    assert [converted.written for converted in convert_to_raw(root)] == [True] * 4
    image = root / "00001" / "Image0" / "00001.png"
    stored = read_stored(image)
    raw = image.with_suffix(".raw")
    assert np.array_equal(read_raw_view(raw, size=(6, 8)), stored)
    assert raw.read_bytes()[:3] == bytes(stored[0, 0, ::-1].tolist())


def test_a_second_run_writes_only_what_is_missing(root: Path):
    list(convert_to_raw(root))
    (root / "00001" / "Image1" / "00000.raw").write_bytes(b"cut off")
    assert [converted.written for converted in convert_to_raw(root)] == [False, False, True, False]


def test_each_frame_is_listed_once_and_as_raw(root: Path):
    list(convert_to_raw(root))
    pairs = list_pairs("unrealstereo4k", "all", root=root)
    assert [pair.left.name for pair in pairs] == ["00000.raw", "00001.raw"]
    assert [pair.right.name for pair in pairs] == ["00000.raw", "00001.raw"]


def test_images_of_another_size_are_refused(root: Path):
    write_image(root / "00001" / "Image0" / "00000.png", np.zeros((5, 8, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match="8x5"):
        list(convert_to_raw(root))


def test_the_verb_says_what_it_did_and_what_needs_no_conversion(root: Path, capsys):
    assert main(["datasets", "convert", "unrealstereo4k", "--root", str(root)]) == 0
    assert "4 images written as .raw, 0 were there" in capsys.readouterr().out
    assert main(["datasets", "convert", "kitti2015", "--root", str(root)]) == 2
    assert "needs no conversion" in capsys.readouterr().err
