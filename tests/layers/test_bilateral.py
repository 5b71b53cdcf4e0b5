"""Slicing of bilateral grids against a naive loop."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stereopsis.layers.bilateral import slice_grid


def _naive(grid: Tensor, guide: Tensor) -> Tensor:
    batch, levels, bins, height, width = grid.shape
    rows, columns = guide.shape[-2:]
    out = torch.zeros(batch, levels, rows, columns)
    for b in range(batch):
        for row in range(rows):
            for column in range(columns):
                y = ((2 * row / (rows - 1) - 1 + 1) * height - 1) / 2
                x = ((2 * column / (columns - 1) - 1 + 1) * width - 1) / 2
                z = ((float(guide[b, 0, row, column]) + 1) * bins - 1) / 2
                for k in (math.floor(z), math.floor(z) + 1):
                    for j in (math.floor(y), math.floor(y) + 1):
                        for i in (math.floor(x), math.floor(x) + 1):
                            if 0 <= k < bins and 0 <= j < height and 0 <= i < width:
                                weight = (1 - abs(z - k)) * (1 - abs(y - j)) * (1 - abs(x - i))
                                out[b, :, row, column] += weight * grid[b, :, k, j, i]
    return out


def test_it_is_the_naive_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    grid = torch.randn(2, 3, 4, 3, 5, generator=generator)
    guide = 2.2 * torch.rand(2, 1, 7, 9, generator=generator) - 1.1
    assert float((slice_grid(grid, guide) - _naive(grid, guide)).abs().max()) < 1e-5
