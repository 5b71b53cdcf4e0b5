"""UnrealStereo4K's images as plain bytes, which load many times faster than PNGs of their size.

`.raw`: 2160x3840 bytes, BGR (gray in the active set), no header, as the release of SMD-Nets reads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stereopsis.io.atomic import writing
from stereopsis.io.images import read_stored

RAW_SIZE = (2160, 3840)
"""(height, width): a .raw file has no header, so there is one size."""


@dataclass(frozen=True)
class Converted:
    """What became of one image."""

    raw: Path
    written: bool
    """False where the .raw was there already."""


def convert_to_raw(root: Path) -> Iterator[Converted]:
    """Writes a `.raw` beside every PNG below `root`'s Image0 and Image1 (and image) folders, one by one.

    May be interrupted and run again: what is there in full is left. Raises ValueError for an image of
    another size or kind, FileNotFoundError where there are no images.
    """
    images = sorted(path for path in root.rglob("*.png") if _is_view(path))
    if not images:
        raise FileNotFoundError(
            f"{root} holds no PNG images in folders Image0 and Image1: name the data's root"
        )
    for image in images:
        raw = image.with_suffix(".raw")
        height, width = RAW_SIZE
        if raw.exists() and raw.stat().st_size in (height * width, 3 * height * width):
            yield Converted(raw, written=False)
            continue
        data = _bytes(image)
        with writing(raw) as temporary:
            temporary.write_bytes(data)
        yield Converted(raw, written=True)


def _is_view(path: Path) -> bool:
    return path.parent.name.lower() in ("image", "image0", "image1") or path.name == "imgLaser.png"


def _bytes(image: Path) -> bytes:
    stored = read_stored(image)
    if stored.dtype != np.uint8 or stored.shape[:2] != RAW_SIZE:
        raise ValueError(
            f"{image} is {stored.dtype} of {stored.shape[1]}x{stored.shape[0]}: .raw files are 8-bit of "
            f"{RAW_SIZE[1]}x{RAW_SIZE[0]}; keep the PNGs of the quarter release"
        )
    if stored.ndim == 2:
        return stored.tobytes()
    return np.ascontiguousarray(stored[..., 2::-1]).tobytes()
