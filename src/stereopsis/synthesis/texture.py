"""Tiles as a stack of mip maps, looked up with a footprint so that nothing sparkles.

All tiles lie in one table of colours; a look-up is one weighted sum of eight of its rows a sample,
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
Samples = Float[Tensor, " n"]
Colours = Float[Tensor, "n 3"]


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

    def sample(self, tile: Int32[Tensor, " n"], u: Samples, v: Samples, footprint: Samples) -> Colours:
        """Colours at texel coordinates (u, v) of each sample's tile, filtered over `footprint` texels."""
        finest = len(self.starts) - 1.001
        level = torch.log2(footprint.clamp(min=1e-6)).clamp(0, finest)
        lower = torch.floor(level)
        blend = level - lower
        near = self._taps(tile, u, v, lower.to(torch.int32), 1 - blend)
        far = self._taps(tile, u, v, lower.to(torch.int32) + 1, blend)
        indices = torch.stack(near[0] + far[0], dim=1)
        weights = torch.stack(near[1] + far[1], dim=1)
        return F.embedding_bag(indices, self.table, per_sample_weights=weights, mode="sum")[:, :3]

    def _taps(
        self, tile: Tensor, u: Samples, v: Samples, level: Int32[Tensor, " n"], share: Samples
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Rows and weights of a bilinear look-up in one level of each sample."""
        scale = torch.exp2(-level.to(u.dtype))
        x, y = u * scale - 0.5, v * scale - 0.5
        left, top = torch.floor(x), torch.floor(y)
        fx, fy = x - left, y - top
        bits = self.side.bit_length() - 1
        shift = bits - level
        mask = torch.bitwise_left_shift(torch.ones_like(level), shift) - 1
        x0, y0 = left.to(torch.int32), top.to(torch.int32)
        x1, y1 = (x0 + 1) & mask, (y0 + 1) & mask
        x0, y0 = x0 & mask, y0 & mask
        first = self.starts.index_select(0, level) + torch.bitwise_left_shift(tile, 2 * shift)
        row0 = first + torch.bitwise_left_shift(y0, shift)
        row1 = first + torch.bitwise_left_shift(y1, shift)
        lower, upper = share * fy, share * (1 - fy)
        rows = [row0 + x0, row0 + x1, row1 + x0, row1 + x1]
        weights = [upper * (1 - fx), upper * fx, lower * (1 - fx), lower * fx]
        return rows, weights
