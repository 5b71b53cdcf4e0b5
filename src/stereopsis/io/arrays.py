"""NumPy's own files, npy and npz: never a pickle, and no header is believed without its bytes."""

from __future__ import annotations

import io
import math
import warnings
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError

import numpy as np

from stereopsis.io.atomic import writing
from stereopsis.io.files import read_bytes

MAX_BYTES = 4_000_000_000
"""Larger arrays are refused."""


def read_npy(path: str | Path) -> np.ndarray:
    """The array of a .npy file; ValueError where it is damaged, too large or holds Python objects."""
    return _parse(read_bytes(path, "a .npy"), str(path))


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz file by name; ValueError as `read_npy`."""
    data = read_bytes(path, "a .npz")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            large = sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES
            names = [] if large else [name for name in archive.namelist() if name.endswith(".npy")]
            members = {name: archive.read(name) for name in names}
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(f"{path} is no whole .npz file ({error}): save it again") from error
    if large:
        raise ValueError(f"{path} claims over {MAX_BYTES // 10**9} GB of arrays: split it")
    return {
        name.removesuffix(".npy"): _parse(member, f"{name} in {path}") for name, member in members.items()
    }


def write_npy(path: str | Path, array: np.ndarray) -> None:
    """A .npy file, whole or not at all."""
    with writing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def write_npz(path: str | Path, arrays: dict[str, np.ndarray]) -> None:
    """A compressed .npz file, whole or not at all."""
    with writing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _parse(data: bytes, name: str) -> np.ndarray:
    with warnings.catch_warnings():
        # What Python 2 wrote is read like any other file: nobody need be told that it took longer.
        warnings.filterwarnings("ignore", message="Reading `.npy` or `.npz` file required additional header")
        return _parsed(data, name)


def _parsed(data: bytes, name: str) -> np.ndarray:
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(stream)
    except (ValueError, SyntaxError, TokenError, RecursionError, MemoryError, TypeError) as error:
        raise ValueError(f"{name} is no NumPy array file: save it with numpy.save") from error
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects: only arrays of numbers are read, save it as one")
    if any(length < 0 for length in shape):
        raise ValueError(f"{name} claims the shape {shape}: save it again with numpy.save")
    expected = math.prod(shape) * dtype.itemsize
    present = len(data) - stream.tell()
    if expected > present:
        raise ValueError(
            f"{name} is truncated: an array of shape {shape} needs {expected} bytes, {present} came; "
            "save it again"
        )
    stream.seek(0)
    return np.lib.format.read_array(stream, allow_pickle=False)
