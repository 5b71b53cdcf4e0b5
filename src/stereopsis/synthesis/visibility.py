"""What a view sees first at every ray: a depth buffer over the solids, each on the pixels it may cover."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from stereopsis.synthesis.camera import View
from stereopsis.synthesis.shapes import NEAR, Ray, Shape

NOTHING = -1
Triple = Sequence[float | int] | np.ndarray


@dataclass(frozen=True)
class Pose:
    """World from shape: `linear` [3 3] (by columns, sizes included) and `centre` [3]."""

    linear: np.ndarray
    centre: np.ndarray

    @cached_property
    def inverse(self) -> np.ndarray:
        return np.linalg.inv(self.linear)

    @classmethod
    def of(cls, centre: Triple, size: Triple, rotation: np.ndarray | None = None) -> Pose:
        """Scaled by `size` along its own axes, turned by `rotation`, moved to `centre`."""
        turn = np.eye(3) if rotation is None else rotation
        return cls(turn * np.asarray(size, dtype=np.float64), np.asarray(centre, dtype=np.float64))


@dataclass(frozen=True)
class Solid:
    """A shape in the world, and the index of its material."""

    shape: Shape
    pose: Pose
    material: int = 0
    transparent: bool = False

    @property
    def bounded(self) -> bool:
        return bool(np.isfinite(self.shape.extent).all())

    @property
    def scale(self) -> float:
        """Metres of a unit of the shape's frame, on average."""
        return float(abs(np.linalg.det(self.pose.linear))) ** (1 / 3)

    def corners(self) -> np.ndarray:
        """The [8 3] corners of its box in the world; infinite where the shape is."""
        if not self.bounded:
            return np.full((8, 3), math.inf)
        extent = np.array(self.shape.extent)
        signs = np.array(list(product((-1, 1), repeat=3)))
        return (signs * extent) @ self.pose.linear.T + self.pose.centre


class Target(NamedTuple):
    """A solid as one view sees it: its number, its rays' origin and matrix, the pixels it may cover, and the
    depth before which it does not begin."""

    number: int
    solid: Solid
    origin: tuple[float, float, float]
    matrix: np.ndarray
    rows: tuple[int, int]
    columns: tuple[int, int]
    nearest: float

    def ray(self, x: Tensor, y: Tensor) -> Ray:
        """Rays in the shape's frame through camera directions (x, y, 1); x and y broadcast."""
        m = self.matrix.tolist()
        directions = [x * m[i][0] + (y * m[i][1] + m[i][2]) for i in range(3)]
        return Ray(*self.origin, *directions)


def targets(solids: Sequence[Solid], view: View) -> list[Target]:
    """The solids that the view may see."""
    result = []
    rotation = np.array(view.rotation)
    for index, solid in enumerate(solids):
        corners = solid.corners()
        top, bottom, left, right = view.bounds(corners)
        if bottom <= top:
            continue
        inverse = solid.pose.inverse
        origin = inverse @ (np.array(view.origin) - solid.pose.centre)
        matrix = inverse @ rotation
        ox, oy, oz = (float(value) for value in origin)
        nearest = float(view.project(corners)[:, 2].min()) if solid.bounded else NEAR
        place = (top, bottom), (left, right), max(nearest, NEAR)
        result.append(Target(index, solid, (ox, oy, oz), matrix, *place))
    return result


class Hits(NamedTuple):
    """Depth (infinity: nothing) and the number of the first solid (NOTHING: none)."""

    depth: Float[Tensor, "..."]
    solid: Int[Tensor, "..."]


def directions(
    view: View, rows: tuple[int, int], *, dtype: torch.dtype, device: torch.device
) -> tuple[Float[Tensor, "1 w"], Float[Tensor, "h 1"]]:
    """x and y of the rays (x, y, 1) of some rows of a view."""
    x = torch.arange(view.size[1], dtype=torch.float64, device=device)
    y = torch.arange(*rows, dtype=torch.float64, device=device)
    return ((x - view.cx) / view.focal).to(dtype)[None], ((y - view.cy) / view.focal).to(dtype)[:, None]


def trace(
    seen: Sequence[Target], view: View, rows: tuple[int, int], *, dtype: torch.dtype, device: torch.device
) -> Hits:
    """The first hits at the pixel centres of rows [rows[0], rows[1])."""
    shape = (rows[1] - rows[0], view.size[1])
    depth = torch.full(shape, math.inf, dtype=dtype, device=device)
    index = torch.full(shape, NOTHING, dtype=torch.int32, device=device)
    x, y = directions(view, rows, dtype=dtype, device=device)
    for target in seen:
        top, bottom = max(target.rows[0], rows[0]) - rows[0], min(target.rows[1], rows[1]) - rows[0]
        if bottom <= top:
            continue
        window = (slice(top, bottom), slice(*target.columns))
        t = target.solid.shape.intersect(target.ray(x[:, window[1]], y[window[0]]))
        closer = t < depth[window]
        depth[window] = torch.minimum(depth[window], t)
        index[window].masked_fill_(closer, target.number)
    return Hits(depth, index)


def trace_points(seen: Sequence[Target], view: View, x: Float[Tensor, " n"], y: Float[Tensor, " n"]) -> Hits:
    """The first hits through image points (x, y), in pixels of the view, not its grid.

    The points come in the order of their rows: round(y) never falls.
    """
    depth = torch.full_like(x, math.inf)
    solid = torch.full_like(x, NOTHING, dtype=torch.int32)
    dx, dy = (x - view.cx) / view.focal, (y - view.cy) / view.focal
    limits = torch.tensor([(t.rows[0] - 1, t.rows[1] + 1) for t in seen] or [(0, 0)], device=x.device)
    parts = torch.searchsorted(torch.floor(y + 0.5), limits.to(y.dtype)).tolist()
    for target, (start, end) in zip(seen, parts, strict=False):
        part = slice(start, end)
        if start >= end:
            continue
        if target.columns == (0, view.size[1]) and not target.solid.bounded:
            t = target.solid.shape.intersect(target.ray(dx[part], dy[part]))
            solid[part].masked_fill_(t < depth[part], target.number)
            depth[part] = torch.minimum(depth[part], t)
            continue
        near = (x[part] >= target.columns[0] - 1) & (x[part] <= target.columns[1])
        chosen = near.nonzero().squeeze(-1) + start
        t = target.solid.shape.intersect(target.ray(dx[chosen], dy[chosen]))
        before = depth[chosen]
        solid[chosen] = solid[chosen].masked_fill(t < before, target.number)
        depth[chosen] = torch.minimum(before, t)
    return Hits(depth, solid)


__all__ = [
    "NEAR",
    "NOTHING",
    "Hits",
    "Pose",
    "Solid",
    "Target",
    "directions",
    "targets",
    "trace",
    "trace_points",
]
