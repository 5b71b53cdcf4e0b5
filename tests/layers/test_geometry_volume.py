"""Lookups into volumes against loops over pixels, channels, levels and steps."""

from __future__ import annotations

import torch

from stereopsis.layers.correlation import RowCorrelation, columns
from stereopsis.layers.geometry_volume import CombinedGeometry, GeometryPyramid


def _interpolated(values: torch.Tensor, position: float) -> float:
    below = int(torch.tensor(position).floor())
    total = 0.0
    for index, weight in ((below, below + 1 - position), (below + 1, position - below)):
        if 0 <= index < len(values):
            total += weight * float(values[index])
    return total


def test_geometry_is_interpolated_along_disparity_channel_by_channel() -> None:
    generator = torch.Generator().manual_seed(0)
    volume = torch.randn(2, 3, 9, 2, 4, generator=generator)
    disparity = torch.empty(2, 2, 4).uniform_(-4, 14, generator=generator)
    levels, radius = 2, 2
    expected = torch.zeros(2, levels, 3, 2 * radius + 1, 2, 4)
    for b, y, x in torch.cartesian_prod(torch.arange(2), torch.arange(2), torch.arange(4)).tolist():
        for channel in range(3):
            values = volume[b, channel, :, y, x]
            for level in range(levels):
                for k in range(-radius, radius + 1):
                    position = float(disparity[b, y, x]) / 2**level + k
                    expected[b, level, channel, k + radius, y, x] = _interpolated(values, position)
                values = values[: len(values) // 2 * 2].view(-1, 2).mean(1)
    found = GeometryPyramid(volume, levels=levels, radius=radius)(disparity)
    torch.testing.assert_close(found, expected.flatten(1, 3), rtol=1e-4, atol=1e-5)


def test_combined_lookups_alternate_geometry_and_correlation_by_level() -> None:
    generator = torch.Generator().manual_seed(1)
    volume = torch.randn(1, 2, 8, 3, 6, generator=generator)
    left, right = torch.randn(2, 1, 4, 3, 6, generator=generator)
    disparity = torch.empty(1, 3, 6).uniform_(0, 6, generator=generator)
    found = CombinedGeometry(volume, left, right, levels=2, radius=1)(disparity)
    geometry = GeometryPyramid(volume, levels=2, radius=1)(disparity)
    correlation = RowCorrelation(left, right, levels=2, radius=1)(columns(left) - disparity)
    expected = [geometry[:, :6], correlation[:, :3], geometry[:, 6:], correlation[:, 3:]]
    assert torch.equal(found, torch.cat(expected, 1))
