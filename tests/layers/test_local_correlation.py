"""Local correlation in loops over pixels and taps."""

from __future__ import annotations

import pytest
import torch

from stereopsis.layers.local_correlation import (
    pixel_positions,
    sample,
    sampled_correlation,
    window_steps,
    windowed_correlation,
)


def _features(seed: int) -> torch.Tensor:
    return torch.randn(1, 4, 5, 6, generator=torch.Generator().manual_seed(seed))


def test_whole_positions_are_the_pixels_and_outside_is_zero() -> None:
    features = _features(0)
    positions = pixel_positions(features)[None]
    assert torch.allclose(sample(features, positions), features, atol=1e-5)
    assert float(sample(features, positions + 10).abs().max()) == 0


def test_positions_between_pixels_are_blended() -> None:
    features = _features(0)
    positions = torch.tensor([1.25, 2.5]).view(1, 2, 1, 1)
    upper = 0.75 * features[0, :, 2, 1] + 0.25 * features[0, :, 2, 2]
    lower = 0.75 * features[0, :, 3, 1] + 0.25 * features[0, :, 3, 2]
    assert torch.allclose(sample(features, positions)[0, :, 0, 0], (upper + lower) / 2, atol=1e-5)


@pytest.mark.parametrize("window", [(1, 5), (3, 3)])
@pytest.mark.parametrize("replicate", [True, False])
def test_windows_are_products_with_neighbours(window: tuple[int, int], replicate: bool) -> None:
    left, right = _features(0), _features(1)
    rows, columns = window
    result = windowed_correlation(
        left, right, rows=rows, columns=columns, groups=2, replicate=replicate
    ).unflatten(1, (2, rows * columns))
    steps = window_steps(rows, columns, device=left.device).int().tolist()
    for tap, (dx, dy) in enumerate(steps):
        for y in range(5):
            for x in range(6):
                inside = 0 <= y + dy < 5 and 0 <= x + dx < 6
                match = right[0, :, min(max(y + dy, 0), 4), min(max(x + dx, 0), 5)]
                products = left[0, :, y, x] * match * (1.0 if inside or replicate else 0.0)
                for group in range(2):
                    expected = products[2 * group : 2 * group + 2].mean()
                    assert torch.allclose(result[0, group, tap, y, x], expected, atol=1e-6)


def test_sampling_at_whole_steps_is_the_window() -> None:
    left, right = _features(0), _features(1)
    steps = window_steps(3, 3, device=left.device)[:, :, None, None]
    positions = (pixel_positions(left) + steps).transpose(0, 1)[None]
    sampled = sampled_correlation(left, right, positions, groups=2)
    assert torch.allclose(sampled, windowed_correlation(left, right, rows=3, columns=3, groups=2), atol=1e-5)


def test_positions_in_wide_maps_stay_exact_with_features_of_half_precision() -> None:
    features = torch.randn(1, 2, 3, 500, generator=torch.Generator().manual_seed(0)).bfloat16()
    positions = pixel_positions(features)[None]
    found = sample(features, positions)
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), features.float(), atol=2e-2)


def test_correlations_of_half_precision_are_summed_in_float32() -> None:
    left, right = (_features(seed).bfloat16() for seed in (0, 1))
    positions = pixel_positions(left)[None, :, None]
    windowed = windowed_correlation(left, right, rows=1, columns=1)
    expected = (left.float() * right.float()).mean(1, keepdim=True)
    assert torch.allclose(windowed, expected, rtol=0, atol=1e-6)
    assert torch.allclose(sampled_correlation(left, right, positions), expected, rtol=0, atol=1e-5)
