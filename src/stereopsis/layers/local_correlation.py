"""Correlation of features with a few neighbours of where a field points, in groups of channels; float32."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def pixel_positions(like: Float[Tensor, "b c h w"]) -> Float[Tensor, "2 h w"]:
    """x and y of every pixel."""
    height, width = like.shape[-2:]
    rows = torch.arange(height, device=like.device, dtype=torch.float32)
    columns = torch.arange(width, device=like.device, dtype=torch.float32)
    return torch.stack([columns.expand(height, -1), rows[:, None].expand(-1, width)])


def window_steps(rows: int, columns: int, *, device: torch.device) -> Float[Tensor, "k 2"]:
    """(x, y) steps of a window of odd sides around its centre, row-major."""
    y = torch.arange(rows, device=device, dtype=torch.float32) - rows // 2
    x = torch.arange(columns, device=device, dtype=torch.float32) - columns // 2
    return torch.stack([x.repeat(rows), y.repeat_interleave(columns)], 1)


def sample(
    features: Float[Tensor, "b c h w"], positions: Float[Tensor, "b 2 ho wo"]
) -> Float[Tensor, "b c ho wo"]:
    """Features at (x, y) in pixels, bilinear, zero outside.

    Sampled in float32, since half precision's positions are pixels apart.
    """
    height, width = features.shape[-2:]
    scale = positions.new_tensor([2 / max(width - 1, 1), 2 / max(height - 1, 1)])
    grid = positions.permute(0, 2, 3, 1) * scale - 1
    sampled = F.grid_sample(features.float(), grid.float(), mode="bilinear", align_corners=True)
    return sampled.to(features.dtype)


def sampled_correlation(
    left: Float[Tensor, "b c h w"],
    right: Float[Tensor, "b c h w"],
    positions: Float[Tensor, "b 2 k h w"],
    *,
    groups: int = 1,
) -> Float[Tensor, "b taps h w"]:
    """Mean over each group's channels of left features times right ones at `k` positions of each pixel."""
    sampled = sample(right.float(), positions.flatten(2, 3)).unflatten(2, (-1, left.shape[-2]))
    products = left.float()[:, :, None] * sampled
    return products.unflatten(1, (groups, -1)).mean(2).flatten(1, 2)


def windowed_correlation(
    left: Float[Tensor, "b c h w"],
    right: Float[Tensor, "b c h w"],
    *,
    rows: int,
    columns: int,
    groups: int = 1,
    replicate: bool = False,
) -> Float[Tensor, "b taps h w"]:
    """Mean over each group's channels of left features times right ones in a window, row-major.

    Outside the image right features are zero, or their border's with `replicate`. Slices are as quick as
    one gather of the whole window, and need a fraction of its memory.
    """
    left, right = left.float(), right.float()
    height, width = left.shape[-2:]
    around = (columns // 2, columns // 2, rows // 2, rows // 2)
    padded = F.pad(right, around, mode="replicate") if replicate else F.pad(right, around)
    steps = [(y, x) for y in range(rows) for x in range(columns)]
    taps = [
        (left * padded[..., y : y + height, x : x + width]).unflatten(1, (groups, -1)).mean(2)
        for y, x in steps
    ]
    return torch.stack(taps, 2).flatten(1, 2)
