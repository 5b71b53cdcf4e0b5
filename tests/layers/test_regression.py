from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from stereopsis.layers.regression import (
    entropy,
    expected_disparity,
    shares_of_levels,
    soft_argmax,
    top_k_regression,
    upsampled_distribution,
    upsampled_soft_argmax,
)

LEVELS = torch.tensor([0.0, 4.0, 8.0, 16.0])


def test_expectation_weights_each_level_by_its_probability():
    probabilities = torch.tensor([0.25, 0.25, 0.5, 0.0]).view(1, 4, 1, 1).expand(2, 4, 3, 5)
    assert torch.equal(expected_disparity(probabilities, LEVELS), torch.full((2, 3, 5), 5.0))


def test_soft_argmax_is_a_loop_over_pixels():
    scores = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    ours = soft_argmax(scores, LEVELS)
    for b in range(2):
        for y in range(3):
            for x in range(5):
                weights = [math.exp(s) for s in scores[b, :, y, x].tolist()]
                mean = sum(w * d for w, d in zip(weights, LEVELS.tolist(), strict=True)) / sum(weights)
                assert abs(ours[b, y, x].item() - mean) < 1e-5


def test_top_k_keeps_only_the_k_best():
    scores = torch.tensor([3.0, -50.0, 3.0, 2.9]).view(1, 4, 1, 1)
    assert top_k_regression(scores, LEVELS, k=2).item() == 4.0
    assert top_k_regression(scores, LEVELS, k=1).item() in (0.0, 8.0)
    torch.testing.assert_close(top_k_regression(scores, LEVELS, k=4), soft_argmax(scores, LEVELS))


def test_entropy_runs_from_certainty_to_the_uniform():
    certain = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 4, 1, 1)
    uniform = torch.full((1, 4, 1, 1), 0.25)
    assert abs(entropy(certain).item()) < 1e-6
    assert abs(entropy(uniform).item() - math.log(4)) < 1e-6


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("shape", "levels", "size"), [((2, 4, 3, 5), 16, (12, 20)), ((1, 6, 4, 3), 6, (7, 9))]
)
def test_reading_in_slabs_is_interpolation_softmax_and_mean(shape, levels, size, align_corners):
    scores = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scores.requires_grad_()
    disparities = torch.arange(levels, dtype=torch.float64)
    whole = F.interpolate(scores[:, None], (levels, *size), mode="trilinear", align_corners=align_corners)
    expected = expected_disparity(whole[:, 0].softmax(1), disparities)
    ours = upsampled_soft_argmax(scores, disparities, size, align_corners=align_corners)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
    (theirs,) = torch.autograd.grad(expected.square().sum(), scores)
    torch.testing.assert_close(torch.autograd.grad(ours.square().sum(), scores)[0], theirs)


def test_a_slab_is_a_few_rows_of_a_large_distribution():
    slabs = upsampled_distribution(torch.zeros(1, 48, 60, 80), 192, (240, 320))
    first = next(slabs)
    assert first.shape == (1, 8, 320, 192)
    torch.testing.assert_close(first, torch.full_like(first, 1 / 192))
    assert 8 + sum(slab.shape[1] for slab in slabs) == 240


def test_a_cell_is_spread_over_the_nearest_levels_of_its_valid_pixels() -> None:
    truth = torch.tensor([[[0.0, 12.0, 99.0, 8.0], [4.0, 0.0, 8.0, 8.0]]])
    mask = torch.tensor([[[True, True, True, False], [True, False, True, False]]])
    shares = shares_of_levels(truth, mask.float(), torch.arange(3) * 8.0, torch.Size([1, 3, 1, 2]))
    first = torch.tensor([1 + 0 + 0.5, 0.5 + 0.5, 0.5]) / 3
    second = torch.tensor([0.0, 1.0, 1.0]) / 2
    torch.testing.assert_close(shares[0, :, 0].T, torch.stack([first, second]))
    nothing = shares_of_levels(truth, mask * 0.0, torch.arange(3) * 8.0, torch.Size([1, 3, 1, 2]))
    assert float(nothing.abs().max()) == 0
