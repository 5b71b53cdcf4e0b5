"""Exact truth: a ray of its own through every pixel centre, in double precision, and one from the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stereopsis.structures import TensorRecord
from stereopsis.synthesis.camera import Rig, Side
from stereopsis.synthesis.visibility import Solid, Target, targets, trace, trace_points

HIDDEN = 1e-3
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


def render_truth(
    solids: Sequence[Solid], rig: Rig, size: tuple[int, int], side: Side, *, device: torch.device
) -> Truth:
    """The truth of one view at any size, in bands of rows so that memory stays small at 4K."""
    height, width = size
    own, other = rig.view(size, side), rig.view(size, "right" if side == "left" else "left")
    seen, facing = targets(solids, own), targets(solids, other)
    step = max(1, BAND // width)
    parts = []
    for top in range(0, height, step):
        rows = (top, min(height, top + step))
        depth, index = trace(seen, own, rows, dtype=torch.float64, device=device)
        disparity = rig.focal * width * rig.baseline / depth - rig.doffs * width
        occluded = _occluded(disparity, rig, size, side, rows[0], facing)
        parts.append((disparity, depth.float(), index, occluded))
    disparity, depth, objects, occluded = (torch.cat(bands) for bands in zip(*parts, strict=True))
    valid = disparity >= 0
    return Truth(
        disparity=torch.where(valid, disparity, 0.0).float(),
        valid=valid,
        depth=depth,
        occluded=occluded,
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
    depth = trace_points(facing, view, there.reshape(-1), y.expand_as(there).reshape(-1))
    first = rig.focal * width * rig.baseline / depth.view_as(disparity) - rig.doffs * width
    return outside | (first > disparity + HIDDEN)


def _edges(disparity: Float[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    edges = torch.zeros_like(disparity, dtype=torch.bool)
    down = (disparity[1:] - disparity[:-1]).abs() > JUMP
    across = (disparity[:, 1:] - disparity[:, :-1]).abs() > JUMP
    edges[1:] |= down
    edges[:-1] |= down
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    return edges
