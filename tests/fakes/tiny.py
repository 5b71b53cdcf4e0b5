"""A tiny random stereo scene, and plain writers of the file formats that data sets use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import h5py
import numpy as np

HEIGHT, WIDTH = 12, 16


@dataclass(frozen=True)
class Tiny:
    """Views [h w 3] RGB; disparities in pixels; `known`, `known_right`: where truth exists; `hidden`:
    known pixels that the right camera does not see."""

    left: np.ndarray
    right: np.ndarray
    disparity: np.ndarray
    known: np.ndarray
    disparity_right: np.ndarray
    known_right: np.ndarray
    hidden: np.ndarray


def tiny(seed: int, *, dense: bool = False, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Tiny:
    """A scene of random pixels, disparities from 1 to 60 px in steps of 1/4."""
    random = np.random.default_rng(seed)

    def truth() -> tuple[np.ndarray, np.ndarray]:
        known = np.ones(size, bool) if dense else random.random(size) < 0.8
        return random.integers(4, 240, size) / 4.0, known

    left, right = (random.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(2))
    (disparity, known), (disparity_right, known_right) = truth(), truth()
    hidden = known & (random.random(size) < 0.2)
    return Tiny(left, right, disparity, known, disparity_right, known_right, hidden)


def write_image(path: Path, image: np.ndarray) -> None:
    """Any array that OpenCV's writer takes, RGB where it has three channels; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = image[..., ::-1] if image.ndim == 3 else image
    assert cv2.imwrite(str(path), np.ascontiguousarray(stored))


def write_jpeg(path: Path, image: np.ndarray) -> np.ndarray:
    """A JPEG, and the pixels that it decodes to."""
    write_image(path, image)
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1]


def write_pfm(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = values.shape
    rows = np.ascontiguousarray(values[::-1], "<f4")
    path.write_bytes(f"Pf\n{width} {height}\n-1.0\n".encode() + rows.tobytes())


def write_png16(path: Path, values: np.ndarray, known: np.ndarray, scale: float) -> None:
    write_image(path, np.where(known, np.rint(values * scale), 0).astype(np.uint16))


def write_png8(path: Path, values: np.ndarray, known: np.ndarray, scale: float) -> None:
    write_image(path, np.where(known, np.rint(values * scale), 0).clip(0, 255).astype(np.uint8))


def write_npy(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)


def write_hdf5(path: Path, **arrays: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def unknown_as(values: np.ndarray, known: np.ndarray, invalid: float) -> np.ndarray:
    return np.where(known, values, invalid).astype(np.float32)
