"""Errors at depth edges: the soft edge error of SMD-Nets (CVPR 2021) and the masks it needs.

Truth that is NaN or infinite is unknown: it makes no edge and no neighbour. A truth of 0 is a value
like any other, as in the published program.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from stereopsis.layers.sampling import boundaries as boundaries
from stereopsis.metrics.disparity import epe, measured_pixels


def instance_boundaries(instances: Float[Tensor, "*b h w"], *, dilation: int = 0) -> Bool[Tensor, "*b h w"]:
    """Borders between instances (and to the background), for sparse truth: SMD-Nets' choice on KITTI."""
    return boundaries(instances, threshold=0.5, dilation=dilation)


def soft_edge_error(
    disparity: Float[Tensor, "*b h w"], truth: Float[Tensor, "*b h w"], *, radius: int = 1
) -> Float[Tensor, "*b h w"]:
    """Per pixel, the smallest |truth(neighbour) - disparity| in a window of 2 radius + 1 pixels.

    As published, truth shifted in from outside the image is 0 and takes part. Unanswered pixels, and
    those without any known neighbour, get infinity.
    """
    known = torch.where(truth.isfinite(), truth, torch.inf)
    padded = F.pad(known, (radius,) * 4)
    height, width = truth.shape[-2:]
    smallest = torch.full_like(disparity, torch.inf)
    for top in range(2 * radius + 1):
        for left in range(2 * radius + 1):
            shifted = padded[..., top : top + height, left : left + width]
            smallest = torch.minimum(smallest, (shifted - disparity).abs().nan_to_num(nan=torch.inf))
    return smallest


def see(
    disparity: Float[Tensor, "*b h w"],
    truth: Float[Tensor, "*b h w"],
    mask: Bool[Tensor, "*b h w"],
    *,
    edges: Bool[Tensor, "*b h w"] | None = None,
    radius: int = 1,
) -> Float[Tensor, "*b"]:
    """Soft edge error: the mean of `soft_edge_error` over the edges inside the mask, in pixels.

    edges: `boundaries(truth)` where not given (KITTI: borders of instances). No such pixel: NaN, where
    the published program gives 0.
    """
    where = measured_pixels(truth, mask) & (boundaries(truth) if edges is None else edges)
    error = soft_edge_error(disparity, truth, radius=radius)
    return epe(torch.where(error.isfinite(), error, torch.nan), torch.zeros_like(error), where)


def edge_epe(
    disparity: Float[Tensor, "*b h w"],
    truth: Float[Tensor, "*b h w"],
    mask: Bool[Tensor, "*b h w"],
    *,
    dilation: int = 10,
) -> Float[Tensor, "*b"]:
    """EPE over the mask within `boundaries` grown by a `dilation` box."""
    return epe(disparity, truth, mask & boundaries(truth, dilation=dilation))
