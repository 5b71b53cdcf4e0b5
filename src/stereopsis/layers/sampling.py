"""Where a head is trained and read: depth edges, jittered grids, sampling that favours the edges.

Positions are (x, y) in pixels, pixel centres at integers. SMD-Nets, CVPR 2021, section 3.4.
"""

from __future__ import annotations

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
