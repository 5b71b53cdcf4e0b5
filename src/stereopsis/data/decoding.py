"""How truth lies in files: every encoding of `MapFile`, turned into disparity in pixels and a mask.

Beside those of `stereopsis.io.disparity` (pfm, npy, npz, exr, png16/256, png8*k):

- `pfm|abs`: the sign is dropped (Scene Flow's subset stores left disparity negative);
- `pfm|positive`, `npy|positive`: 0 is unknown;
- `sintel`: RGB PNG, disparity = 4 R + G / 64 + B / 16384, 0 is valid;
- `fsd`: RGB PNG, disparity = (255² R + 255 G + B) / 1000;
- `dsp5`: Spring's HDF5 at twice the image's size, in image pixels, NaN unknown;
- `depth-npy`, `depth-png16*k`: depth in metres (stored value / k), 0 unknown, through the calibration.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32

from stereopsis.data.files import MapFile
from stereopsis.io.arrays import read_npy
from stereopsis.io.disparity import read_disparity
from stereopsis.io.files import existing_file
from stereopsis.io.images import read_stored
from stereopsis.io.pfm import read_pfm
from stereopsis.structures import Calibration

Truth = tuple[Float32[np.ndarray, "_ _"], Bool[np.ndarray, "_ _"]]


def read_truth(file: MapFile, calibration: Calibration | None) -> Truth:
    """Disparity (pixels, 0 where unknown) and where it is known; ValueError or OSError names the file."""
    encoding, path = file.encoding, file.path
    if encoding == "pfm|abs":
        return _known(np.abs(read_pfm(existing_file(path, "a disparity"))))
    if encoding.endswith("|positive"):
        disparity, valid = read_disparity(path, encoding.removesuffix("|positive"))
        return disparity, valid & (disparity > 0)
    if encoding == "sintel":
        red, green, blue = _colours(path)
        return _known(red * 4 + green / 64 + blue / 16384)
    if encoding == "fsd":
        red, green, blue = _colours(path)
        return _known((red * (255 * 255) + green * 255 + blue) / 1000)
    if encoding == "dsp5":
        return _known(_read_dsp5(path)[::2, ::2])
    if encoding.startswith("depth-"):
        return _from_depth(_read_depth(path, encoding), calibration, path)
    return read_disparity(path, encoding)


def read_raw_view(path: Path, *, size: tuple[int, int] = (2160, 3840)) -> np.ndarray:
    """UnrealStereo4K's `.raw`: bytes of an image of `size`, BGR, or gray in the active set -> RGB or gray."""
    data = np.frombuffer(existing_file(path, "an image").read_bytes(), np.uint8)
    height, width = size
    if data.size == height * width:
        return data.reshape(height, width).copy()
    if data.size == height * width * 3:
        return data.reshape(height, width, 3)[..., ::-1].copy()
    raise ValueError(
        f"{path} has {data.size} bytes: {width}x{height} in gray or BGR was expected; is it truncated?"
    )


def _known(values: np.ndarray) -> Truth:
    with np.errstate(invalid="ignore"):
        valid = np.isfinite(values) & (values >= 0)
    return np.where(valid, values, 0).astype(np.float32), valid


def _colours(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    stored = read_stored(path)
    if stored.ndim != 3 or stored.dtype != np.uint8:
        raise ValueError(f"{path} holds {stored.dtype} of shape {stored.shape}: 8-bit RGB was expected")
    red, green, blue = np.moveaxis(stored[..., :3].astype(np.float64), -1, 0)
    return red, green, blue


def _read_depth(path: Path, encoding: str) -> np.ndarray:
    if encoding == "depth-npy":
        return read_npy(existing_file(path, "a depth map")).astype(np.float64)
    kind, _, scale = encoding.partition("*")
    stored = read_stored(path)
    if kind != "depth-png16" or not scale or stored.ndim != 2 or stored.dtype != np.uint16:
        raise ValueError(
            f"{path} holds {stored.dtype} of shape {stored.shape} for the encoding {encoding!r}: "
            "one channel of uint16 was expected"
        )
    return stored / float(scale)


def _from_depth(depth: np.ndarray, calibration: Calibration | None, path: Path) -> Truth:
    if calibration is None:
        raise ValueError(f"{path} holds depth: a calibration is needed to turn it into disparity")
    with np.errstate(divide="ignore", invalid="ignore"):
        disparity = calibration.disparity(depth)
    return _known(np.where(depth > 0, disparity, np.nan))


def _read_dsp5(path: Path) -> np.ndarray:
    existing_file(path, "a disparity")
    try:
        h5py = importlib.import_module("h5py")
    except ImportError as error:
        raise ValueError(
            f"{path}: Spring's .dsp5 files are HDF5: pip install 'stereopsis[hdf5]' to read them"
        ) from error
    try:
        file = h5py.File(path)
    except OSError as error:
        raise ValueError(f"{path} is no HDF5 file or damaged: fetch it again") from error
    with file:
        if "disparity" not in file:
            raise ValueError(f"{path} holds no disparity: is it one of Spring's .dsp5 files?")
        return np.asarray(file["disparity"], np.float64)
