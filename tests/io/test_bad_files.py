"""What is missing, empty, cut off, damaged, foreign or absurd gives one sentence that names the file."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stereopsis.io.arrays import read_npy
from stereopsis.io.calibration import read_calibration, read_raw_calibration
from stereopsis.io.disparity import read_disparity
from stereopsis.io.exr import write_exr
from stereopsis.io.images import read_image, write_image
from stereopsis.io.points import read_ply, write_ply
from stereopsis.io.scene import read_scene
from stereopsis.io.video import read_video_info
from stereopsis.structures import StereoPair

_IMAGE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)


def _encoded(suffix: str) -> bytes:
    return cv2.imencode(suffix, _IMAGE[..., 0] if suffix == ".pgm" else _IMAGE)[1].tobytes()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png_claiming(width: int, height: int) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    rest = _chunk(b"IDAT", zlib.compress(bytes(100))) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + rest


def _tiff_claiming(width: int, height: int) -> bytes:
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in ((256, width), (257, height)))
    return b"II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4)


def _jpeg_claiming(width: int, height: int) -> bytes:
    data = _encoded(".jpg")
    frame = data.index(b"\xff\xc0")
    return data[: frame + 5] + struct.pack(">HH", height, width) + data[frame + 9 :]


def _npy(array: np.ndarray, *, pickled: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=pickled)
    return stream.getvalue()


def _npy_claiming(shape: str) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + bytes(64)


def _npz(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return stream.getvalue()


class _Called:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('a pickle was executed')",)


def _pickled() -> bytes:
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + pickle.dumps([_Called()])


_MAP = np.ones((4, 5), "<f4").tobytes()
_PNG, _JPEG = _encoded(".png"), _encoded(".jpg")

IMAGES: dict[str, bytes] = {
    "empty.png": b"",
    "text.png": b"this is no picture, it only has the name of one\n",
    "html.jpg": b"<!DOCTYPE html><html>404</html>",
    "signature_only.png": _PNG[:8],
    "header_cut.png": _PNG[:20],
    "half.png": _PNG[: len(_PNG) // 2],
    "last_bytes_missing.png": _PNG[:-6],
    "end_missing.png": _PNG[:-12],
    "flipped.png": _PNG[:3000] + bytes([_PNG[3000] ^ 255]) + _PNG[3001:],
    "no_pixels.png": b"\x89PNG\r\n\x1a\n"
    + _chunk(b"IHDR", bytes([0, 0, 0, 1] * 2 + [8, 2, 0, 0, 0]))
    + _PNG[-12:],
    "giant.png": _png_claiming(200_000, 200_000),
    "claims_much.png": _png_claiming(10_000, 10_000),
    "zero_width.png": _png_claiming(0, 10),
    "half.jpg": _JPEG[: len(_JPEG) // 2],
    "header_cut.jpg": _JPEG[:12],
    "end_missing.jpg": _JPEG[:-2],
    "giant.jpg": _jpeg_claiming(60_000, 60_000),
    "half.tiff": _encoded(".tiff")[:300],
    "giant.tiff": _tiff_claiming(200_000, 200_000),
    "no_directory.tiff": b"II*\0\x08\0\0\0",
    "directory_beyond_memory.tiff": b"MM\0+" + bytes(4) + bytes([255] * 8),
    "half.webp": _encoded(".webp")[:500],
    "half.ppm": _encoded(".ppm")[:900],
    "half.pgm": _encoded(".pgm")[:900],
    "giant.ppm": b"P6\n200000 200000\n255\n",
    "odd_header.pgm": b"P5\nwide high\n255\n",
    "zero_maximum.pgm": b"P5\n2 2\n0\n....",
    "half.bmp": _encoded(".bmp")[:900],
    "half.npy": _npy(_IMAGE)[:900],
    "giant.npy": _npy_claiming("(200000, 200000)"),
    "cube.npy": _npy(np.zeros((2, 2, 2, 2), np.uint8)),
    "words.npy": _npy(np.array([["a", "b"]])),
    "complex.npy": _npy(np.zeros((2, 2), np.complex64)),
    "pickled.npy": _pickled(),
}

MAPS: dict[str, bytes] = {
    "empty.pfm": b"",
    "text.pfm": b"no map\n",
    "short.pfm": b"Pf\n5 4\n-1.0\n" + _MAP[:-4],
    "long.pfm": b"Pf\n5 4\n-1.0\n" + _MAP + b"more",
    "header_cut.pfm": b"Pf\n5 4",
    "scale_zero.pfm": b"Pf\n5 4\n0\n" + _MAP,
    "scale_nan.pfm": b"Pf\n5 4\nnan\n" + _MAP,
    "scale_word.pfm": b"Pf\n5 4\nlow\n" + _MAP,
    "giant.pfm": b"Pf\n200000 200000\n-1\n",
    "zero.pfm": b"Pf\n0 4\n-1\n",
    "negative.pfm": b"Pf\n-5 4\n-1\n" + _MAP,
    "half.png": _PNG[: len(_PNG) // 2],
    "colour.png": _PNG,
    "flat.npy": _npy(np.zeros(5, np.float32)),
    "none.npy": _npy(np.zeros((0, 3), np.float32)),
    "words.npy": _npy(np.array([["a", "b"]])),
    "half.npy": _npy(np.zeros((9, 9), np.float32))[:-9],
    "giant.npy": _npy_claiming("(200000, 200000)"),
    "negative_shape.npy": _npy_claiming("(-4, -4)"),
    "broken_header.npy": b"\x93NUMPY\1\0\x04\0{{{\n",
    "future.npy": b"\x93NUMPY\x09\0" + bytes(20),
    "pickled.npy": _pickled(),
    "text.npz": b"no archive",
    "half.npz": _npz(disparity=_npy(np.zeros((9, 9), np.float32)))[:300],
    "two_maps.npz": _npz(a=_npy(np.zeros((2, 2))), b=_npy(np.zeros((2, 2)))),
    "no_map.npz": _npz(),
    "pickled.npz": _npz(disparity=_pickled()),
    "mask_of_another_size.npz": _npz(disparity=_npy(np.zeros((2, 2))), valid=_npy(np.zeros((2, 3), bool))),
    "map.docx": b"what is this",
}


def _refused(read: Callable[[Path], object], path: Path) -> str:
    """The sentence with which a reader refuses a file."""
    with pytest.raises((ValueError, OSError)) as caught:
        read(path)
    sentence = str(caught.value)
    assert path.name in sentence
    assert "\n" not in sentence
    assert len(sentence) - len(str(path)) < 300
    return sentence


@pytest.mark.parametrize("name", IMAGES)
def test_bad_images(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / name).write_bytes(IMAGES[name])
    _refused(read_image, tmp_path / name)
    noise = capfd.readouterr()
    assert "WARN" not in noise.err
    assert "ERROR" not in noise.err


@pytest.mark.parametrize("name", MAPS)
def test_bad_disparity(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(MAPS[name])
    _refused(read_disparity, tmp_path / name)


@pytest.mark.parametrize("name", ["giant.png", "giant.jpg", "giant.tiff", "giant.ppm"])
def test_the_limit_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(IMAGES[name])
    assert "at most 200 megapixels" in _refused(read_image, tmp_path / name)


_READERS = (
    read_image, read_disparity, read_npy, read_calibration, read_raw_calibration, read_ply, read_video_info
)  # fmt: skip


@pytest.mark.parametrize("read", _READERS, ids=lambda read: read.__name__)
def test_missing_files_empty_files_and_folders(tmp_path: Path, read: Callable[[Path], object]) -> None:
    (tmp_path / "image_left.pfm").write_bytes(b"")
    (tmp_path / "folder.pfm").mkdir()
    with pytest.raises(FileNotFoundError, match=r"did you mean .*image_left\.pfm\?"):
        read(tmp_path / "image_lef.pfm")
    with pytest.raises(FileNotFoundError, match=r"no file .*check the name"):
        read(tmp_path / "zzz")
    with pytest.raises(FileNotFoundError, match=r"the folder .* does not exist either"):
        read(tmp_path / "none" / "a.pfm")
    assert "is empty" in _refused(read, tmp_path / "image_left.pfm")
    assert "is a folder" in _refused(read, tmp_path / "folder.pfm")


@pytest.mark.parametrize("read", [read_calibration, read_raw_calibration], ids=lambda read: read.__name__)
@pytest.mark.parametrize("name", ["picture.txt", "picture.yml", "picture.xml"])
def test_a_picture_is_no_calibration(tmp_path: Path, name: str, read: Callable[[Path], object]) -> None:
    (tmp_path / name).write_bytes(_PNG)
    assert "is not a text file" in _refused(read, tmp_path / name)


@pytest.mark.parametrize("name", ["empty.ply", "text.ply", "ascii.ply", "half.ply"])
def test_bad_point_clouds(tmp_path: Path, name: str) -> None:
    write_ply(tmp_path / "good.ply", np.zeros((9, 3), np.float32))
    contents = {
        "empty.ply": b"",
        "text.ply": b"no points",
        "ascii.ply": b"ply\nformat ascii 1.0\nelement vertex 0\nend_header\n",
        "half.ply": (tmp_path / "good.ply").read_bytes()[:-10],
    }
    (tmp_path / name).write_bytes(contents[name])
    _refused(read_ply, tmp_path / name)


def test_a_scene_of_nonsense(tmp_path: Path) -> None:
    for content in (
        '{"left": "a", "right": "b", "calibration": {"focal_px": "x", "baseline": 1}}',
        '{"left": "a"}',
    ):
        (tmp_path / "scene.json").write_text(content)
        _refused(read_scene, tmp_path / "scene.json")


def test_damaged_exr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("OpenEXR", reason="the extra exr is not installed")
    write_exr(tmp_path / "good.exr", {"Y": np.zeros((9, 9), np.float32)})
    data = (tmp_path / "good.exr").read_bytes()
    for content in (data[:4], data[:100], data[:-10], data[:4] + bytes(400)):
        (tmp_path / "bad.exr").write_bytes(content)
        _refused(read_image, tmp_path / "bad.exr")
        _refused(read_disparity, tmp_path / "bad.exr")


def test_exr_without_its_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "map.exr").write_bytes(b"\x76\x2f\x31\x01")
    monkeypatch.setitem(__import__("sys").modules, "OpenEXR", None)
    assert "pip install 'stereopsis[exr]'" in _refused(read_disparity, tmp_path / "map.exr")
    with pytest.raises(ValueError, match=r"pip install 'stereopsis\[exr\]'"):
        write_exr(tmp_path / "new.exr", {"Y": np.zeros((2, 2), np.float32)})


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff", ".webp", ".ppm", ".npy", ".npz", ".pfm"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_damage_is_refused_or_read(tmp_path: Path, suffix: str, data: st.DataObject) -> None:
    """Whatever bytes change, a reader gives an array or a sentence, never another exception."""
    whole = {
        ".npy": lambda: _npy(np.ones((5, 4), np.float32)),
        ".npz": lambda: _npz(disparity=_npy(np.ones((5, 4), np.float32))),
        ".pfm": lambda: b"Pf\n5 4\n-1.0\n" + _MAP,
    }.get(suffix, lambda: _encoded(suffix))()
    position = data.draw(st.integers(0, len(whole) - 1))
    length = data.draw(st.integers(0, 20))
    damaged = whole[:position] + data.draw(st.binary(max_size=20)) + whole[position + length :]
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(damaged)
    try:
        array = read_disparity(path)[0] if suffix in (".npy", ".npz", ".pfm") else read_image(path)
    except ValueError as error:
        assert path.name in str(error)  # noqa: PT017 - either outcome is right
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert array.size > 0


def test_a_pair_that_does_not_fit_names_both_files(tmp_path: Path) -> None:
    write_image(tmp_path / "left.png", np.zeros((4, 6), np.uint8))
    write_image(tmp_path / "right.png", np.zeros((4, 7), np.uint8))
    with pytest.raises(
        ValueError, match=r"left\.png and .*right\.png: .*same size: left is 6x4, right is 7x4"
    ):
        StereoPair.open(tmp_path / "left.png", tmp_path / "right.png")
    write_image(tmp_path / "nan.tiff", np.full((4, 6), np.nan, np.float32))
    with pytest.raises(ValueError, match=r"nan\.tiff: the right image holds NaN or infinite values"):
        StereoPair.open(tmp_path / "left.png", tmp_path / "nan.tiff")


def test_a_pixel_is_an_image(tmp_path: Path) -> None:
    write_image(tmp_path / "left.png", np.zeros((1, 1), np.uint8))
    write_image(tmp_path / "right.png", np.zeros((1, 1, 4), np.uint16))
    assert StereoPair.open(tmp_path / "left.png", tmp_path / "right.png").size == (1, 1)


def test_an_array_that_python_2_wrote_is_read_without_a_word(tmp_path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (3L,), }".ljust(117) + b"\n"
    path = tmp_path / "old.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(12))
    assert read_npy(path).tolist() == [0.0, 0.0, 0.0]
