"""Polygons with holes, extruded: letters, gears, leaves, stars; and fences and nets cut from a sheet."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from stereopsis.synthesis.shapes import NEAR, Ray, Surface, Values, box_interval, select

Loop = tuple[tuple[float, float], ...]
Inside = Bool[Tensor, "..."]


@dataclass(frozen=True)
class Prism:
    """An outline in x and y extruded over |z| <= depth: what is inside an odd number of its loops."""

    loops: tuple[Loop, ...]
    depth: float
    name: str = "polygon"
    girth: float = 0.0

    @property
    def finest(self) -> float:
        return min(0.2, 2 * self.depth)

    @property
    def extent(self) -> tuple[float, float, float]:
        points = [point for loop in self.loops for point in loop]
        return (max(abs(x) for x, _ in points), max(abs(y) for _, y in points), self.depth)

    @property
    def edges(self) -> list[tuple[float, float, float, float]]:
        """(ax, ay, bx, by) of every side."""
        return [(*a, *b) for loop in self.loops for a, b in zip(loop, (*loop[1:], loop[0]), strict=True)]

    def intersect(self, ray: Ray) -> Values:
        low, high = box_interval(ray, self.extent)
        result = torch.full_like(low, math.inf)
        crossing = (low < high).nonzero(as_tuple=True)
        near = ray.map(lambda values: values.expand(low.shape)[crossing])
        result[crossing] = self._first_side(near)
        return result

    def _first_side(self, ray: Ray) -> Values:
        first, second = (-self.depth - ray.oz) / ray.dz, (self.depth - ray.oz) / ray.dz
        entry, leave = torch.minimum(first, second), torch.maximum(first, second)
        x, y, _ = ray.at(entry)
        best = select(self._contains(x, y) & (entry > NEAR), entry)
        for ax, ay, bx, by in self.edges:
            ex, ey = bx - ax, by - ay
            across = ray.dx * ey - ray.dy * ex
            t = ((ax - ray.ox) * ey - (ay - ray.oy) * ex) / across
            along = ((ax - ray.ox) * ray.dy - (ay - ray.oy) * ray.dx) / across
            hit = ((along - 0.5).abs() <= 0.5) & (t > entry) & (t < leave) & (t > NEAR)
            best = torch.minimum(best, select(hit, t))
        return best

    def _contains(self, x: Values, y: Values) -> Inside:
        """Even-odd rule."""
        inside = torch.zeros_like(x, dtype=torch.bool)
        for ax, ay, bx, by in self.edges:
            if ay == by:
                continue
            inside ^= ((y < ay) != (y < by)) & (x < ax + (y - ay) * ((bx - ax) / (by - ay)))
        return inside

    def surface(self, x: Values, y: Values, z: Values) -> Surface:
        nx, ny, along = torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(x)
        nearest = torch.full_like(x, math.inf)
        offset = 0.0
        for ax, ay, bx, by in self.edges:
            ex, ey = bx - ax, by - ay
            length = math.hypot(ex, ey)
            step = (((x - ax) * ex + (y - ay) * ey) / length).clamp(0, length)
            gap = torch.hypot(x - ax - step * (ex / length), y - ay - step * (ey / length))
            closer = gap < nearest
            nearest = torch.minimum(nearest, gap)
            nx, ny = nx.masked_fill(closer, ey / length), ny.masked_fill(closer, -ex / length)
            along = torch.where(closer, step + offset, along)
            offset += length
        face = ((self.depth - z.abs()) < nearest).to(x)
        wall = 1 - face
        u, v = face * (x + 3.1 * z.sign()) + wall * along, face * y + wall * z
        return Surface(u, v, 1.0, wall * nx, wall * ny, face * z.sign())


@dataclass(frozen=True)
class Lattice:
    """A sheet z = 0 in |x|, |y| <= 1 with `columns` x `rows` openings and bars of `bar` of a cell.

    slant: 0 for upright bars, 1 for a diamond net.
    """

    columns: float
    rows: float
    bar: float
    slant: float = 0.0
    name: str = "fence"
    extent: tuple[float, float, float] = (1.0, 1.0, 0.0)
    girth: float = 0.0

    @property
    def finest(self) -> float:
        return 2 * self.bar / max(self.columns, self.rows)

    def intersect(self, ray: Ray) -> Values:
        t = -ray.oz / ray.dz
        x, y, _ = ray.at(t)
        a = (x + self.slant * y) * (self.columns / 2)
        b = (y - self.slant * x) * (self.rows / 2)
        bars = ((a - torch.floor(a)) < self.bar) | ((b - torch.floor(b)) < self.bar)
        return select(bars & (x.abs() <= 1) & (y.abs() <= 1) & (t > NEAR), t)

    def surface(self, x: Values, y: Values, z: Values) -> Surface:
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
