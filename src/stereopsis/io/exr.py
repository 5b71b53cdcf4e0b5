"""OpenEXR files through the optional `OpenEXR` package."""

from __future__ import annotations

import importlib
import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from stereopsis.io.atomic import writing
from stereopsis.io.files import existing_file
from stereopsis.io.headers import check_pixels


def read_exr(path: str | Path) -> dict[str, np.ndarray]:
    """Every channel of the first part, [h w] float32, by name ("R", "G", "B", "A", "Y", "Z", ...)."""
    path = existing_file(path, "an EXR")
    openexr = _openexr(path)
    try:
        with openexr.File(str(path), header_only=True) as file:
            low, high = file.header()["dataWindow"]
        width, height = (int(last) - int(first) + 1 for first, last in zip(low, high, strict=True))
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no whole EXR file: export it again") from error
    try:
        check_pixels(height, width)
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error
    try:
        # The package prints its complaints: ours name the file and say what to do.
        with redirect_stdout(io.StringIO()), openexr.File(str(path), separate_channels=True) as file:
            return {name: channel.pixels.astype(np.float32) for name, channel in file.channels().items()}
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is a damaged EXR file: export it again") from error


def write_exr(path: str | Path, channels: dict[str, np.ndarray]) -> None:
    """Float32 channels [h w] by name, compressed without loss."""
    openexr = _openexr(path)
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    pixels = {name: np.ascontiguousarray(values, np.float32) for name, values in channels.items()}
    with writing(path) as temporary:
        try:
            with openexr.File(header, pixels) as file:
                file.write(str(temporary))
        except RuntimeError as error:
            raise OSError(str(error)) from error


def _openexr(path: str | Path) -> Any:
    try:
        return importlib.import_module("OpenEXR")
    except ImportError as error:
        raise ValueError(f"{path} needs the OpenEXR package: pip install 'stereopsis[exr]'") from error
