"""What an image file says of itself before it is decoded: its format, its size, whether it is whole.

A decoder trusts a header and allocates what it claims, and some return half an image of a truncated
file. Here both are found out from the bytes alone.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

MAX_PIXELS = 200_000_000
"""Larger images are refused: most are damaged headers, and no predictor takes them."""

FORMATS = "PNG, JPEG, TIFF, WebP, PGM/PPM, BMP, npy, EXR"


@dataclass(frozen=True)
class Header:
    """format: one of the names of `FORMATS`; size: (height, width); maximum: the value of white in a
    PGM or PPM, else 0."""

    format: str
    size: tuple[int, int]
    maximum: int = 0


def image_format(data: bytes) -> str | None:
    """The format by its first bytes, None where it is none that we know."""
    signatures = (
        ("PNG", b"\x89PNG\r\n\x1a\n"),
        ("JPEG", b"\xff\xd8\xff"),
        ("npy", b"\x93NUMPY"),
        ("EXR", b"\x76\x2f\x31\x01"),
        ("TIFF", b"II*\0"),
        ("TIFF", b"MM\0*"),
        ("TIFF", b"II+\0"),
        ("TIFF", b"MM\0+"),
        ("BMP", b"BM"),
    )
    for name, signature in signatures:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    return "PGM/PPM" if re.match(rb"P[1-6][\s#]", data) else None


def read_header(data: bytes) -> Header:
    """The header of a PNG, JPEG, TIFF, WebP, PGM/PPM or BMP file, which must be whole.

    Raises ValueError with the end of a sentence ("is truncated: ..."), to be put after the file's name.
    """
    name = image_format(data)
    if name not in _readers:
        raise ValueError(f"is no image of a known format: convert it to one of {FORMATS}")
    try:
        header = _readers[name](data)
    except (struct.error, IndexError, OverflowError) as error:  # the last where an offset is beyond memory
        raise ValueError(f"is a truncated {name} file: copy or export it again") from error
    check_pixels(*header.size)
    return header


def check_pixels(height: int, width: int) -> None:
    """ValueError (the end of a sentence) for an empty or an absurdly large image."""
    if height < 1 or width < 1:
        raise ValueError(f"claims a size of {width}x{height} pixels: an image with pixels was expected")
    if height * width > MAX_PIXELS:
        raise ValueError(
            f"claims {width}x{height} pixels: at most {MAX_PIXELS // 10**6} megapixels are read, "
            "cut or shrink it if that is its real size"
        )


def _png(data: bytes) -> Header:
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    check_pixels(height, width)
    position, compressed = 8, 0
    while True:
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        end = position + 12 + length
        (stored,) = struct.unpack(">I", data[end - 4 : end])
        if zlib.crc32(memoryview(data)[position + 4 : end - 4]) != stored:
            raise ValueError(f"is a damaged PNG file (the checksum of {kind!r} is wrong): copy it again")
        compressed += length if kind == b"IDAT" else 0
        if kind == b"IEND":
            break
        position = end
    channels = {2: 3, 4: 2, 6: 4}.get(colour, 1)
    # Deflate shrinks at most 1032 times: whoever claims more pixels has not got them.
    if compressed * 1032 < width * height * channels * depth // 8:
        raise ValueError(f"is a PNG file without the {width}x{height} pixels that it claims: export it again")
    return Header("PNG", (height, width))


def _jpeg(data: bytes) -> Header:
    frames = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
    position, size = 2, None
    while True:
        while data[position] != 0xFF:
            position += 1
        while data[position] == 0xFF:
            position += 1
        marker = data[position]
        position += 1
        if marker == 0x01 or 0xD0 <= marker <= 0xD9:
            continue
        (length,) = struct.unpack(">H", data[position : position + 2])
        if marker in frames:
            size = struct.unpack(">HH", data[position + 3 : position + 7])
        if marker == 0xDA:
            break
        position += length
    if size is None:
        raise ValueError("is a JPEG file without a frame header: copy or export it again")
    if data.find(b"\xff\xd9", position) < 0:
        raise ValueError("is a truncated JPEG file (its end marker is missing): copy or export it again")
    return Header("JPEG", (size[0], size[1]))


def _tiff(data: bytes) -> Header:
    order = "<" if data[:2] == b"II" else ">"
    (version,) = struct.unpack(order + "H", data[2:4])
    big = version == 43
    offset_code, entry_size, count_code = ("Q", 20, "Q") if big else ("I", 12, "H")
    (start,) = struct.unpack_from(order + offset_code, data, 8 if big else 4)
    (count,) = struct.unpack_from(order + count_code, data, start)
    start += 8 if big else 2
    tags: dict[int, int] = {}
    for index in range(min(count, 4096)):
        tag, kind = struct.unpack_from(order + "HH", data, start + index * entry_size)
        code = {1: "B", 3: "H", 4: "I", 16: "Q"}.get(kind)
        if tag in (256, 257) and code:
            (tags[tag],) = struct.unpack_from(
                order + code, data, start + index * entry_size + (12 if big else 8)
            )
    if len(tags) < 2:
        raise ValueError("is a TIFF file without a size: export it again")
    return Header("TIFF", (tags[257], tags[256]))


def _webp(data: bytes) -> Header:
    (length,) = struct.unpack("<I", data[4:8])
    if len(data) < length + 8:
        raise ValueError("is a truncated WebP file: copy or export it again")
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        (bits,) = struct.unpack("<I", data[21:25])
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (value & 0x3FFF for value in struct.unpack("<HH", data[26:30]))
    return Header("WebP", (height, width))


def _pnm(data: bytes) -> Header:
    fields = 2 if data[:2] in (b"P1", b"P4") else 3
    gap = rb"(?:\s|#[^\n]*\n)+"
    match = re.match(rb"P[1-6]" + (gap + rb"(\d{1,10})") * fields + rb"\s", data[:4096])
    if match is None:
        raise ValueError("has a damaged PGM/PPM header: export it again")
    width, height, *rest = (int(value) for value in match.groups())
    maximum = rest[0] if rest else 255
    if not 0 < maximum < 65536:
        raise ValueError(f"is a PGM/PPM file with maximum value {maximum}: 1 to 65535 was expected")
    check_pixels(height, width)
    if data[:2] in (b"P5", b"P6"):
        expected = width * height * (3 if data[:2] == b"P6" else 1) * (1 if maximum < 256 else 2)
        if len(data) - match.end() < expected:
            raise ValueError(
                f"is a truncated PGM/PPM file ({expected} bytes of pixels were expected, "
                f"{len(data) - match.end()} came): copy or export it again"
            )
    return Header("PGM/PPM", (height, width), maximum)


def _bmp(data: bytes) -> Header:
    width, height = struct.unpack("<ii", data[18:26])
    return Header("BMP", (abs(height), abs(width)))


_readers: dict[str | None, Callable[[bytes], Header]] = {
    "PNG": _png,
    "JPEG": _jpeg,
    "TIFF": _tiff,
    "WebP": _webp,
    "PGM/PPM": _pnm,
    "BMP": _bmp,
}
