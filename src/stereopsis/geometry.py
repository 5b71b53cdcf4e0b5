"""Geometry of a rectified pair: warping, the left-right check, points, and which of them to trust.

Left (x, y) with disparity d matches right (x - d, y); right (x, y) with right disparity d matches left
(x + d, y). Disparities are positive pixels, pixel centres at integers. Metres in the left camera's
frame: x right, y down, z forward.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from stereopsis.structures import Calibration

View = Literal["left", "right"]


def warp(
    image: Float[Tensor, "*b c h w"], disparity: Float[Tensor, "*b h w"], *, view: View = "left"
) -> tuple[Float[Tensor, "*b c h w"], Bool[Tensor, "*b h w"]]:
    """The other view's image as seen from the view that the disparity belongs to, linear between columns.

    With `view="left"` the right image at x - d, with "right" the left image at x + d; differentiable in
    both. The mask is False where that lies outside the image (the image is then its border's colour) or
    the disparity is not finite.
    """
    width = image.shape[-1]
    column = torch.arange(width, device=disparity.device, dtype=disparity.dtype)
    known = torch.isfinite(disparity)
    shift = torch.where(known, disparity, 0.0)
    position = column - shift if view == "left" else column + shift
    valid = known & (position >= 0) & (position <= width - 1)
    position = position.clamp(0, width - 1)
    first = position.detach().floor().clamp(max=max(width - 2, 0))
    weight = (position - first).to(image.dtype)[..., None, :, :]
    index = first.long()[..., None, :, :].expand(image.shape)
    before = image.gather(-1, index)
    after = image.gather(-1, (index + 1).clamp(max=width - 1))
    return before + weight * (after - before), valid


def left_right_error(
    disparity: Float[Tensor, "*b h w"], other: Float[Tensor, "*b h w"], *, view: View = "left"
) -> Float[Tensor, "*b h w"]:
    """Pixels between a disparity and the other view's at its match; infinite where the match is outside."""
    matched, valid = warp(other[..., None, :, :], disparity, view=view)
    error = (disparity - matched[..., 0, :, :]).abs()
    return torch.where(valid & ~error.isnan(), error, math.inf)


def occlusion(
    disparity: Float[Tensor, "*b h w"],
    other: Float[Tensor, "*b h w"],
    *,
    threshold: float = 1.0,
    view: View = "left",
) -> Bool[Tensor, "*b h w"]:
    """Left-right check: True where the two views' disparities differ by more than `threshold` pixels.

    Such pixels are seen by this camera only, lie outside the other image, or are mismatched.
    """
    return left_right_error(disparity, other, view=view) > threshold


def points(disparity: Float[Tensor, "*b h w"], calibration: Calibration) -> Float[Tensor, "*b h w 3"]:
    """Metres (x right, y down, z forward) of every pixel; NaN where depth is infinite or unknown."""
    height, width = disparity.shape[-2:]
    depth = calibration.depth(disparity)
    depth = torch.where(depth.isfinite(), depth, math.nan)
    column = torch.arange(width, device=depth.device, dtype=depth.dtype)
    row = torch.arange(height, device=depth.device, dtype=depth.dtype)[:, None]
    x = (column - calibration.cx) / calibration.focal * depth
    y = (row - calibration.cy) / (calibration.focal_y or calibration.focal) * depth
    return torch.stack([x, y, depth], -1)


def in_range(
    depth: Float[Tensor, "*b h w"], *, near: float = 0.0, far: float = math.inf
) -> Bool[Tensor, "*b h w"]:
    """True where depth is finite and between `near` and `far` metres."""
    return depth.isfinite() & (depth >= near) & (depth <= far)


def depth_edges(
    disparity: Float[Tensor, "*b h w"], *, jump: float = 1.0, ratio: float = 0.05
) -> Bool[Tensor, "*b h w"]:
    """True where flying points come from: disparity varies among the 3 x 3 neighbours by more than `jump`
    pixels and by more than `ratio` of itself.

    The ratio spares near slanted surfaces, the jump spares far ones, where depth is steep by nature.
    """
    planes = disparity.reshape(-1, 1, *disparity.shape[-2:])
    padded = F.pad(planes, (1, 1, 1, 1), mode="replicate")
    largest = F.max_pool2d(padded, 3, 1)
    smallest = -F.max_pool2d(-padded, 3, 1)
    spread = (largest - smallest).reshape(disparity.shape)
    return (spread > jump) & (spread > ratio * disparity.abs())


def normals(
    disparity: Float[Tensor, "*b h w"], calibration: Calibration, *, reach: int = 3, jump: float = 1.0
) -> Float[Tensor, "*b h w 3"]:
    """The unit normal of the surface at every pixel, turned towards the camera; x right, y down, z forward.

    A plane's disparity is affine in the pixel, so the normal is that of the affine map which fits the
    (2 reach + 1)^2 neighbours best, of those that lie within `jump` pixels of disparity of the middle one:
    across a depth edge nothing is mixed. NaN where disparity is unknown, and where such neighbours lie on one
    line or behind the camera.
    """
    known = disparity.isfinite()
    middle = torch.where(known, disparity, 0.0)
    sums = _moments(torch.where(known, disparity, math.nan), reach, jump)
    count, x, y, xx, xy, yy, d, xd, yd = sums
    xx, xy, yy = count * xx - x * x, count * xy - x * y, count * yy - y * y
    xd, yd = count * xd - x * d, count * yd - y * d
    determinant = xx * yy - xy * xy
    across, down = (yy * xd - xy * yd) / determinant, (xx * yd - xy * xd) / determinant
    height, width = disparity.shape[-2:]
    column = torch.arange(width, device=disparity.device, dtype=disparity.dtype) - calibration.cx
    row = torch.arange(height, device=disparity.device, dtype=disparity.dtype)[:, None] - calibration.cy
    here = middle + (d - across * x - down * y) / count + calibration.doffs
    vertical = calibration.focal_y or calibration.focal
    away = torch.stack(
        [calibration.focal * across, vertical * down, here - column * across - row * down], dim=-1
    )
    found = known & (determinant > 0.5) & (here > 0)
    return torch.where(found[..., None], -F.normalize(away, dim=-1), math.nan)


def _moments(disparity: Float[Tensor, "*b h w"], reach: int, jump: float) -> Float[Tensor, "nine *b h w"]:
    """Sums of 1, x, y, xx, xy, yy, d, xd and yd over the neighbours of every pixel that are like it.

    x, y and d are from the pixel's own; a neighbour that is unknown (NaN) is like none.
    """
    height, width = disparity.shape[-2:]
    padded = F.pad(disparity, [reach] * 4, value=math.nan)
    sums = disparity.new_zeros((9, *disparity.shape))
    for y in range(-reach, reach + 1):
        for x in range(-reach, reach + 1):
            top, left = reach + y, reach + x
            rise = padded[..., top : top + height, left : left + width] - disparity
            like = rise.abs() <= jump
            rise = torch.where(like, rise, 0.0)
            for index, factor in enumerate((1, x, y, x * x, x * y, y * y)):
                sums[index].add_(like, alpha=factor)
            for index, factor in enumerate((1, x, y)):
                sums[6 + index].add_(rise, alpha=factor)
    return sums
