"""Volumes over disparity from the features of two views: difference, concatenation, correlation.

Level d compares left (x, y) with right (x - d, y); where that lies outside the right image (x < d)
the volume is zero, so levels beyond the width are all zero. Levels count feature pixels.

Two ways of filling, equal in value: in place, level by level (quickest, no second copy of the volume),
and as a stack of padded levels. The stack is taken where gradients are wanted, because autograd copies
the whole gradient once for every in-place write, and in `torch.compile` and export. Filled in place, the
volume keeps the memory format of the features: with channels innermost, 3-D convolutions on CPUs run up
to twice as fast. Correlations are products of matrices, block by block along the rows, of which the band
of wanted disparities is kept; without gradients a few rows at a time, whose products stay in a CPU's cache.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_STRIP = 2**18
"""Products, of all that lie between two columns, that a CPU computes at once: 1 MB."""


def difference_volume(
    left: Float[Tensor, "b c h w"],
    right: Float[Tensor, "b c h w"],
    levels: int,
    *,
    reference: Literal["left", "right"] = "left",
) -> Float[Tensor, "b c {levels} h w"]:
    """Reference minus other, signed: `left[x] - right[x - d]`, or `right[x] - left[x + d]`."""
    if reference == "left":
        return _volume(left, right, levels, torch.sub)
    # The right view's volume is the left one of the mirrored pair.
    return _volume(right.flip(-1), left.flip(-1), levels, torch.sub).flip(-1)


def concatenation_volume(
    left: Float[Tensor, "b c h w"], right: Float[Tensor, "b c h w"], levels: int
) -> Float[Tensor, "b 2*c {levels} h w"]:
    """The features of both side by side, left first; both halves are zero where there is no match."""
    width = left.shape[-1]
    if _by_stacking(left, right):
        pairs = [torch.cat(_matched(left, right, d), 1) for d in range(levels)]
        return torch.stack([F.pad(pair, (width - pair.shape[-1], 0)) for pair in pairs], 2)
    channels = left.shape[1]
    volume = _empty_like(left, 2 * channels, levels)
    for d in range(levels):
        start = min(d, width)
        volume[:, :, d, :, :start] = 0
        volume[:, :channels, d, :, start:] = left[..., start:]
        volume[:, channels:, d, :, start:] = right[..., : width - start]
    return volume


def correlation_volume(
    left: Float[Tensor, "b c h w"], right: Float[Tensor, "b c h w"], levels: int
) -> Float[Tensor, "b {levels} h w"]:
    """The mean over channels of `left[x] * right[x - d]`."""
    return _correlation(left, right, levels).div_(left.shape[1])


def groupwise_correlation_volume(
    left: Float[Tensor, "b c h w"], right: Float[Tensor, "b c h w"], levels: int, *, groups: int
) -> Float[Tensor, "b {groups} {levels} h w"]:
    """The mean of `left[x] * right[x - d]` within each of `groups` equal groups of neighbouring channels."""
    batch, channels, height, width = left.shape
    if channels % groups:
        raise ValueError(f"{channels} channels cannot be split into {groups} equal groups")
    size = channels // groups
    grouped = (batch * groups, size, height, width)
    volume = _correlation(left.reshape(grouped), right.reshape(grouped), levels).div_(size)
    return volume.view(batch, groups, levels, height, width)


def _empty_like(features: Tensor, channels: int, levels: int) -> Tensor:
    """[b channels levels h w], channels innermost in memory where the features have them so."""
    innermost = features.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last_3d if innermost else torch.contiguous_format
    shape = (features.shape[0], channels, levels, *features.shape[-2:])
    return torch.empty(shape, dtype=features.dtype, device=features.device, memory_format=layout)


def _by_stacking(*tensors: Tensor) -> bool:
    wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    return wanted or torch.compiler.is_compiling()


def _matched(left: Tensor, right: Tensor, disparity: int) -> tuple[Tensor, Tensor]:
    """The parts of both images that match at this disparity: columns d.. and ..w - d."""
    width = left.shape[-1]
    start = min(disparity, width)
    return left[..., start:], right[..., : width - start]


def _volume(left: Tensor, right: Tensor, levels: int, operation: Callable[..., Tensor]) -> Tensor:
    """`operation(left[x], right[x - d])` for every level, [b c d h w]."""
    width = left.shape[-1]
    if _by_stacking(left, right):
        matched = [operation(*_matched(left, right, d)) for d in range(levels)]
        return torch.stack([F.pad(level, (width - level.shape[-1], 0)) for level in matched], 2)
    volume = _empty_like(left, left.shape[1], levels)
    for d in range(levels):
        start = min(d, width)
        volume[:, :, d, :, :start] = 0
        operation(*_matched(left, right, d), out=volume[:, :, d, :, start:])
    return volume


def _correlation(left: Tensor, right: Tensor, levels: int) -> Tensor:
    """The sum over channels of `left[x] * right[x - d]`, [b d h w], in float32 at least."""
    with torch.autocast(left.device.type, enabled=False):
        if left.dtype in (torch.float16, torch.bfloat16):
            left, right = left.float(), right.float()
        if torch.compiler.is_compiling():
            products = [torch.mul(*_matched(left, right, d)).sum(1) for d in range(levels)]
            return torch.stack([F.pad(p, (left.shape[-1] - p.shape[-1], 0)) for p in products], 1)
        starts = range(0, left.shape[-1], levels)
        if _by_stacking(left, right):
            return torch.cat([_band(left[..., s : s + levels], right, s, levels) for s in starts], -1)
        volume = left.new_empty(left.shape[0], levels, *left.shape[-2:])
        strips = range(0, left.shape[-2], rows := _strip_rows(left, levels))
        for start, top in itertools.product(starts, strips):
            part, block = slice(top, top + rows), slice(start, start + levels)
            volume[..., part, block] = _band(left[..., part, block], right[..., part, :], start, levels)
        return volume


def _strip_rows(features: Tensor, levels: int) -> int:
    """How many rows of a block to multiply at once; all where memory is far from the arithmetic."""
    if features.device.type != "cpu":
        return features.shape[-2]
    return max(1, _STRIP // (features.shape[0] * min(levels, features.shape[-1]) * 2 * levels))


def _band(block: Tensor, right: Tensor, start: int, levels: int) -> Tensor:
    """Products of left columns start.. (the block) with the right columns that they can match.

    The right columns start - levels + 1 .. start + n - 1 are laid out from last to first, so that in
    the matrix of all products, [n, n + levels - 1], the match of row i at disparity d lies in column
    n - 1 - i + d: the next disparity is one step to the right, and the next row one to the left.
    """
    batch, _, height, n = block.shape
    first = start - levels + 1
    reachable = F.pad(right[..., max(first, 0) : start + n], (max(-first, 0), 0)).flip(-1)
    products = torch.matmul(block.permute(0, 2, 3, 1), reachable.permute(0, 2, 1, 3))
    columns = n + levels - 1
    size = (batch, height, n, levels)
    strides = (height * n * columns, n * columns, columns - 1, 1)
    return products.as_strided(size, strides, n - 1).permute(0, 3, 1, 2)
