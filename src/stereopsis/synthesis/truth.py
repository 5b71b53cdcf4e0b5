"""Exact truth: a ray of its own through every pixel centre, in double precision, and one from the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stereopsis.structures import TensorRecord
from stereopsis.synthesis.camera import Rig, Side, View
from stereopsis.synthesis.visibility import (
    TILE,
    Grid,
    Hits,
    Runs,
    Solid,
    Targets,
    hits,
    nearest,
    targets,
    trace,
)

SIDES: tuple[Side, Side] = ("left", "right")
SAME = 1e-4
JUMP = 1.0
BAND = 1 << 20


@dataclass(frozen=True)
class Truth(TensorRecord):
    """One view's truth at some size.

    disparity: pixels, positive, 0 where invalid; valid: False where it would be negative (beyond the
    zero of doffs); depth: metres, infinite in the sky; occluded: the other camera does not see the
    point, hidden or out of its image; objects: index of the first solid, -1 in the sky; edges: pixels
    whose disparity differs by more than 1 px from one of their four neighbours'.
    """

    disparity: Float[Tensor, "*b h w"]
    valid: Bool[Tensor, "*b h w"]
    depth: Float[Tensor, "*b h w"]
    occluded: Bool[Tensor, "*b h w"]
    objects: Int[Tensor, "*b h w"]
    edges: Bool[Tensor, "*b h w"]


class Sight(NamedTuple):
    """All that views see first: what is opaque, and what is transparent before it (else no hit)."""

    opaque: Hits
    clear: Hits


@dataclass(frozen=True)
class Stage:
    """Pairs to be seen at one size: their views (left and right of one pair, then of the next) and solids."""

    rigs: tuple[Rig, ...]
    solids: tuple[Sequence[Solid], ...]
    size: tuple[int, int]
    device: torch.device

    @cached_property
    def views(self) -> tuple[View, ...]:
        return tuple(rig.view(self.size, side) for rig in self.rigs for side in SIDES)

    @cached_property
    def seen(self) -> Targets:
        """What the views may see."""
        found = [t for n, view in enumerate(self.views) for t in targets(self.solids[n // 2], view, number=n)]
        return Targets.of(found, self.views, self.device)

    def column(self, values: Sequence[float]) -> Float[Tensor, "v 1 1"]:
        """One number a pair, for both of its views."""
        pairs = torch.tensor(values, dtype=torch.float64, device=self.device)
        return pairs.repeat_interleave(2)[:, None, None]

    @cached_property
    def scale(self) -> Float[Tensor, "v 1 1"]:
        """(Disparity + shift) times depth."""
        return self.column([rig.focal * rig.baseline * self.size[1] for rig in self.rigs])

    @cached_property
    def shift(self) -> Float[Tensor, "v 1 1"]:
        """Minus the disparity of what is infinitely far."""
        return self.column([rig.doffs * self.size[1] for rig in self.rigs])

    def bands(self, *, samples: int = 1) -> Iterator[Grid]:
        """The images in bands of rows, so that memory stays small at 4K; with `samples` across a pixel."""
        pixels = BAND if self.device.type == "cpu" else 16 * BAND
        height, width = (samples * n for n in self.size)
        block = TILE * samples
        step = max(1, pixels // (len(self.views) * width * block)) * block
        for top in range(0, height, step):
            yield Grid((height, width), top, min(height, top + step), len(self.views))


def look(stage: Stage) -> Sight:
    """What the views see at their pixel centres, in double precision."""
    parts = []
    for grid in stage.bands():
        keys = nearest(trace(stage.seen, Runs.tiles(stage.views, grid, device=stage.device)))
        parts.append(grid.image(keys))
    return Sight(*(hits(layer) for layer in torch.cat(parts, dim=2)))


def render_truths(stage: Stage, sight: Sight) -> Truth:
    """The truth [v h w] of all views, from what they see."""
    depth = torch.minimum(sight.opaque.depth, sight.clear.depth)
    objects = torch.where(sight.clear.solid >= 0, sight.clear.solid, sight.opaque.solid)
    disparity = stage.scale / depth - stage.shift
    occluded = [
        _occluded(stage, grid, disparity[:, grid.top : grid.bottom], depth[:, grid.top : grid.bottom])
        for grid in stage.bands()
    ]
    valid = disparity >= 0
    return Truth(
        disparity=disparity.clamp(min=0).float(),
        valid=valid,
        depth=depth.float(),
        occluded=torch.cat(occluded, dim=1),
        objects=objects,
        edges=_edges(disparity),
    )


def render_truth(
    solids: Sequence[Solid], rig: Rig, size: tuple[int, int], side: Side, *, device: torch.device
) -> Truth:
    """The truth of one view at any size."""
    stage = Stage((rig,), (solids,), size, device)
    return render_truths(stage, look(stage)).map(lambda values: values[SIDES.index(side)])


def _occluded(
    stage: Stage, grid: Grid, disparity: Float[Tensor, "v h w"], depth: Float[Tensor, "v h w"]
) -> Bool[Tensor, "v h w"]:
    """Whether something stands between the other camera and the point, or the point is beside its image."""
    view, x, y = grid.points(stage.device)
    here = grid.runs(disparity)
    there = x + here * (2 * (view % 2) - 1)[:, None]
    outside = (there < -0.5) | (there > stage.size[1] - 0.5)
    # What begins behind all points of a run hides none; a hair more, for points of equal depth on one plane.
    far = 1.001 * grid.runs(depth).amax(1)
    runs = Runs.of(stage.views, view.bitwise_xor(1), there, y, far=far)
    found = hits(trace(stage.seen, runs, layers=1)[0]).depth
    first = stage.scale[view, 0] / found - stage.shift[view, 0]
    # At a tangent the other camera's ray may also pass the point by: it does not see it either.
    return grid.image(outside | ((first - here).abs() > SAME))


def _edges(disparity: Float[Tensor, "v h w"]) -> Bool[Tensor, "v h w"]:
    edges = torch.zeros_like(disparity, dtype=torch.bool)
    down = disparity.diff(dim=-2).abs() > JUMP
    across = disparity.diff(dim=-1).abs() > JUMP
    edges[..., 1:, :] |= down
    edges[..., :-1, :] |= down
    edges[..., 1:] |= across
    edges[..., :-1] |= across
    return edges
