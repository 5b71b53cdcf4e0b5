"""What views see first at every ray: depth buffers over the solids, many views and solids in one pass.

Rays lie in runs of RUN neighbours of one view; a run is held against the solids whose bounds it meets, all
solids of one kind at once, and each ray keeps its first hit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from stereopsis.synthesis.camera import View
from stereopsis.synthesis.shapes import NEAR, Ray, Shape

NOTHING = -1
TILE = 8
RUN = TILE * TILE
# The lowest bits of a depth in double precision, one part in 10^12 of it, count the solids from the last: of
# two in one plane (a fence that lies on the ground) the later is seen.
ANYTHING = (1 << 12) - 1
ENDLESS = int(np.array(math.inf).view(np.int64))
EMPTY = ENDLESS | ANYTHING
Triple = Sequence[float | int] | np.ndarray


def budget(device: torch.device) -> int:
    """How many rays are worked on at once: on a CPU so many that they stay in its caches."""
    return 1 << 15 if device.type == "cpu" else 1 << 23


def parts(start: int, end: int, device: torch.device, *, effort: float = 1.0) -> Iterator[slice]:
    """Runs from `start` to `end`, so many at a time as the budget allows of rays that take `effort`."""
    step = max(1, int(budget(device) / effort) // RUN)
    return (slice(begin, min(end, begin + step)) for begin in range(start, end, step))


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

    @cached_property
    def bounded(self) -> bool:
        return bool(np.isfinite(self.shape.extent).all())

    @cached_property
    def scale(self) -> float:
        """Metres of a unit of the shape's frame, on average."""
        return float(abs(np.linalg.det(self.pose.linear))) ** (1 / 3)

    @cached_property
    def corners(self) -> np.ndarray:
        """The [8 3] corners of its box in the world; infinite where the shape is."""
        if not self.bounded:
            return np.full((8, 3), math.inf)
        return (CORNERS * np.array(self.shape.extent)) @ self.pose.linear.T + self.pose.centre


CORNERS = np.array(list(product((-1, 1), repeat=3)))


class Hits(NamedTuple):
    """Depth (infinity: nothing) and the number of the first solid (NOTHING: none)."""

    depth: Float[Tensor, "..."]
    solid: Int[Tensor, "..."]


@dataclass(frozen=True)
class Target:
    """A solid as one view sees it, on the host.

    number: its index in the scene; nearest: the depth before which it does not begin; window: the pixels
    it may cover (top, bottom, left, right); origin, matrix: the view's rays in the shape's frame.
    """

    view: int
    number: int
    solid: Solid
    nearest: float
    window: np.ndarray
    origin: np.ndarray
    matrix: np.ndarray


@dataclass(frozen=True)
class Kind:
    """Targets of one kind, from `start` to `end`, in the slots before `slot`: a shape that stands for all,
    and the numbers [t ...] of each."""

    shape: Shape
    start: int
    end: int
    slot: int
    numbers: tuple[Tensor, ...]

    def of(self, places: Int64[Tensor, " s"], dtype: torch.dtype) -> list[Tensor]:
        """The numbers [... s 1] of some targets."""
        rows = (number.index_select(0, places - self.start).to(dtype) for number in self.numbers)
        return [row.movedim(0, -1)[..., None] for row in rows]


@dataclass(frozen=True)
class Targets:
    """All that several views may see, kind by kind.

    slots [n v]: for every view its targets, those of one kind in the slots of that kind (-1: none), so that
    views are searched side by side; bounds [5 n v]: left, right, top, bottom and nearest depth in each slot;
    frames [t 12]: origin and matrix; labels [t 2]: what keys call each, and whether it is transparent.
    """

    views: tuple[View, ...]
    targets: tuple[Target, ...]
    kinds: tuple[Kind, ...]
    slots: Int64[Tensor, "n v"]
    bounds: Float[Tensor, "5 n v"]
    frames: Float[Tensor, "t 12"]
    labels: Int64[Tensor, "t 2"]

    @classmethod
    def of(cls, seen: Sequence[Target], views: Sequence[View], device: torch.device) -> Targets:
        """From the targets of some views."""
        ordered = sorted(seen, key=lambda target: target.solid.shape.kind)
        names = [target.solid.shape.kind for target in ordered]
        slots: list[np.ndarray] = []
        kinds, columns = [], len(views)
        for name in sorted(set(names)):
            start, end = names.index(name), len(names) - names[::-1].index(name)
            used = np.zeros(columns, np.int64)
            block = np.full((end - start, columns), -1)
            for index in range(start, end):
                view = ordered[index].view
                block[used[view], view] = index
                used[view] += 1
            slots.append(block[: used.max()])
            shapes = [target.solid.shape for target in ordered[start:end]]
            kinds.append(Kind(shapes[0], start, end, sum(map(len, slots)), _stacked(shapes, device)))
        table = np.concatenate(slots) if slots else np.zeros((0, columns), np.int64)
        bounds = np.array([(*t.window[2:], *t.window[:2], t.nearest) for t in ordered] or np.zeros((0, 5)))
        bounds = np.concatenate((bounds, [(math.inf, -math.inf, math.inf, -math.inf, math.inf)]))
        frames = [np.concatenate((target.origin, target.matrix.ravel())) for target in ordered]
        labels = [(ANYTHING - 1 - target.number, int(target.solid.transparent)) for target in ordered]
        return cls(
            tuple(views),
            tuple(ordered),
            tuple(kinds),
            torch.from_numpy(table).to(device),
            torch.from_numpy(np.ascontiguousarray(np.moveaxis(bounds[table], -1, 0))).to(device),
            torch.tensor(np.array(frames).reshape(-1, 12), device=device),
            torch.tensor(np.array(labels, np.int64).reshape(-1, 2), device=device),
        )

    def rays(
        self, places: Int64[Tensor, " s"], x: Tensor, y: Tensor, *, axes: Sequence[int] = (0, 1, 2)
    ) -> Ray:
        """Rays in the frames of some targets through camera directions (x, y, 1) [s n].

        axes: what is needed of the directions; the rest is left zero.
        """
        frames = self.frames.index_select(0, places).to(x.dtype).T[..., None]
        m = frames[3:]
        directions = [x.new_zeros(()).expand(x.shape)] * 3
        for i in axes:
            directions[i] = (y * m[3 * i + 1]).add_(m[3 * i + 2]).add_(x * m[3 * i])
        return Ray(*frames[:3], *directions)


def _stacked(shapes: Sequence[Shape], device: torch.device) -> tuple[Tensor, ...]:
    """The numbers of shapes of one kind, those that have fewer filled up with NaN."""
    result = []
    for numbers in zip(*(shape.numbers for shape in shapes), strict=True):
        size = np.max([number.shape for number in numbers], axis=0)
        table = np.full((len(numbers), *size.astype(int)), math.nan)
        for row, number in enumerate(numbers):
            table[(row, *(slice(n) for n in number.shape))] = number
        result.append(torch.from_numpy(table).to(device))
    return tuple(result)


def targets(solids: Sequence[Solid], view: View, *, number: int = 0) -> list[Target]:
    """The solids that a view may see; `number`: the view's own in what they are searched with."""
    if not solids:
        return []
    corners = np.stack([solid.corners for solid in solids])
    windows = view.bounds(corners)
    bounded = np.array([solid.bounded for solid in solids])
    depth = view.project(np.where(bounded[:, None, None], corners, 0.0))[..., 2].min(1)
    nearest = np.maximum(np.where(bounded, depth, NEAR), NEAR)
    rotation, origin = np.array(view.rotation), np.array(view.origin)
    result = []
    for index in np.flatnonzero(windows[:, 1] > windows[:, 0]).tolist():
        solid = solids[index]
        inverse = solid.pose.inverse
        begin, matrix = inverse @ (origin - solid.pose.centre), inverse @ rotation
        result.append(Target(number, index, solid, float(nearest[index]), windows[index], begin, matrix))
    return result


class Grid(NamedTuple):
    """The tiles of rows [top, bottom) of images of one size: runs in the order (view, row, column)."""

    size: tuple[int, int]
    top: int
    bottom: int
    views: int

    @property
    def tiles(self) -> tuple[int, int, int]:
        """Views, and tiles down and across."""
        return self.views, -(-(self.bottom - self.top) // TILE), -(-self.size[1] // TILE)

    def points(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """The view [r] and the pixel centres x, y [r n] of every run."""
        views, down, across = self.tiles
        axis = torch.arange(max(down, across) * TILE, dtype=torch.float64, device=device).view(-1, TILE)
        x = axis[None, None, :across, None].expand(views, down, across, TILE, TILE)
        y = axis[None, :down, None, :, None].expand(views, down, across, TILE, TILE) + self.top
        view = torch.arange(views, device=device).repeat_interleave(down * across)
        return view, x.reshape(-1, RUN), y.reshape(-1, RUN)

    def inside(self, device: torch.device) -> Bool[Tensor, "r n"]:
        """Which rays of the runs are within the image."""
        _, x, y = self.points(device)
        return (x < self.size[1]) & (y < self.bottom)

    def image(self, runs: Tensor) -> Tensor:
        """[... r n] in runs to [... v h w] in rows."""
        views, down, across = self.tiles
        lead = runs.shape[:-2]
        tiles = runs.view(*lead, views, down, across, TILE, TILE).transpose(-3, -2)
        whole = tiles.reshape(*lead, views, down * TILE, across * TILE)
        return whole[..., : self.bottom - self.top, : self.size[1]]

    def runs(self, image: Tensor) -> Tensor:
        """[v h w] in rows to [r n] in runs; beyond the image its last row and column go on."""
        views, down, across = self.tiles
        rows = torch.arange(down * TILE, device=image.device).clamp(max=image.shape[1] - 1)
        columns = torch.arange(across * TILE, device=image.device).clamp(max=image.shape[2] - 1)
        if (len(rows), len(columns)) != tuple(image.shape[1:]):
            image = image.index_select(1, rows).index_select(2, columns)
        return image.view(views, down, TILE, across, TILE).transpose(2, 3).reshape(-1, RUN)


@dataclass(frozen=True)
class Runs:
    """Rays in runs of RUN neighbours.

    view: whose rays a run's are; x, y: directions (x, y, 1); low, high: the least and the greatest pixel
    coordinates [2 r] of a run; far: the depth beyond which nothing matters to it.
    """

    view: Int64[Tensor, " r"]
    x: Float[Tensor, "r n"]
    y: Float[Tensor, "r n"]
    low: Float[Tensor, "2 r"]
    high: Float[Tensor, "2 r"]
    far: Float[Tensor, " r"] | None = None

    @classmethod
    def of(
        cls,
        views: Sequence[View],
        view: Int64[Tensor, " r"],
        x: Float[Tensor, "r n"],
        y: Float[Tensor, "r n"],
        *,
        dtype: torch.dtype = torch.float64,
        far: Float[Tensor, " r"] | None = None,
    ) -> Runs:
        """Through image points (x, y), in pixels."""
        lens = torch.tensor([(v.cx, v.cy, v.focal) for v in views], dtype=torch.float64, device=x.device)
        cx, cy, focal = lens.index_select(0, view).T[..., None]
        low, high = (torch.stack((f(x, 1), f(y, 1))) for f in (torch.amin, torch.amax))
        return cls(view, ((x - cx) / focal).to(dtype), ((y - cy) / focal).to(dtype), low, high, far)

    @classmethod
    def tiles(
        cls, views: Sequence[View], grid: Grid, *, dtype: torch.dtype = torch.float64, device: torch.device
    ) -> Runs:
        """Through the pixel centres of a grid."""
        lens = torch.tensor([(v.cx, v.cy, v.focal) for v in views], dtype=torch.float64, device=device)
        cx, cy, focal = lens.T[..., None]
        shape = (*grid.tiles, TILE, TILE)
        _, down, across = grid.tiles
        columns = torch.arange(across * TILE, dtype=torch.float64, device=device)
        rows = torch.arange(down * TILE, dtype=torch.float64, device=device) + grid.top
        x = ((columns - cx) / focal).to(dtype).view(-1, 1, across, 1, TILE).expand(shape)
        y = ((rows - cy) / focal).to(dtype).view(-1, down, 1, TILE, 1).expand(shape)
        view = torch.arange(len(views), device=device).repeat_interleave(down * across)
        left, top = columns[::TILE].repeat(len(views) * down), rows[::TILE].repeat_interleave(across)
        low = torch.stack((left, top.repeat(len(views))))
        return cls(view, x.reshape(-1, RUN), y.reshape(-1, RUN), low, low + (TILE - 1))


@dataclass(frozen=True)
class Layout:
    """Members, sorted by group, in runs of RUN of one group each; its last run repeats its last member.

    group: of each run, on the host, and starts: the first run of each group, and behind the last; member:
    index [r n]; place: where in the runs, row by row, each member is.
    """

    group: np.ndarray
    starts: np.ndarray
    member: Int64[Tensor, "r n"]
    place: Int64[Tensor, " m"]

    @classmethod
    def of(cls, counts: np.ndarray, device: torch.device) -> Layout:
        """For so many members of each group."""
        runs = -(-counts // RUN)
        starts = np.concatenate(([0], np.cumsum(runs)))
        begins = np.cumsum(counts) - counts
        group = np.repeat(np.arange(len(counts)), runs)
        first = begins[group] + (np.arange(len(group)) - starts[group]) * RUN
        last = (begins + counts - 1)[group]
        shift = torch.from_numpy(starts[:-1] * RUN - begins).to(device)
        place = shift.repeat_interleave(torch.from_numpy(counts).to(device), output_size=int(counts.sum()))
        first, last = (torch.from_numpy(n).to(device)[:, None] for n in (first, last))
        member = torch.minimum(first + torch.arange(RUN, device=device), last)
        return cls(group, starts, member, place + torch.arange(len(place), device=device))


def trace(seen: Targets, runs: Runs, *, layers: int = 2) -> Int64[Tensor, "l r n"]:
    """The first hits of rays, opaque and transparent ones apart, as keys: depth and number in one.

    layers: 1 to take both alike.
    """
    device, dtype = runs.x.device, runs.x.dtype
    keys = torch.full((layers, *runs.x.shape), EMPTY, dtype=torch.int64, device=device)
    flat = keys.view(-1, runs.x.shape[1])
    slot, run = _met(seen, runs).nonzero(as_tuple=True)
    place = seen.slots.view(-1)[slot * len(seen.views) + runs.view[run]]
    ends = torch.tensor([kind.slot for kind in seen.kinds], device=device)
    bounds = [0, *torch.searchsorted(slot, ends).tolist()]
    for kind, start, end in zip(seen.kinds, bounds, bounds[1:], strict=False):
        for part in parts(start, end, device, effort=kind.shape.effort):
            rays, solids = run[part], place[part]
            x, y = runs.x.index_select(0, rays), runs.y.index_select(0, rays)
            ray = seen.rays(solids, x, y, axes=kind.shape.axes)
            t = kind.shape.meet(ray, *kind.of(solids, dtype))
            label, clear = seen.labels.index_select(0, solids).T[..., None]
            key = t.double().view(torch.int64).bitwise_and_(~ANYTHING).bitwise_or_(label)
            row = rays[:, None] + clear * (len(runs.x) * (layers - 1))
            flat.scatter_reduce_(0, row.expand_as(key), key, "amin")
    return keys


def _met(seen: Targets, runs: Runs) -> Tensor:
    """Which slots' bounds [n r] runs meet, give or take a pixel."""
    left, right, top, bottom, nearest = (bound.index_select(1, runs.view) for bound in seen.bounds)
    met = (runs.high[0] >= left - 1) & (runs.low[0] <= right)
    met &= (runs.high[1] >= top - 1) & (runs.low[1] <= bottom)
    return met if runs.far is None else met & (nearest < runs.far)


def nearest(keys: Int64[Tensor, "2 r n"]) -> Int64[Tensor, "2 r n"]:
    """The keys of both layers without what is transparent behind something opaque."""
    keys[1].masked_fill_(keys[1] >= keys[0], EMPTY)
    return keys


def hits(keys: Int64[Tensor, "*s"]) -> Hits:
    """What keys say."""
    depth = (keys & ~ANYTHING).view(torch.float64)
    solid = (ANYTHING - 1 - (keys & ANYTHING)).to(torch.int32)
    return Hits(depth, solid.masked_fill_(depth == math.inf, NOTHING))


def trace_points(seen: Sequence[Target], view: View, x: Float[Tensor, " n"], y: Float[Tensor, " n"]) -> Hits:
    """The first hits of one view through image points, in pixels, in any order."""
    count = len(x)
    places = torch.arange(-(-count // RUN) * RUN, device=x.device).clamp(max=count - 1).view(-1, RUN)
    every = torch.zeros(len(places), dtype=torch.int64, device=x.device)
    runs = Runs.of([view], every, x[places].double(), y[places].double())
    depth, solid = hits(trace(Targets.of(seen, [view], x.device), runs, layers=1)[0].view(-1)[:count])
    return Hits(depth, solid)
