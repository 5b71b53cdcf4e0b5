"""Learnt upsampling against loops over pixels; nearest upsampling and its gradient."""

from __future__ import annotations

import pytest
import torch

from stereopsis.layers.upsampling import convex_upsample, doubled, superpixel_upsample


def _neighbour(field: torch.Tensor, n: int, y: int, x: int) -> torch.Tensor:
    height, width = field.shape[-2:]
    yn, xn = y + n // 3 - 1, x + n % 3 - 1
    if 0 <= yn < height and 0 <= xn < width:
        return field[:, :, yn, xn]
    return torch.zeros_like(field[:, :, 0, 0])


def test_convex_upsampling_is_a_softmax_mean_of_neighbours() -> None:
    generator = torch.Generator().manual_seed(0)
    factor, height, width = 2, 3, 4
    field = torch.randn(2, 2, height, width, generator=generator)
    logits = torch.randn(2, 9 * factor**2, height, width, generator=generator)
    expected = torch.zeros(2, 2, factor * height, factor * width)
    weights = logits.view(2, 9, factor, factor, height, width).softmax(1)
    for y in range(factor * height):
        for x in range(factor * width):
            cy, cx = y // factor, x // factor
            for n in range(9):
                w = weights[:, n, y % factor, x % factor, cy, cx]
                expected[:, :, y, x] += w[:, None] * _neighbour(field, n, cy, cx)
    torch.testing.assert_close(convex_upsample(field, logits, factor), expected)


def test_superpixel_upsampling_weighs_the_neighbours_of_the_own_cell() -> None:
    generator = torch.Generator().manual_seed(1)
    field = torch.randn(2, 1, 3, 4, generator=generator)
    weights = torch.randn(2, 9, 12, 16, generator=generator).softmax(1)
    expected = torch.zeros(2, 1, 12, 16)
    for y in range(12):
        for x in range(16):
            for n in range(9):
                expected[:, :, y, x] += weights[:, n, y, x, None] * _neighbour(field, n, y // 4, x // 4)
    torch.testing.assert_close(superpixel_upsample(field, weights), expected)


def test_superpixel_weights_of_a_wrong_size_are_refused() -> None:
    with pytest.raises(ValueError, match="whole multiple"):
        superpixel_upsample(torch.zeros(1, 1, 3, 4), torch.zeros(1, 9, 12, 15))


def test_upsampling_stays_in_float32_under_autocast() -> None:
    field = torch.full((1, 1, 4, 4), 200.5)
    with torch.autocast("cpu", torch.bfloat16):
        fine = convex_upsample(field, torch.zeros(1, 36, 4, 4), 2)
    assert fine.dtype == torch.float32
    assert torch.equal(fine[..., 2:-2, 2:-2], torch.full((1, 1, 4, 4), 200.5))


@pytest.mark.parametrize("learning", [False, True])
def test_doubled_repeats_every_value_four_times(*, learning: bool) -> None:
    coarse = torch.arange(12.0).reshape(1, 2, 2, 3).requires_grad_(learning)
    fine = doubled(coarse)
    assert fine.shape == (1, 2, 4, 6)
    for y in range(4):
        for x in range(6):
            torch.testing.assert_close(fine[..., y, x], coarse[..., y // 2, x // 2])
    if learning:
        fine.sum().backward()
        torch.testing.assert_close(coarse.grad, torch.full((1, 2, 2, 3), 4.0))
