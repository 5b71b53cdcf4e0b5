"""Where a head is trained and read: depth edges, jittered grids, sampling that favours the edges.

Positions are (x, y) in pixels, pixel centres at integers. SMD-Nets, CVPR 2021, section 3.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def boundaries(
    truth: Float[Tensor, "*b h w"], *, threshold: float = 1.0, dilation: int = 0
) -> Bool[Tensor, "*b h w"]:
    """Pixels that differ by more than `threshold` from an upper, lower, left or right neighbour.

    What is NaN or infinite is unknown and makes no edge. With `dilation` edges grow by a box of dilation
    x dilation pixels; an even box covers the offsets -dilation/2 .. dilation/2 - 1, as OpenCV's default
    anchor has it.
    """
    edges = torch.zeros(truth.shape, dtype=torch.bool, device=truth.device)
    known = truth.isfinite()
    for axis in (-2, -1):
        length = truth.shape[axis]
        first, second = truth.narrow(axis, 0, length - 1), truth.narrow(axis, 1, length - 1)
        both = known.narrow(axis, 0, length - 1) & known.narrow(axis, 1, length - 1)
        jump = both & ((first - second).abs() > threshold)
        edges.narrow(axis, 0, length - 1).logical_or_(jump)
        edges.narrow(axis, 1, length - 1).logical_or_(jump)
    return dilated(edges, dilation) if dilation > 0 else edges


def dilated(mask: Bool[Tensor, "*b h w"], size: int) -> Bool[Tensor, "*b h w"]:
    """The mask grown by a size x size box: a pixel is set if any pixel of the box around it is."""
    before, after = size // 2, size - 1 - size // 2
    flat = mask.reshape(-1, 1, *mask.shape[-2:]).float()
    grown = F.max_pool2d(F.pad(flat, (before, after, before, after)), size, stride=1)
    return (grown > 0).reshape(mask.shape)


@dataclass(frozen=True)
class Points:
    """Positions (x, y) in pixels, and the disparities that are true there."""

    positions: Float[Tensor, "n 2"]
    labels: Float[Tensor, " n"]


def jittered_grid(
    truth: Float[Tensor, "h w"], where: Bool[Tensor, "h w"], *, generator: torch.Generator
) -> Points:
    """A point in the unit square that begins at each pixel, labelled with the truth at its rounded position.

    Kept only where that rounded position (clipped to the image) is in `where`.
    """
    height, width = truth.shape
    jitter = torch.rand(2, height, width, generator=generator).to(truth.device)
    x = torch.arange(width, device=truth.device) + jitter[0]
    y = torch.arange(height, device=truth.device)[:, None] + jitter[1]
    column = x.round().long().clamp(max=width - 1)
    row = y.round().long().clamp(max=height - 1)
    kept = where[row, column]
    return Points(torch.stack([x[kept], y[kept]], -1), truth[row, column][kept])


def sample_points(
    truth: Float[Tensor, "h w"],
    valid: Bool[Tensor, "h w"],
    *,
    number: int,
    sampling: Literal["random", "edges"],
    dilation: int = 10,
    generator: torch.Generator,
) -> Points:
    """`number` points drawn with replacement from a jittered grid of valid, positive truth.

    "edges" (discontinuity-aware): half of them, but not more than half of the edge pixels, from within
    `dilation` boxes around edges of more than 1 px, the rest from elsewhere, edge points first. Without
    edges: "random". Fewer, or none, where there is no truth to draw from.
    """
    known = valid & (truth > 0)
    if sampling == "edges":
        edges = boundaries(truth, dilation=dilation)
        near = jittered_grid(truth, known & edges, generator=generator)
        far = jittered_grid(truth, known & ~edges, generator=generator)
        if len(near.labels):
            at_edges = min(int(edges.sum()) // 2, number // 2)
            drawn = [
                _drawn(near, at_edges, generator),
                _drawn(far, number - at_edges, generator),
            ]
            return Points(
                torch.cat([points.positions for points in drawn]),
                torch.cat([points.labels for points in drawn]),
            )
    return _drawn(jittered_grid(truth, known, generator=generator), number, generator)


def _drawn(points: Points, number: int, generator: torch.Generator) -> Points:
    """That many of the points, with replacement; none where there are none."""
    count = len(points.labels)
    if count == 0:
        return points
    index = torch.randint(count, (number,), generator=generator).to(points.labels.device)
    return Points(points.positions[index], points.labels[index])
