"""How far a disparity is from the truth: one number per image, in pixels or as a share of pixels.

Every function takes `disparity`, `truth` (pixels) and `mask` (which pixels count) of one shape and gives
one float64 number per image. Pixels whose truth is NaN or infinite never count. A pixel is *answered*
where the disparity is finite: errors in pixels (EPE, RMS, quantiles) are over answered pixels, shares
(bad-n, D1) count an unanswered pixel as wrong, and `density` says how many were answered. An empty mask
gives NaN; the published programs of SMD-Nets and PSMNet give 0 there.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def epe(
    disparity: Float[Tensor, "*b h w"], truth: Float[Tensor, "*b h w"], mask: Bool[Tensor, "*b h w"]
) -> Float[Tensor, "*b"]:
    """End-point error: the mean of |disparity - truth| over answered pixels, in pixels."""
    error, answered, _ = _errors(disparity, truth, mask)
    return mean_over(error, answered)


def rms(
    disparity: Float[Tensor, "*b h w"], truth: Float[Tensor, "*b h w"], mask: Bool[Tensor, "*b h w"]
) -> Float[Tensor, "*b"]:
    """Root of the mean squared error over answered pixels, in pixels."""
    error, answered, _ = _errors(disparity, truth, mask)
    return mean_over(error.square(), answered).sqrt()


def bad(
    disparity: Float[Tensor, "*b h w"],
    truth: Float[Tensor, "*b h w"],
    mask: Bool[Tensor, "*b h w"],
    *,
    threshold: float,
) -> Float[Tensor, "*b"]:
    """Bad-n: the share (0..1) of pixels whose error is above `threshold` pixels."""
    error, answered, measured = _errors(disparity, truth, mask)
    return mean_over(((error > threshold) | ~answered).double(), measured)


def d1(
    disparity: Float[Tensor, "*b h w"], truth: Float[Tensor, "*b h w"], mask: Bool[Tensor, "*b h w"]
) -> Float[Tensor, "*b"]:
    """KITTI's outlier rate: the share (0..1) of pixels wrong by more than 3 px and by more than 5 %."""
    error, answered, measured = _errors(disparity, truth, mask)
    outlier = (error > 3) & (error > 0.05 * truth.double().abs())
    return mean_over((outlier | ~answered).double(), measured)


def quantile(
    disparity: Float[Tensor, "*b h w"],
    truth: Float[Tensor, "*b h w"],
    mask: Bool[Tensor, "*b h w"],
    *,
    share: float,
) -> Float[Tensor, "*b"]:
    """A50, A90, ...: the smallest error that at least `share` of the answered pixels do not exceed."""
    error, answered, _ = _errors(disparity, truth, mask)
    images = zip(error.reshape(-1, *error.shape[-2:]), answered.reshape(-1, *error.shape[-2:]), strict=True)
    picked = [_quantile(e[a], share) for e, a in images]
    return torch.stack(picked).reshape(error.shape[:-2])


def _quantile(errors: Tensor, share: float) -> Tensor:
    if errors.numel() == 0:
        return errors.new_tensor(math.nan)
    rank = max(1, math.ceil(share * errors.numel() - 1e-9))
    return errors.kthvalue(rank).values


def density(
    disparity: Float[Tensor, "*b h w"], truth: Float[Tensor, "*b h w"], mask: Bool[Tensor, "*b h w"]
) -> Float[Tensor, "*b"]:
    """The share (0..1) of measured pixels that were answered with a finite disparity."""
    _, answered, measured = _errors(disparity, truth, mask)
    return mean_over(answered.double(), measured)


def measured_pixels(truth: Float[Tensor, "*b h w"], mask: Bool[Tensor, "*b h w"]) -> Bool[Tensor, "*b h w"]:
    """The pixels that count: in the mask, with a finite truth."""
    return mask & truth.isfinite()


def _errors(disparity: Tensor, truth: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(absolute error, 0 where there is none; answered and measured; measured)."""
    measured = measured_pixels(truth, mask)
    answered = measured & disparity.isfinite()
    error = (disparity.double() - truth.double()).abs()
    return torch.where(answered, error, 0.0), answered, measured


def mean_over(values: Tensor, where: Tensor) -> Tensor:
    """Mean over the pixels `where`, NaN where there are none."""
    count = where.sum((-2, -1))
    total = torch.where(where, values, 0.0).sum((-2, -1))
    return torch.where(count > 0, total / count.clamp(min=1), math.nan)
