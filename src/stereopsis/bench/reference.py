"""OpenCV's matchers as programs commonly call them: the rows that every table is read against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from stereopsis.structures import Predictor, StereoOutput, StereoPair

DISPARITIES = 192


@dataclass(frozen=True)
class Plain:
    """One OpenCV matcher, left view only, nothing filled (infinite where unknown, confidence 0)."""

    make: Callable[[], cv2.StereoMatcher]
    gray: bool

    def __call__(self, pair: StereoPair) -> StereoOutput:
        height, width = pair.size
        views = [
            [_bytes(image, gray=self.gray) for image in images.reshape(-1, 3, height, width)]
            for images in (pair.left, pair.right)
        ]
        raw = np.stack([self.make().compute(*both) for both in zip(*views, strict=True)])
        disparity = torch.from_numpy(raw.astype(np.float32) / 16)
        known = disparity >= 0
        output = StereoOutput(torch.where(known, disparity, torch.inf), known.float())
        return output.reshaped(pair.left.shape[:-3])


def _bytes(image: Float[Tensor, "3 h w"], *, gray: bool) -> UInt8[np.ndarray, "h w *c"]:
    stored = (image * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return cv2.cvtColor(stored, cv2.COLOR_RGB2GRAY) if gray else stored


def _semi_global() -> cv2.StereoMatcher:
    return cv2.StereoSGBM.create(0, DISPARITIES, 5, 600, 2400, mode=cv2.STEREO_SGBM_MODE_SGBM_3WAY)


def _block() -> cv2.StereoMatcher:
    return cv2.StereoBM.create(DISPARITIES, 15)


REFERENCES: dict[str, Callable[[], Predictor]] = {
    "opencv-sgbm": lambda: Plain(_semi_global, gray=False),
    "opencv-bm": lambda: Plain(_block, gray=True),
}
"""Rows by name: semi-global matching along 3 directions in colour, and block matching in gray."""
