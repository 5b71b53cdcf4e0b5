"""Confidence from each kind of output, at the values that define the measures."""

from __future__ import annotations

import math

import pytest
import torch

from stereopsis.confidence import (
    agreement,
    box_mean,
    confidence_of,
    convergence,
    deviation,
    entropy,
    from_pixels,
    mixture_spread,
    peak_ratio,
    photometric_error,
    unimodality,
)
from stereopsis.structures import IterativeOutput, MixtureOutput, StereoOutput, VolumeOutput


def test_pixels_become_confidence() -> None:
    error = torch.tensor([[0.0, 1.0, 3.0, math.inf, math.nan]])
    assert from_pixels(error).tolist() == [[1.0, 0.5, 0.25, 0.0, 0.0]]


def test_entropy_is_one_for_a_peak_and_zero_for_a_flat_distribution() -> None:
    peak = torch.zeros(1, 8, 2, 3)
    peak[:, 3] = 1
    assert entropy(peak).tolist() == [[[1.0] * 3] * 2]
    torch.testing.assert_close(entropy(torch.full((8, 2, 3), 1 / 8)), torch.zeros(2, 3), atol=1e-6, rtol=0)
    half = torch.tensor([0.5, 0.5, 0.0, 0.0]).reshape(4, 1, 1)
    torch.testing.assert_close(entropy(half), torch.tensor([[0.5]]))


def test_agreement_is_zero_outside_the_other_image() -> None:
    left = torch.full((1, 8), 2.0)
    assert agreement(left, torch.full((1, 8), 3.0)).tolist() == [[0.0, 0.0] + [0.5] * 6]


def test_mixture_spread_is_that_of_samples() -> None:
    pi, mu, b = torch.tensor([[0.3]]), torch.tensor([[[10.0]], [[14.0]]]), torch.tensor([[[0.5]], [[1.0]]])
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(200_000, generator=generator, dtype=torch.float64) - 0.5
    laplace = -uniform.sign() * torch.log1p(-2 * uniform.abs())
    first = torch.rand(200_000, generator=generator, dtype=torch.float64) < 0.3
    sigma = torch.where(first, 10 + 0.5 * laplace, 14 + laplace).std()
    assert float(mixture_spread(pi, mu, b)) == pytest.approx(float(1 / (1 + sigma)), rel=0.01)
    assert float(mixture_spread(torch.ones(1, 1), mu[:1], b[:1])) == pytest.approx(1 / (1 + 0.5 * 2**0.5))


def test_convergence_is_of_the_last_change() -> None:
    steps = [torch.full((1, 2), value) for value in (9.0, 2.0, 3.0)]
    assert convergence(steps).tolist() == [[0.5, 0.5]]
    with pytest.raises(ValueError, match="at least 2 iterates"):
        convergence(steps[:1])


def test_confidence_of_takes_what_the_kind_knows() -> None:
    disparity = torch.full((1, 4, 8), 2.0)
    own = torch.full((1, 4, 8), 0.7)
    assert confidence_of(StereoOutput(disparity)) is None
    assert torch.equal(confidence_of(StereoOutput(disparity, own)), own)
    assert confidence_of(StereoOutput(disparity, right_disparity=disparity))[0, 0, 2:].tolist() == [1.0] * 6
    flat = torch.full((1, 5, 2, 4), 0.2)
    volume = confidence_of(VolumeOutput(disparity, probabilities=flat, levels=torch.arange(5.0)))
    torch.testing.assert_close(volume, torch.zeros(1, 4, 8), atol=1e-6, rtol=0)
    assert confidence_of(IterativeOutput(disparity, iterates=(disparity,))) is None
    moved = IterativeOutput(disparity, iterates=(disparity,), initial=disparity + 3)
    assert confidence_of(moved).unique().tolist() == [0.25]
    mixture = MixtureOutput(disparity, pi=own, mu=disparity[:, None], b=torch.zeros(1, 1, 4, 8))
    assert confidence_of(mixture).unique().tolist() == [1.0]


def test_peaks_and_modes_by_hand() -> None:
    p = torch.tensor([0.0, 0.1, 0.4, 0.1, 0.0, 0.1, 0.3, 0.0]).reshape(8, 1, 1)
    assert float(peak_ratio(p)) == pytest.approx(1 - 0.3 / 0.4)
    assert float(unimodality(p, reach=2)) == pytest.approx(0.6)
    one = torch.tensor([0.0, 0.2, 0.6, 0.2, 0.0, 0.0, 0.0, 0.0]).reshape(8, 1, 1)
    assert float(peak_ratio(one)) == 1.0
    assert float(unimodality(one)) == pytest.approx(1.0)


def test_box_means_are_cut_off_at_the_borders() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(2, 5, 7, generator=generator)
    means = box_mean(values, 3)
    for y, x in ((0, 0), (2, 3), (4, 6), (0, 5)):
        part = values[:, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        torch.testing.assert_close(means[:, y, x], part.mean((-2, -1)))


def test_the_photometric_error_is_least_at_the_true_disparity_in_either_view() -> None:
    generator = torch.Generator().manual_seed(0)
    texture = torch.rand(3, 30, 60, generator=generator) * 0.6
    left, right = texture[..., :50], texture[..., 4:54] + 0.2  # disparity 4, other exposure
    for view in ("left", "right"):
        inner = (slice(8, -8), slice(16, -16))
        errors = [
            photometric_error(left, right, torch.full((30, 50), value), view=view)[inner]
            for value in (4.0, 6.0)
        ]
        assert float(errors[0].max()) < 0.02
        assert float(errors[1].min()) > 0.03
    beside = photometric_error(left, right, torch.full((30, 50), 4.0))
    assert beside[0, :4].tolist() == [math.inf] * 4


def test_deviation_is_that_of_the_laplacian_errors() -> None:
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(400_000, generator=generator, dtype=torch.float64) - 0.5
    errors = -0.7 * uniform.sign() * torch.log1p(-2 * uniform.abs())
    share = (errors.abs() <= 1).double().mean().reshape(1, 1)
    assert float(deviation(share)) == pytest.approx(float(errors.std()), rel=0.01)
    assert deviation(torch.tensor([[0.0, 1.0]])).tolist() == [[math.inf, 0.0]]
