"""The rig of two rectified cameras, and the grid of rays of one view.

The world is the left camera's frame: x right, y down, z forward, metres. Lengths on the sensor are
kept in widths of the image, so that one scene can be seen at any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stereopsis.structures import Calibration

Side = Literal["left", "right"]
Matrix = tuple[tuple[float, float, float], ...]
IDENTITY: Matrix = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@dataclass(frozen=True, kw_only=True)
class Rig:
    """focal, cx, cy, doffs in widths (cx, cy from the image's centre), baseline in metres."""

    focal: float
    baseline: float
    cx: float = 0.0
    cy: float = 0.0
    doffs: float = 0.0

    def calibration(self, size: tuple[int, int]) -> Calibration:
        """The pair's calibration for images of `size` (height, width)."""
        height, width = size
        return Calibration(
            focal=self.focal * width,
            baseline=self.baseline,
            cx=(0.5 + self.cx) * width - 0.5,
            cy=0.5 * height - 0.5 + self.cy * width,
            doffs=self.doffs * width,
            size=size,
        )

    def view(self, size: tuple[int, int], side: Side) -> View:
        """One camera's rays through the pixel centres of an image of `size`."""
        calibration = self.calibration(size)
        right = side == "right"
        return View(
            size=size,
            focal=calibration.focal,
            cx=calibration.cx + (calibration.doffs if right else 0.0),
            cy=calibration.cy,
            origin=(self.baseline if right else 0.0, 0.0, 0.0),
        )


@dataclass(frozen=True, kw_only=True)
class View:
    """A pinhole camera: focal length and principal point in pixels (centres at integers), where it
    stands and how it is turned (world from camera, by columns)."""

    size: tuple[int, int]
    focal: float
    cx: float
    cy: float
    origin: tuple[float, float, float]
    rotation: Matrix = IDENTITY

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points [... 3] as pixels and depth [... 3] (x, y, depth)."""
        local = (points - np.array(self.origin)) @ np.array(self.rotation)
        depth = local[..., 2:]
        safe = np.where(np.abs(depth) < 1e-12, 1e-12, depth)
        pixels = local[..., :2] / safe * self.focal + (self.cx, self.cy)
        return np.concatenate((pixels, depth), axis=-1)

    def bounds(self, corners: np.ndarray) -> np.ndarray:
        """The pixels that hulls of world points [s n 3] may cover: [s 4] top, bottom, left, right.

        The whole view for hulls without end and those that reach behind the camera; nothing (four
        zeros) for those out of sight.
        """
        height, width = self.size
        endless = np.logical_not(np.isfinite(corners).all(axis=(1, 2)))
        projected = self.project(np.where(endless.reshape(-1, 1, 1), 0.0, corners))
        depth = projected[..., 2]
        low, high = np.floor(projected[..., 1::-1].min(1)), np.ceil(projected[..., 1::-1].max(1)) + 1
        top, left = np.maximum(low, 0).T
        bottom, right = np.minimum(high, self.size).T
        result = np.stack((top, bottom, left, right), axis=1)
        unseen = (bottom <= top) | (right <= left) | (depth.max(1) <= 1e-3)
        around = endless | ((depth.min(1) < 1e-3) & (depth.max(1) > 1e-3))
        result = np.where(unseen[:, None], 0.0, result)
        return np.where(around[:, None], (0, height, 0, width), result).astype(np.int64)


def looking(*, origin: Sequence[float], target: Sequence[float], size: tuple[int, int], focal: float) -> View:
    """A view from `origin` towards `target`, its principal point in the middle."""
    forward = np.subtract(target, origin)
    forward = forward / np.linalg.norm(forward)
    helper = (0.0, 0.0, 1.0) if abs(forward[1]) > 0.9 else (0.0, 1.0, 0.0)
    right = np.cross(helper, forward)
    right = right / np.linalg.norm(right)
    down = np.cross(forward, right)
    rotation = np.stack((right, down, forward), axis=1)
    return View(
        size=size,
        focal=focal,
        cx=(size[1] - 1) / 2,
        cy=(size[0] - 1) / 2,
        origin=(float(origin[0]), float(origin[1]), float(origin[2])),
        rotation=tuple((float(a), float(b), float(c)) for a, b, c in rotation),
    )
