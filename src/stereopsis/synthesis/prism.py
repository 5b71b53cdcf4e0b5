"""Polygons with holes, extruded: letters, gears, leaves, stars; and fences and nets cut from a sheet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch

from stereopsis.synthesis.shapes import NEAR, Numbers, Ray, Shape, Surface, Values, select

Loop = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Prism(Shape):
    """An outline in x and y extruded over |z| <= depth: what is inside an odd number of its loops."""

    loops: tuple[Loop, ...]
    depth: float
    what: str = "polygon"
    effort: ClassVar[float] = 16.0

    @property
    def name(self) -> str:
        return self.what

    @property
    def finest(self) -> float:
        return min(0.2, 2 * self.depth)

    @property
    def extent(self) -> tuple[float, float, float]:
        points = [point for loop in self.loops for point in loop]
        return (max(abs(x) for x, _ in points), max(abs(y) for _, y in points), self.depth)

    @cached_property
    def edges(self) -> list[tuple[float, float, float, float]]:
        """(ax, ay, bx, by) of every side."""
        return [(*a, *b) for loop in self.loops for a, b in zip(loop, (*loop[1:], loop[0]), strict=True)]

    @property
    def kind(self) -> str:
        """Outlines of about as many sides: with the longest, all others would be filled up to its length."""
        return f"outline of {1 << (len(self.edges) - 1).bit_length()}"

    @property
    def numbers(self) -> Numbers:
        """Half sizes [3], and per side [n 5] its ends and how far along the outline it begins."""
        edges = np.array(self.edges)
        lengths = np.hypot(edges[:, 2] - edges[:, 0], edges[:, 3] - edges[:, 1])
        begins = np.cumsum(lengths) - lengths
        return np.array(self.extent), np.concatenate((edges, begins[:, None]), axis=1)

    def meet(self, ray: Ray, *numbers: Values) -> Values:
        """A ray meets the plane of a side where the side's ends lie on either side of it; it enters through
        a lid if it meets an odd number of sides behind that."""
        extent, sides = numbers
        ax, ay, bx, by, _ = sides.unbind(1)
        ax, ay, bx, by = ax - ray.ox, ay - ray.oy, bx - ray.ox, by - ray.oy
        first, second = (-extent[2] - ray.oz) / ray.dz, (extent[2] - ray.oz) / ray.dz
        entry, leave = torch.minimum(first, second), torch.maximum(first, second)
        # A ray along the axis looks a hair aside.
        dx = ray.dx + 1e-30
        from_a, from_b = dx * ay - ray.dy * ax, dx * by - ray.dy * bx
        crossed = (from_a < 0) != (from_b < 0)
        t = (ax * by - ay * bx) / from_b.sub_(from_a)
        behind = crossed & (t > entry)
        inside = behind.sum(0, dtype=torch.uint8) % 2 == 1
        side = select(behind, t).amin(0)
        wall = select((side < leave) & (side > NEAR), side)
        return torch.minimum(wall, select(inside & (entry > NEAR), entry))

    def describe(self, x: Values, y: Values, z: Values, *numbers: Values) -> Surface:
        extent, sides = numbers
        ax, ay, bx, by, begin = sides.unbind(1)
        ex, ey = bx - ax, by - ay
        length = torch.hypot(ex, ey)
        ex, ey = ex / length, ey / length
        step = torch.minimum(((x - ax) * ex + (y - ay) * ey).clamp(min=0), length)
        gap = torch.hypot(x - ax - step * ex, y - ay - step * ey)
        nearest, side = torch.nan_to_num(gap, nan=math.inf).min(0, keepdim=True)
        nx, ny, along = (c.expand(gap.shape).gather(0, side)[0] for c in (ey, -ex, step + begin))
        face = ((extent[2] - z.abs()) < nearest[0]).to(x)
        wall = 1 - face
        u, v = face * (x + 3.1 * z.sign()) + wall * along, face * y + wall * z
        return Surface(u, v, 1.0, wall * nx, wall * ny, face * z.sign())


@dataclass(frozen=True)
class Lattice(Shape):
    """A sheet z = 0 in |x|, |y| <= 1 with `columns` x `rows` openings and bars of `bar` of a cell.

    slant: 0 for upright bars, 1 for a diamond net.
    """

    columns: float
    rows: float
    bar: float
    slant: float = 0.0

    @property
    def name(self) -> str:
        return "fence"

    @property
    def extent(self) -> tuple[float, float, float]:
        return (1.0, 1.0, 0.0)

    @property
    def finest(self) -> float:
        return 2 * self.bar / max(self.columns, self.rows)

    @property
    def numbers(self) -> Numbers:
        return (np.array((self.columns / 2, self.rows / 2, self.bar, self.slant)),)

    def meet(self, ray: Ray, *numbers: Values) -> Values:
        columns, rows, bar, slant = numbers[0]
        t = -ray.oz / ray.dz
        x, y, _ = ray.at(t)
        a, b = (x + slant * y) * columns, (y - slant * x) * rows
        bars = ((a - torch.floor(a)) < bar) | ((b - torch.floor(b)) < bar)
        return select(bars & (x.abs() <= 1) & (y.abs() <= 1) & (t > NEAR), t)

    def describe(self, x: Values, y: Values, z: Values, *_: Values) -> Surface:
        flat = torch.zeros_like(z)
        return Surface(x, y, 1.0, flat, flat, torch.ones_like(z))


def star_outline(rng: np.random.Generator, corners: int) -> Loop:
    """A random polygon about the origin: corners at increasing angles and random radii up to 1."""
    angles = np.sort((np.arange(corners) + rng.uniform(0.1, 0.9, corners)) * (2 * math.pi / corners))
    radii = rng.uniform(0.35, 1.0, corners)
    return _loop(radii * np.cos(angles), radii * np.sin(angles))


def ring_outline(radius: float, corners: int, *, turn: float = 0.0) -> Loop:
    """A regular polygon."""
    angles = turn + np.arange(corners) * (2 * math.pi / corners)
    return _loop(radius * np.cos(angles), radius * np.sin(angles))


def gear_outline(rng: np.random.Generator, teeth: int) -> Loop:
    """A wheel with `teeth` trapezoidal teeth."""
    root = rng.uniform(0.65, 0.85)
    phases = np.array([0.0, 0.2, 0.5, 0.7])
    angles = (np.arange(teeth)[:, None] + phases).ravel() * (2 * math.pi / teeth)
    radii = np.tile([1.0, 1.0, root, root], teeth)
    return _loop(radii * np.cos(angles), radii * np.sin(angles))


def leaf_outline(rng: np.random.Generator, corners: int = 7) -> Loop:
    """A pointed leaf, lobed at random."""
    along = np.linspace(-1, 1, corners)
    width = rng.uniform(0.25, 0.6) * (1 - along**2) * (1 + 0.35 * rng.uniform(-1, 1, corners))
    side = np.stack((along, width), axis=1)
    back = np.stack((along[::-1], -width[::-1]), axis=1)[1:-1]
    points = np.concatenate((side, back))
    return _loop(points[:, 0], points[:, 1])


# fmt: off
# ruff: noqa: E501
# Block letters on a grid of 4 x 6, corners in order; the second loop, where there is one, is the hole.
LETTERS: dict[str, tuple[Loop, ...]] = {
    "E": (((0, 0), (4, 0), (4, 1), (1, 1), (1, 2.5), (3, 2.5), (3, 3.5), (1, 3.5), (1, 5), (4, 5), (4, 6), (0, 6)),),
    "F": (((0, 0), (4, 0), (4, 1), (1, 1), (1, 2.5), (3, 2.5), (3, 3.5), (1, 3.5), (1, 6), (0, 6)),),
    "H": (((0, 0), (1, 0), (1, 2.5), (3, 2.5), (3, 0), (4, 0), (4, 6), (3, 6), (3, 3.5), (1, 3.5), (1, 6), (0, 6)),),
    "L": (((0, 0), (1, 0), (1, 5), (4, 5), (4, 6), (0, 6)),),
    "T": (((0, 0), (4, 0), (4, 1), (2.5, 1), (2.5, 6), (1.5, 6), (1.5, 1), (0, 1)),),
    "Z": (((0, 0), (4, 0), (4, 1.2), (1.4, 5), (4, 5), (4, 6), (0, 6), (0, 4.8), (2.6, 1), (0, 1)),),
    "A": (
        ((1.4, 0), (2.6, 0), (4, 6), (3, 6), (2.6, 4.2), (1.4, 4.2), (1, 6), (0, 6)),
        ((2, 1.2), (2.45, 3.3), (1.55, 3.3)),
    ),
    "O": (((0, 0), (4, 0), (4, 6), (0, 6)), ((1, 1), (3, 1), (3, 5), (1, 5))),
    "N": (((0, 0), (1, 0), (3, 4), (3, 0), (4, 0), (4, 6), (3, 6), (1, 2), (1, 6), (0, 6)),),
    "V": (((0, 0), (1, 0), (2, 4.5), (3, 0), (4, 0), (2.6, 6), (1.4, 6)),),
}
# fmt: on


def letter_outline(letter: str) -> tuple[Loop, ...]:
    """A block letter, 1 high either way."""
    return tuple(tuple(((x - 2) / 3, (y - 3) / 3) for x, y in loop) for loop in LETTERS[letter])


def _loop(x: np.ndarray, y: np.ndarray) -> Loop:
    return tuple((float(a), float(b)) for a, b in zip(x, y, strict=True))
