"""Images read back as they were written, in RGB(A) order and in the type that the file stores."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stereopsis.io.images import read_image, read_stored, write_image
from stereopsis.structures import StereoPair

_LOSSLESS = [
    (suffix, kind, channels)
    for suffix, kinds, counts in (
        (".png", (np.uint8, np.uint16), (1, 3, 4)),
        (".tiff", (np.uint8, np.uint16, np.float32), (1, 3, 4)),
        (".webp", (np.uint8,), (3, 4)),
        (".bmp", (np.uint8,), (1, 3)),
        (".ppm", (np.uint8, np.uint16), (3,)),
        (".pgm", (np.uint8, np.uint16), (1,)),
        (".npy", (np.uint8, np.uint16, np.float32), (1, 3, 4)),
    )
    for kind in kinds
    for channels in counts
]


def _random(kind: type, channels: int, *, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    shape = (9, 7) if channels == 1 else (9, 7, channels)
    if kind is np.float32:
        return generator.normal(size=shape).astype(np.float32)
    image = generator.integers(0, np.iinfo(kind).max, shape, kind, endpoint=True)
    if channels == 4:
        image[..., 3] |= 1  # WebP may drop the colour of pixels that cannot be seen
    return image


@pytest.mark.parametrize(("suffix", "kind", "channels"), _LOSSLESS)
def test_round_trip_is_exact(tmp_path: Path, suffix: str, kind: type, channels: int) -> None:
    image = _random(kind, channels)
    write_image(tmp_path / f"image{suffix}", image)
    read = read_image(tmp_path / f"image{suffix}")
    assert read.dtype == image.dtype
    np.testing.assert_array_equal(read, image)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_exr_round_trip_is_exact(tmp_path: Path, channels: int) -> None:
    pytest.importorskip("OpenEXR", reason="the extra exr is not installed")
    image = _random(np.float32, channels)
    write_image(tmp_path / "image.exr", image)
    np.testing.assert_array_equal(read_image(tmp_path / "image.exr"), image)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    image=hnp.arrays(
        st.sampled_from([np.uint8, np.uint16]),
        st.tuples(st.integers(1, 12), st.integers(1, 12), st.sampled_from([3, 4])),
    )
)
def test_png_holds_any_image(tmp_path: Path, image: np.ndarray) -> None:
    write_image(tmp_path / "any.png", image)
    np.testing.assert_array_equal(read_image(tmp_path / "any.png"), image)


def test_jpeg_keeps_colours_in_their_channels(tmp_path: Path) -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    image[..., 0] = 200
    write_image(tmp_path / "red.jpg", image)
    red, green, blue = read_image(tmp_path / "red.jpg").reshape(-1, 3).mean(axis=0)
    assert red > 190
    assert max(green, blue) < 10


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(*, bits: int, colour: int, rows: bytes, palette: bytes = b"") -> bytes:
    """A PNG of 2x1 pixels by hand: no library that could share a mistake with the reader."""
    header = struct.pack(">IIBBBBB", 2, 1, bits, colour, 0, 0, 0)
    parts = [_chunk(b"IHDR", header), *([_chunk(b"PLTE", palette)] if palette else [])]
    parts += [_chunk(b"IDAT", zlib.compress(b"\0" + rows)), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_palette_png_gives_its_colours(tmp_path: Path) -> None:
    path = tmp_path / "palette.png"
    path.write_bytes(_png(bits=8, colour=3, rows=b"\1\0", palette=bytes([10, 20, 30, 200, 100, 50])))
    np.testing.assert_array_equal(read_image(path), [[[200, 100, 50], [10, 20, 30]]])


def test_sixteen_bit_rgb_png_keeps_all_bits(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    values = [1000, 2000, 3000, 65535, 1, 256]
    path.write_bytes(_png(bits=16, colour=2, rows=struct.pack(">6H", *values)))
    image = read_image(path)
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image, np.reshape(values, (1, 2, 3)))


def test_pgm_is_stretched_to_its_type_and_stored_values_stay(tmp_path: Path) -> None:
    path = tmp_path / "ten_bits.pgm"
    path.write_bytes(b"P5\n# a comment\n2 1\n1023\n" + struct.pack(">2H", 1023, 512))
    np.testing.assert_array_equal(read_image(path), [[65535, 32800]])
    np.testing.assert_array_equal(read_stored(path), [[1023, 512]])


def test_exif_orientation_is_not_applied(tmp_path: Path) -> None:
    encoded = cv2.imencode(".jpg", np.zeros((8, 16, 3), np.uint8))[1].tobytes()
    turned = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    segment = b"\xff\xe1" + struct.pack(">H", len(turned) + 2) + turned
    (tmp_path / "turned.jpg").write_bytes(encoded[:2] + segment + encoded[2:])
    assert read_image(tmp_path / "turned.jpg").shape == (8, 16, 3)


def test_the_two_images_may_differ_in_kind(tmp_path: Path) -> None:
    write_image(tmp_path / "left.png", np.full((4, 6), 65535, np.uint16))
    write_image(tmp_path / "right.tiff", np.full((4, 6, 4), 1.0, np.float32))
    pair = StereoPair.open(tmp_path / "left.png", tmp_path / "right.tiff")
    assert pair.left.shape == pair.right.shape == (3, 4, 6)
    assert bool((pair.left == 1).all())
    assert bool((pair.right == 1).all())


def test_the_content_counts_not_the_suffix(tmp_path: Path) -> None:
    image = _random(np.uint8, 3)
    write_image(tmp_path / "image.png", image)
    (tmp_path / "image.png").rename(tmp_path / "image.jpg")
    np.testing.assert_array_equal(read_image(tmp_path / "image.jpg"), image)


@pytest.mark.parametrize(
    ("name", "image", "said"),
    [
        ("a.jpg", np.zeros((2, 2, 4), np.uint8), "channels"),
        ("a.jpg", np.zeros((2, 2), np.uint16), "uint8"),
        ("a.png", np.zeros((2, 2), np.float32), "uint8 or uint16"),
        ("a.png", np.zeros((0, 2), np.uint8), "(0, 2)"),
        ("a.xyz", np.zeros((2, 2), np.uint8), ".png"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(
    tmp_path: Path, name: str, image: np.ndarray, said: str
) -> None:
    with pytest.raises(ValueError) as caught:
        write_image(tmp_path / name, image)
    assert name in str(caught.value)
    assert said in str(caught.value)
    assert list(tmp_path.iterdir()) == []
