"""Images in and out: arrays in RGB(A) order as stored, headers checked before anything is decoded."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def read_image(path: str | Path) -> np.ndarray:
    """[h w] or [h w c] in RGB(A) order, uint8, uint16 or float32 as stored."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no image file {path}")
    decoded = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise ValueError(f"{path} is not a readable image")
    return swap_channels(decoded)


def swap_channels(image: np.ndarray) -> np.ndarray:
    """BGR(A) to RGB(A) and back; gray as it is."""
    if image.ndim == 2:
        return image
    order = (2, 1, 0, 3)[: image.shape[2]]
    return np.ascontiguousarray(image[:, :, order])
