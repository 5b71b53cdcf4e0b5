"""The affine map that makes a relative inverse depth a disparity."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_IGNORED_SHARE = 0.2  # the smallest relative values, far or sky, do not take part
_SMALLEST_RELATIVE = 0.01
_RIDGE = 1e-6


@torch.no_grad()
def aligned(relative: Float[Tensor, "b h w"], disparity: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """`scale * relative + offset` by least squares to the disparity, image by image.

    Pixels take part where the disparity is positive and the relative value is above 0.01 and above its
    20 % quantile. A negative scale is the least squares' answer to contradicting maps, and is kept.
    Where no line can be fitted (fewer than two pixels, or all of one relative value) the scale is 0 and
    the offset the mean disparity of these pixels, or 0 without any. Relative values that are not finite
    take no part and become the disparity, or 0 where that is not finite either: the result is finite.
    """
    known = relative.isfinite() & disparity.isfinite()
    x = torch.where(known, relative, 0).double().flatten(1)
    y = torch.where(known, disparity, 0).double().flatten(1)
    used = known.flatten(1) & (y > 0) & (x > _SMALLEST_RELATIVE) & (x > _quantile(relative)[:, None])
    weight = used.double()
    count = weight.sum(1)
    sum_x, sum_y = (weight * x).sum(1), (weight * y).sum(1)
    sum_xx, sum_xy = (weight * x * x).sum(1), (weight * x * y).sum(1)
    determinant = (sum_xx + _RIDGE) * (count + _RIDGE) - sum_x * sum_x
    fits = sum_xx * count - sum_x * sum_x > 1e-12 * sum_xx * count
    determinant = torch.where(fits, determinant, 1)
    scale = ((count + _RIDGE) * sum_xy - sum_x * sum_y) / determinant
    offset = ((sum_xx + _RIDGE) * sum_y - sum_x * sum_xy) / determinant
    scale = torch.where(fits, scale, 0)
    offset = torch.where(fits, offset, sum_y / count.clamp(min=1))
    line = scale[:, None, None] * relative + offset[:, None, None]
    return torch.where(relative.isfinite(), line, disparity.nan_to_num(0, 0, 0)).to(disparity.dtype)


def _quantile(relative: Float[Tensor, "b h w"]) -> Float[Tensor, " b"]:
    """Of the n finite values of an image, the one that floor(n / 5) are smaller than."""
    values = relative.flatten(1)
    finite = values.isfinite()
    ascending = torch.where(finite, values, torch.inf).sort(1).values
    index = (_IGNORED_SHARE * finite.sum(1, keepdim=True).double()).long()
    return ascending.gather(1, index.clamp(max=values.shape[1] - 1))[:, 0]
