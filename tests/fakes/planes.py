"""A stereo pair with exact truth, of textured planes at known disparities, made without any file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from stereopsis.structures import StereoPair, StereoSample


@dataclass(frozen=True)
class Plane:
    """A textured plane: disparity `offset + column * x + row * y` over a disc, or everywhere.

    centre: (x, y) and radius in pixels of the left image; ground colour and seed make the texture.
    """

    offset: float
    column: float = 0.0
    row: float = 0.0
    centre: tuple[float, float] = (0.0, 0.0)
    radius: float = float("inf")
    colour: tuple[float, float, float] = (0.5, 0.5, 0.5)
    seed: int = 0

    def disparity(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return self.offset + self.column * x + self.row * y

    def left_column(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The left x of the point of this plane that the right camera sees at (x, y)."""
        return (x + self.offset + self.row * y) / (1 - self.column)

    def covers(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x - self.centre[0]) ** 2 + (y - self.centre[1]) ** 2 <= self.radius**2

    def texture(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """[... 3] in [0, 1]: forty waves of 3 to 40 pixels, defined between pixels too."""
        generator = np.random.default_rng(self.seed)
        length = np.exp(generator.uniform(np.log(3), np.log(40), 40))
        angle, phase = generator.uniform(0, 2 * np.pi, (2, 40))
        tint = generator.normal(1, 0.3, (40, 3)) * 0.06
        waves = [
            np.sin(2 * np.pi / wave * (np.cos(a) * x + np.sin(a) * y) + p)
            for wave, a, p in zip(length, angle, phase, strict=True)
        ]
        return np.clip(np.asarray(self.colour) + np.stack(waves, -1) @ tint, 0, 1)


GARDEN = (
    Plane(4.0, row=0.05, colour=(0.45, 0.5, 0.4), seed=1),
    Plane(24.0, column=0.02, centre=(150.0, 90.0), radius=60.0, colour=(0.7, 0.45, 0.3), seed=2),
    Plane(37.5, centre=(245.0, 150.0), radius=45.0, colour=(0.35, 0.45, 0.7), seed=3),
    Plane(48.25, row=-0.04, centre=(90.0, 175.0), radius=32.0, colour=(0.8, 0.75, 0.4), seed=4),
)
"""A slanted ground and three discs, 4 to 48 pixels of disparity, far to near."""


def planes_sample(
    planes: tuple[Plane, ...] = GARDEN,
    *,
    size: tuple[int, int] = (240, 320),
    seed: int = 0,
    noise: float = 0.01,
) -> StereoSample:
    """A pair of (height, width) `size` that sees the planes, far to near, with exact truth.

    noise: standard deviation of each camera's sensor noise, of 1, drawn from `seed`.
    """
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    left, right = np.zeros((*size, 3)), np.zeros((*size, 3))
    disparity, right_disparity = np.zeros(size), np.zeros(size)
    for plane in planes:
        seen = plane.covers(x, y)
        left[seen] = plane.texture(x[seen], y[seen])
        disparity[seen] = plane.disparity(x, y)[seen]
        column = plane.left_column(x, y)
        seen = plane.covers(column, y)
        right[seen] = plane.texture(column[seen], y[seen])
        right_disparity[seen] = plane.disparity(column, y)[seen]
    occluded = _hidden(planes, x - disparity, y, disparity)
    generator = np.random.default_rng(seed)
    views = [np.clip(view + generator.normal(0, noise, view.shape), 0, 1) for view in (left, right)]
    return StereoSample(
        pair=StereoPair.from_arrays(*views),
        disparity=torch.from_numpy(disparity).float(),
        valid=torch.ones(size, dtype=torch.bool),
        occluded=torch.from_numpy(occluded),
        disparity_right=torch.from_numpy(right_disparity).float(),
    )


def _hidden(planes: tuple[Plane, ...], x: np.ndarray, y: np.ndarray, disparity: np.ndarray) -> np.ndarray:
    """Where a point at right (x, y) with this disparity is outside the image or behind a nearer plane."""
    nearest = np.full(x.shape, -np.inf)
    for plane in planes:
        column = plane.left_column(x, y)
        nearest = np.where(plane.covers(column, y), plane.disparity(column, y), nearest)
    return (x < 0) | (nearest > disparity + 1e-6)
