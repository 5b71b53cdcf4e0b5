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
        """[n 2] pixels and depth as [n 3] (x, y, depth) of world points [n 3]."""
        local = (points - np.array(self.origin)) @ np.array(self.rotation)
        depth = local[:, 2:]
        safe = np.where(np.abs(depth) < 1e-12, 1e-12, depth)
        pixels = local[:, :2] / safe * self.focal + (self.cx, self.cy)
        return np.concatenate((pixels, depth), axis=1)

    def bounds(self, corners: np.ndarray) -> tuple[int, int, int, int]:
        """(top, bottom, left, right) of the pixels that the hull of world points [n 3] may cover."""
        height, width = self.size
        if not np.isfinite(corners).all():
            return 0, height, 0, width
        projected = self.project(corners)
        depth = projected[:, 2]
        if depth.min() < 1e-3 < depth.max():
            return 0, height, 0, width
        if depth.max() <= 1e-3:
            return 0, 0, 0, 0
        (x0, y0), (x1, y1) = projected[:, :2].min(0), projected[:, :2].max(0)
        top, left = max(0, int(np.floor(y0))), max(0, int(np.floor(x0)))
        bottom, right = min(height, int(np.ceil(y1)) + 1), min(width, int(np.ceil(x1)) + 1)
        return (top, bottom, left, right) if bottom > top and right > left else (0, 0, 0, 0)


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
