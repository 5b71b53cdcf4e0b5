"""Row correlations and their lookups against loops over pixels, levels and steps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stereopsis.layers import correlation
from stereopsis.layers.correlation import RowCorrelation, pooled_levels


def _sample(row: Tensor, position: float) -> Tensor:
    """Linear interpolation at a position of a row, zero outside."""
    left = int(torch.tensor(position).floor())
    fraction = position - left
    value = torch.zeros(())
    for index, weight in ((left, 1 - fraction), (left + 1, fraction)):
        if 0 <= index < len(row):
            value = value + weight * row[index]
    return value


def _naive(left: Tensor, right: Tensor, position: Tensor, levels: int, radius: int, scale: float) -> Tensor:
    batch, _, height, width = left.shape
    out = torch.zeros(batch, levels * (2 * radius + 1), height, width)
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                row = scale * (left[b, :, y, x, None] * right[b, :, y]).sum(0)
                for level in range(levels):
                    for k in range(-radius, radius + 1):
                        channel = level * (2 * radius + 1) + k + radius
                        at = float(position[b, y, x]) / 2**level + k
                        out[b, channel, y, x] = _sample(row, at)
                    row = row[: len(row) // 2 * 2].view(-1, 2).mean(1)
    return out


def _case() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(2, 5, 3, 11, generator=generator)
    right = torch.randn(2, 5, 3, 11, generator=generator)
    position = torch.empty(2, 3, 11).uniform_(-9, 20, generator=generator)
    position[0, 0, :3] = torch.tensor([-0.5, 0.0, 10.0])
    return left, right, position


@pytest.mark.parametrize("storage", ["stored", "recomputed"])
def test_lookup_interpolates_every_level_and_is_zero_outside(storage: correlation.Storage) -> None:
    left, right, position = _case()
    lookup = RowCorrelation(left, right, levels=3, radius=2, scale=0.5, storage=storage)
    expected = _naive(left, right, position, levels=3, radius=2, scale=0.5)
    torch.testing.assert_close(lookup(position), expected, rtol=1e-4, atol=1e-5)


def test_recomputed_lookups_in_blocks_give_the_stored_values_and_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(correlation, "_BLOCK_BYTES", 1)  # a row a block
    results, gradients = [], []
    for storage in ("stored", "recomputed"):
        left, right, position = _case()
        left.requires_grad_()
        right.requires_grad_()
        out = RowCorrelation(left, right, levels=2, radius=2, storage=storage)(position)
        out.square().sum().backward()
        results.append(out.detach())
        gradients.append((left.grad, right.grad))
    torch.testing.assert_close(results[0], results[1])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_correlations_are_float32_under_autocast() -> None:
    left, right, position = _case()
    exact = RowCorrelation(left, right, levels=2, radius=2)(position)
    for storage in ("stored", "recomputed"):
        with torch.autocast("cpu", torch.bfloat16):
            lookup = RowCorrelation(left, right, levels=2, radius=2, storage=storage)
            assert torch.equal(lookup(position), exact)


def test_positions_far_outside_read_zeros() -> None:
    left, right, position = _case()
    lookup = RowCorrelation(left, right, levels=2, radius=2)
    assert not lookup(torch.full_like(position, -1e9)).any()
    assert not lookup(torch.full_like(position, 1e9)).any()


def test_pooled_levels_drop_odd_last_columns() -> None:
    row = torch.arange(7.0).view(1, 1, 1, 7)
    expected = torch.tensor([0.0, 1, 2, 3, 4, 5, 6, 0.5, 2.5, 4.5, 1.5])
    assert torch.equal(pooled_levels(row, 3).flatten(), expected)


def test_more_levels_than_the_width_allows_are_refused() -> None:
    features = torch.zeros(1, 2, 3, 7)
    with pytest.raises(ValueError, match="4 levels needs a width of 8, not 7"):
        RowCorrelation(features, features, levels=4, radius=1)
