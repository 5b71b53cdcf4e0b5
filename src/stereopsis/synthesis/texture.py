"""Tiles as a stack of mip maps, looked up with a footprint so that nothing sparkles.

All tiles lie in one table of colours; a look-up is two weighted sums of four of its rows a sample,
for every sample and tile at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int32
from torch import Tensor

SIDE = 256


@dataclass(frozen=True)
class Atlas:
    """table: [rows 4] linear colours of all levels of all tiles; starts: first row of each level."""

    table: Float[Tensor, "rows 4"]
    starts: Int32[Tensor, " levels"]
    side: int

    @classmethod
    def of(cls, tiles: Sequence[np.ndarray], device: torch.device) -> Atlas:
        """From tiles [side side 3] of equal side, a power of two, in display values."""
        level = torch.from_numpy(np.stack(tiles)).to(device).square().permute(0, 3, 1, 2)
        side = level.shape[-1]
        rows, starts, start = [], [], 0
        while True:
            flat = level.permute(0, 2, 3, 1).reshape(-1, 3)
            rows.append(F.pad(flat, (0, 1)))
            starts.append(start)
            start += len(flat)
            if level.shape[-1] == 1:
                break
            level = F.avg_pool2d(level, 2)
        return cls(torch.cat(rows), torch.tensor(starts, dtype=torch.int32, device=device), side)

    def sample(
        self,
        tile: Int32[Tensor, "#*s"],
        u: Float[Tensor, "*s"],
        v: Float[Tensor, "*s"],
        footprint: Float[Tensor, "*s"],
    ) -> Float[Tensor, "*s 3"]:
        """Colours at texel coordinates (u, v) of each sample's tile, filtered over `footprint` texels."""
        level = torch.log2(footprint.clamp(min=1e-6)).clamp(0, len(self.starts) - 1.001)
        lower = torch.floor(level)
        blend = level - lower
        levels = torch.stack((lower, lower + 1))
        rows, weights = self._taps(tile, u, v, levels, torch.stack((1 - blend, blend)))
        colours = F.embedding_bag(
            torch.stack(rows, dim=-1).view(-1, 4),
            self.table,
            per_sample_weights=torch.stack(weights, dim=-1).view(-1, 4),
            mode="sum",
        )
        near, far = colours.view(2, *u.shape, 4)
        return (near + far)[..., :3]

    def _taps(
        self, tile: Tensor, u: Tensor, v: Tensor, levels: Float[Tensor, "2 *s"], share: Float[Tensor, "2 *s"]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Rows and weights of a bilinear look-up in two levels of each sample."""
        scale = torch.exp2(-levels)
        x, y = u * scale - 0.5, v * scale - 0.5
        left, top = torch.floor(x), torch.floor(y)
        fx, fy = x - left, y - top
        level = levels.to(torch.int32)
        shift = self.side.bit_length() - 1 - level
        mask = torch.bitwise_left_shift(torch.ones_like(level), shift) - 1
        x0, y0 = left.to(torch.int32), top.to(torch.int32)
        x1, y1 = (x0 + 1) & mask, torch.bitwise_left_shift((y0 + 1) & mask, shift)
        x0, y0 = x0 & mask, torch.bitwise_left_shift(y0 & mask, shift)
        first = self.starts.index_select(0, level.view(-1)).view(level.shape)
        first = first + torch.bitwise_left_shift(tile, 2 * shift)
        row0, row1 = first + y0, first + y1
        lower = share * fy
        upper = share - lower
        right_lower, right_upper = lower * fx, upper * fx
        rows = [row0 + x0, row0 + x1, row1 + x0, row1 + x1]
        return rows, [upper - right_upper, right_upper, lower - right_lower, right_lower]
