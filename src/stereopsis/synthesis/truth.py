"""Exact truth: a ray of its own through every pixel centre, in double precision, and one from the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stereopsis.structures import TensorRecord
from stereopsis.synthesis.camera import Rig, Side, View
from stereopsis.synthesis.visibility import NOTHING, Hits, Solid, Target, targets, trace, trace_points

SAME = 1e-4
JUMP = 1.0
BAND = 1 << 17


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
    """All that one view sees first: what is opaque, and what is transparent before it (else no hit)."""

    opaque: Hits
    clear: Hits


def look(solids: Sequence[Solid], view: View, *, device: torch.device) -> Sight:
    """What a view sees at its pixel centres, in double precision."""
    seen = targets(solids, view)
    height, width = view.size
    step = max(1, BAND // width)
    layers = []
    for clear in (False, True):
        chosen = [target for target in seen if target.solid.transparent == clear]
        bands = [
            trace(chosen, view, (top, min(height, top + step)), dtype=torch.float64, device=device)
            for top in range(0, height, step)
        ]
        depth, solid = (torch.cat(parts) for parts in zip(*bands, strict=True))
        if clear:
            hidden = depth >= layers[0].depth
            depth, solid = depth.masked_fill_(hidden, math.inf), solid.masked_fill_(hidden, NOTHING)
        layers.append(Hits(depth, solid))
    return Sight(*layers)


def render_truth(
    solids: Sequence[Solid],
    rig: Rig,
    size: tuple[int, int],
    side: Side,
    *,
    device: torch.device,
    sight: Sight | None = None,
) -> Truth:
    """The truth of one view at any size, in bands of rows so that memory stays small at 4K.

    sight: what the view sees, where it is known already.
    """
    height, width = size
    if sight is None:
        sight = look(solids, rig.view(size, side), device=device)
    depth = torch.minimum(sight.opaque.depth, sight.clear.depth)
    objects = torch.where(sight.clear.solid >= 0, sight.clear.solid, sight.opaque.solid)
    disparity = rig.focal * width * rig.baseline / depth - rig.doffs * width
    facing = targets(solids, rig.view(size, "right" if side == "left" else "left"))
    step = max(1, BAND // width)
    occluded = [
        _occluded(disparity[top : top + step], rig, size, side, top, facing) for top in range(0, height, step)
    ]
    valid = disparity >= 0
    return Truth(
        disparity=torch.where(valid, disparity, 0.0).float(),
        valid=valid,
        depth=depth.float(),
        occluded=torch.cat(occluded),
        objects=objects,
        edges=_edges(disparity),
    )


def _occluded(
    disparity: Float[Tensor, "h w"],
    rig: Rig,
    size: tuple[int, int],
    side: Side,
    top: int,
    facing: Sequence[Target],
) -> Bool[Tensor, "h w"]:
    """Whether something stands between the other camera and the point, or the point is beside its image."""
    rows, width = disparity.shape
    x = torch.arange(width, dtype=disparity.dtype, device=disparity.device).expand_as(disparity)
    y = torch.arange(top, top + rows, dtype=disparity.dtype, device=disparity.device)[:, None]
    there = x - disparity if side == "left" else x + disparity
    outside = (there < -0.5) | (there > width - 0.5)
    view = rig.view(size, "right" if side == "left" else "left")
    depth = trace_points(facing, view, there.reshape(-1), y.expand_as(there).reshape(-1)).depth
    first = rig.focal * width * rig.baseline / depth.view_as(disparity) - rig.doffs * width
    # At a tangent the other camera's ray may also pass the point by: it does not see it either.
    return outside | ((first - disparity).abs() > SAME)


def _edges(disparity: Float[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    edges = torch.zeros_like(disparity, dtype=torch.bool)
    down = (disparity[1:] - disparity[:-1]).abs() > JUMP
    across = (disparity[:, 1:] - disparity[:, :-1]).abs() > JUMP
    edges[1:] |= down
    edges[:-1] |= down
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    return edges
