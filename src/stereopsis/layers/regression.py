"""Disparity and its uncertainty from scores or probabilities over levels."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def expected_disparity(
    probabilities: Float[Tensor, "b d h w"], levels: Float[Tensor, " d"]
) -> Float[Tensor, "b h w"]:
    """The mean disparity: `sum_d levels[d] * probabilities[d]`."""
    return (probabilities * levels[:, None, None]).sum(1)


def soft_argmax(scores: Float[Tensor, "b d h w"], levels: Float[Tensor, " d"]) -> Float[Tensor, "b h w"]:
    """The mean disparity under `softmax(scores)`; for costs, where less is better, give their negative."""
    return expected_disparity(scores.softmax(1), levels)


def top_k_regression(
    scores: Float[Tensor, "b d h w"], levels: Float[Tensor, " d"], *, k: int
) -> Float[Tensor, "b h w"]:
    """The mean disparity under the softmax of the k highest scores alone (CoEx, arXiv 2108.05773)."""
    best, index = scores.topk(k, dim=1)
    return (best.softmax(1) * levels[index]).sum(1)


def entropy(probabilities: Float[Tensor, "b d h w"], *, epsilon: float = 1e-12) -> Float[Tensor, "b h w"]:
    """`-sum_d q ln q` in nats, with `q = p + epsilon`: 0 for one certain level, ln d for equal ones."""
    shifted = probabilities + epsilon
    return -(shifted * torch.log(shifted)).sum(1)


def upsampled_soft_argmax(
    scores: Float[Tensor, "b d h w"],
    levels: Float[Tensor, " n"],
    size: tuple[int, int],
    *,
    align_corners: bool = False,
) -> Float[Tensor, "b hu wu"]:
    """The mean disparity under the softmax of scores interpolated linearly to n levels and to `size`.

    Equal to a trilinear `interpolate`, `softmax` and `expected_disparity`, without ever holding the
    volume of full resolution: see `upsampled_distribution`.
    """
    slabs = upsampled_distribution(scores, len(levels), size, align_corners=align_corners)
    return torch.cat([torch.matmul(probabilities, levels) for probabilities in slabs], 1)


def upsampled_distribution(
    scores: Float[Tensor, "b d h w"], levels: int, size: tuple[int, int], *, align_corners: bool = False
) -> Iterator[Float[Tensor, "b rows wu n"]]:
    """Slabs of rows, top to bottom, of `softmax(interpolate(scores, (levels, *size)))`; levels innermost.

    A slab holds few enough rows to stay in a CPU's cache. Rows are interpolated first, then levels, as
    a product with the matrix of their weights, then columns.
    """
    with torch.autocast(scores.device.type, enabled=False):
        coarse = (scores if scores.dtype == torch.float64 else scores.float()).permute(0, 2, 3, 1)
        height, width = size
        between_levels = _interpolation(coarse.shape[-1], levels, align_corners, like=coarse)
        upper, lower, weight = _neighbours(coarse.shape[1], height, align_corners, like=coarse)
        rows = _slab_rows(coarse.shape[0] * width * levels, height, scores.device)
        for start in range(0, height, rows):
            part = slice(start, start + rows)
            slab = torch.lerp(coarse[:, upper[part]], coarse[:, lower[part]], weight[part, None, None])
            if levels != slab.shape[-1]:
                slab = torch.matmul(slab, between_levels)
            columns = slab.permute(0, 3, 1, 2)
            columns = F.interpolate(
                columns, (slab.shape[1], width), mode="bilinear", align_corners=align_corners
            )
            yield columns.permute(0, 2, 3, 1).softmax(-1)


def _slab_rows(row: int, height: int, device: torch.device) -> int:
    """How many rows, of `row` numbers each, to hold at once: 2 MiB on a CPU, 256 MiB elsewhere."""
    if torch.compiler.is_compiling():
        return height
    return max(1, (2**19 if device.type == "cpu" else 2**26) // row)


def _neighbours(
    coarse: int, fine: int, align_corners: bool, *, like: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """For each fine position the two coarse ones that it lies between, and the weight of the second."""
    index = torch.arange(fine, device=like.device, dtype=like.dtype)
    if align_corners:
        position = index * ((coarse - 1) / max(fine - 1, 1))
    else:
        position = ((index + 0.5) * (coarse / fine) - 0.5).clamp(min=0)
    first = position.long().clamp(max=coarse - 1)
    return first, (first + 1).clamp(max=coarse - 1), position - first


def _interpolation(coarse: int, fine: int, align_corners: bool, *, like: Tensor) -> Tensor:
    """The matrix [coarse fine] of linear interpolation along one axis."""
    identity = torch.eye(coarse, dtype=like.dtype, device=like.device)[None]
    return F.interpolate(identity, fine, mode="linear", align_corners=align_corners)[0]


def shares_of_levels(
    disparity: Float[Tensor, "b h w"],
    weight: Float[Tensor, "b h w"],
    levels: Float[Tensor, " d"],
    shape: torch.Size,
) -> Float[Tensor, "b d hc wc"]:
    """The share of each evenly spaced level in every cell's pixels; 0 in cells without any that count.

    Each pixel splits its weight, 0 where it does not count, between the two nearest levels; disparities
    beyond the last level count as the last. shape: of the result; the disparity's size must be a whole
    multiple of it.
    """
    batch, count, rows, columns = shape
    step = levels[1] - levels[0]
    position = ((torch.where(weight > 0, disparity, 0.0) - levels[0]) / step).clamp(0, count - 1)
    below = position.floor().clamp(max=count - 2)
    share = position - below
    height, width = disparity.shape[-2:]
    row = torch.arange(height, device=disparity.device) // (height // rows)
    column = torch.arange(width, device=disparity.device) // (width // columns)
    picture = torch.arange(batch, device=disparity.device)[:, None, None]
    cell = (picture * count * rows + row[:, None]) * columns + column
    index = cell + below.long() * (rows * columns)
    mass = torch.zeros(batch * count * rows * columns, device=disparity.device)
    mass.scatter_add_(0, index.flatten(), ((1 - share) * weight).flatten())
    mass.scatter_add_(0, (index + rows * columns).flatten(), (share * weight).flatten())
    mass = mass.reshape(shape)
    return mass / mass.sum(1, keepdim=True).clamp(min=1e-6)
