"""How far a depth map is from the truth: one number per image, metres in and metres or ratios out.

A pixel counts where the mask is set and the true depth is finite and above 0; it is answered where the
depth is finite and above 0. AbsRel, MAE and RMSE are over answered pixels, delta counts the others as wrong.
An empty mask gives NaN.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stereopsis.metrics.disparity import mean_over


def abs_rel(
    depth: Float[Tensor, "*b h w"], truth: Float[Tensor, "*b h w"], mask: Bool[Tensor, "*b h w"]
) -> Float[Tensor, "*b"]:
    """Mean of |depth - truth| / truth."""
    depth, truth, answered, _ = _prepared(depth, truth, mask)
    return mean_over((depth - truth).abs() / truth, answered)


def mae(
    depth: Float[Tensor, "*b h w"], truth: Float[Tensor, "*b h w"], mask: Bool[Tensor, "*b h w"]
) -> Float[Tensor, "*b"]:
    """Mean of |depth - truth|, in metres."""
    depth, truth, answered, _ = _prepared(depth, truth, mask)
    return mean_over((depth - truth).abs(), answered)


def rmse(
    depth: Float[Tensor, "*b h w"], truth: Float[Tensor, "*b h w"], mask: Bool[Tensor, "*b h w"]
) -> Float[Tensor, "*b"]:
    """Root of the mean squared difference, in metres."""
    depth, truth, answered, _ = _prepared(depth, truth, mask)
    return mean_over((depth - truth).square(), answered).sqrt()


def delta(
    depth: Float[Tensor, "*b h w"],
    truth: Float[Tensor, "*b h w"],
    mask: Bool[Tensor, "*b h w"],
    *,
    power: int = 1,
) -> Float[Tensor, "*b"]:
    """The share (0..1) of pixels with max(depth / truth, truth / depth) < 1.25 to that power."""
    depth, truth, answered, measured = _prepared(depth, truth, mask)
    close = torch.maximum(depth / truth, truth / depth) < 1.25**power
    return mean_over((close & answered).double(), measured)


def _prepared(depth: Tensor, truth: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    measured = mask & truth.isfinite() & (truth > 0)
    answered = measured & depth.isfinite() & (depth > 0)
    ones = torch.ones((), dtype=torch.float64, device=truth.device)
    return (
        torch.where(answered, depth.double(), ones),
        torch.where(measured, truth.double(), ones),
        answered,
        measured,
    )
