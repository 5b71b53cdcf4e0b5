"""Portable float maps: our own reader, since others apply the scale's magnitude or stop at a comment.

Format: http://netpbm.sourceforge.net/doc/pfm.html; rows lie bottom to top. Of the scale only the sign
is used: negative is little endian, positive big endian. The magnitude is never applied (Middlebury 2014
writes 1/255 there).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from stereopsis.io.atomic import writing
from stereopsis.io.files import read_bytes
from stereopsis.io.headers import check_pixels

_GAP = rb"(?:\s|#[^\n]*\n)+"
_HEADER = re.compile(
    rb"(P[fF])" + _GAP + rb"(\d{1,10})" + _GAP + rb"(\d{1,10})" + _GAP + rb"([^\s#]+)[ \t]*(?:#[^\n]*)?\r?\n"
)


def read_pfm(path: str | Path) -> Float32[np.ndarray, "h w"]:
    """The map of a one-channel PFM, bit for bit; of a colour one whose channels are equal, one channel.

    Raises ValueError for anything else, naming the file.
    """
    data = read_bytes(path, "a PFM")
    match = _HEADER.match(data[:65536])
    if match is None:
        raise ValueError(
            f"{path} is no PFM file ('Pf', width, height and scale were expected): export it again"
        )
    kind, width, height, scale = match.group(1), int(match[2]), int(match[3]), _scale(match[4], path)
    try:
        check_pixels(height, width)
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error
    channels = 3 if kind == b"PF" else 1
    expected, body = 4 * width * height * channels, data[match.end() :]
    if len(body) < expected or body[expected:].strip():
        raise ValueError(
            f"{path} is a damaged PFM file: {width}x{height} pixels need {expected} bytes, {len(body)} came; "
            "copy or export it again"
        )
    values = np.frombuffer(body[:expected], "<f4" if scale < 0 else ">f4").reshape(height, width, channels)
    if channels == 3 and not (
        _same(values[..., 0], values[..., 1]) and _same(values[..., 0], values[..., 2])
    ):
        raise ValueError(f"{path} is a colour PFM with different channels: a disparity map has one, 'Pf'")
    return np.ascontiguousarray(values[::-1, :, 0]).astype(np.float32, copy=False)


def write_pfm(path: str | Path, values: Float32[np.ndarray, "h w"]) -> None:
    """A little-endian one-channel PFM, whole or not at all."""
    height, width = values.shape
    with writing(path) as temporary, temporary.open("wb") as file:
        file.write(f"Pf\n{width} {height}\n-1.0\n".encode())
        file.write(np.ascontiguousarray(values[::-1], "<f4").tobytes())


@contextmanager
def pfm_in_bands(
    path: str | Path, height: int, width: int
) -> Iterator[Callable[[int, Float32[np.ndarray, "rows w"]], None]]:
    """A PFM of that size, written by `write(first_row, values)` in any order; whole or not at all."""
    header = f"Pf\n{width} {height}\n-1.0\n".encode()

    with writing(path) as temporary, temporary.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + 4 * height * width)

        def write(first: int, values: Float32[np.ndarray, "rows w"]) -> None:
            below = height - first - len(values)
            file.seek(len(header) + 4 * width * below)
            file.write(np.ascontiguousarray(values[::-1], "<f4").tobytes())

        yield write


def _scale(token: bytes, path: str | Path) -> float:
    try:
        scale = float(token)
    except ValueError:
        scale = math.nan
    if scale == 0 or not math.isfinite(scale):
        raise ValueError(
            f"{path} has the PFM scale {token.decode('latin-1')}: a number other than 0 was expected, "
            "whose sign tells the byte order; export it again"
        )
    return scale


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    return np.array_equal(first.view(np.uint32), second.view(np.uint32))
