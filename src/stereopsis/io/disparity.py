"""Disparity maps in and out: PFM, KITTI's 16-bit PNG, scaled 8-bit PNG or PGM, npy, npz, EXR.

An `encoding` is `pfm`, `npy`, `npz`, `exr`, `png16/256` (disparity = value / 256; another divisor may
stand there) or `png8*k` (disparity = value / k). Unknown is infinity in PFM, npy and EXR, and 0 in PNG.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32

from stereopsis.io.arrays import read_npy, read_npz, write_npy, write_npz
from stereopsis.io.exr import read_exr, write_exr
from stereopsis.io.files import existing_file
from stereopsis.io.images import read_stored, write_image
from stereopsis.io.pfm import read_pfm, write_pfm


@dataclass(frozen=True)
class _Encoding:
    """name: pfm, npy, npz, exr, png8 or png16; scale: stored value of one pixel, for the last two."""

    name: str
    scale: float = 1.0


def read_disparity(
    path: str | Path, encoding: str | None = None
) -> tuple[Float32[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Disparity in pixels and where it is known; it is 0 where it is not.

    Negative, infinite and NaN values are unknown, and so is 0 in a PNG. Without an encoding the suffix
    tells it (a 16-bit PNG is KITTI's); an 8-bit PNG or PGM needs one, since its scale is not in the
    file. Raises FileNotFoundError or ValueError naming the file.
    """
    path = existing_file(path, "a disparity")
    known = _parse(encoding, path) if encoding else _guess(path)
    if known.name in ("png8", "png16"):
        stored = _stored_map(path, known)
        return (stored / known.scale).astype(np.float32), stored > 0
    values = _float_map(path, known.name)
    with np.errstate(invalid="ignore"):
        valid = np.isfinite(values) & (values >= 0)
    return np.where(valid, values, np.float32(0)), valid


def write_disparity(
    path: str | Path,
    disparity: Float[np.ndarray, "h w"],
    *,
    valid: Bool[np.ndarray, "h w"] | None = None,
    encoding: str | None = None,
) -> None:
    """Writes disparity in pixels, whole or not at all; the suffix tells the encoding if none is given.

    What `valid` leaves out, and negative, infinite and NaN values, become unknown. In a PNG values are
    rounded to the nearest step; a known disparity below half a step becomes the smallest step, since 0
    means unknown (as KITTI's own tools do). Raises ValueError where a value is too large for the PNG.
    """
    path = Path(path)
    known = _parse(encoding, path) if encoding else _guess(path, writing=True)
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(disparity) & (disparity >= 0)
    known_at = finite if valid is None else finite & valid
    if known.name in ("png8", "png16"):
        write_image(path, _quantised(disparity, known_at, known, path))
        return
    values = np.where(known_at, disparity, np.inf).astype(np.float32)
    if known.name == "pfm":
        write_pfm(path, values)
    elif known.name == "npy":
        write_npy(path, values)
    elif known.name == "npz":
        write_npz(path, {"disparity": values, "valid": known_at})
    else:
        write_exr(path, {"Y": values})


def _parse(encoding: str, path: Path) -> _Encoding:
    if encoding in ("pfm", "npy", "npz", "exr"):
        return _Encoding(encoding)
    match = re.fullmatch(r"(png16)/(\d+(?:\.\d+)?)|(png8)\*(\d+(?:\.\d+)?)", encoding)
    scale = float(match[2] or match[4]) if match else 0.0
    if match is None or scale <= 0:
        raise ValueError(
            f"{path}: {encoding!r} is no encoding of disparity: pfm, png16/256, png8*k, npy, npz or exr"
        )
    return _Encoding(match[1] or match[3], scale)


def _guess(path: Path, *, writing: bool = False) -> _Encoding:
    suffix = path.suffix.lower()
    if suffix in (".pfm", ".npy", ".npz", ".exr"):
        return _Encoding(suffix[1:])
    if suffix == ".png" and (writing or read_stored(path).dtype == np.uint16):
        return _Encoding("png16", 256.0)
    if suffix in (".png", ".pgm"):
        raise ValueError(f"{path} does not tell its scale: give the encoding, as in png8*4 or png16/256")
    raise ValueError(
        f"{path}: disparity is a .pfm, .png, .npy, .npz or .exr file, not {suffix or 'without one'}"
    )


def _stored_map(path: Path, encoding: _Encoding) -> np.ndarray:
    stored = read_stored(path)
    if stored.ndim == 3 and all(np.array_equal(stored[..., 0], stored[..., c]) for c in (1, 2)):
        stored = stored[..., 0]
    wanted = np.uint8 if encoding.name == "png8" else np.uint16
    if stored.ndim != 2 or stored.dtype != wanted:
        raise ValueError(
            f"{path} holds {stored.dtype} of shape {stored.shape}: "
            f"one channel of {wanted.__name__} was expected"
        )
    return stored


def _float_map(path: Path, kind: str) -> Float32[np.ndarray, "h w"]:
    if kind == "pfm":
        return read_pfm(path)
    if kind == "npy":
        return _as_map(read_npy(path), path)
    if kind == "npz":
        return _npz_map(path)
    channels = read_exr(path)
    for name in ("Y", "Z", "disparity", "V"):
        if name in channels:
            return channels[name]
    first, *rest = channels.values()
    if any(not np.array_equal(first, other, equal_nan=True) for other in rest):
        raise ValueError(f"{path} has the channels {', '.join(channels)}: a disparity map has one")
    return first


def _npz_map(path: Path) -> Float32[np.ndarray, "h w"]:
    arrays = read_npz(path)
    name = next((n for n in ("disparity", "disp") if n in arrays), None)
    if name is None and len(arrays) == 1:
        name = next(iter(arrays))
    if name is None:
        raise ValueError(
            f"{path} holds the arrays {', '.join(arrays) or 'none'}: one named disparity was expected"
        )
    values = _as_map(arrays[name], path)
    if "valid" not in arrays:
        return values
    valid = arrays["valid"]
    if valid.shape != values.shape:
        raise ValueError(
            f"{path}: valid has the shape {valid.shape}, disparity {values.shape}: make them equal"
        )
    return np.where(valid.astype(bool), values, np.float32(np.inf))


def _as_map(array: np.ndarray, path: Path) -> Float32[np.ndarray, "h w"]:
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
        array = array[0] if array.shape[0] == 1 else array[..., 0]
    if array.ndim != 2 or array.dtype.kind not in "fui" or 0 in array.shape:
        raise ValueError(f"{path} holds {array.dtype} of shape {array.shape}: numbers [h w] were expected")
    return np.ascontiguousarray(array, np.float32)


def _quantised(disparity: np.ndarray, known: np.ndarray, encoding: _Encoding, path: Path) -> np.ndarray:
    limit, kind = (255, np.uint8) if encoding.name == "png8" else (65535, np.uint16)
    values = np.rint(np.where(known, disparity, 0).astype(np.float64) * encoding.scale)
    if values.max(initial=0) > limit:
        largest = float(np.where(known, disparity, 0).max())
        raise ValueError(
            f"{path}: a disparity of {largest:.3f} px does not fit into this PNG, which ends at "
            f"{limit / encoding.scale:.3f}: write .pfm or .npy"
        )
    return np.where(known, np.maximum(values, 1), 0).astype(kind)
