from __future__ import annotations

import math

import pytest
import torch

from stereopsis.layers.mixture import (
    differential_entropy,
    first_is_mode,
    laplacian,
    negative_log_likelihood,
)
from stereopsis.structures import Mixture


def random(*shape: int, low: float, high: float, seed: int = 0) -> torch.Tensor:
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return low + (high - low) * values


def test_the_laplacian_integrates_to_one():
    x = torch.linspace(-40, 40, 200_001, dtype=torch.float64)
    density = laplacian(x, x.new_tensor(1.5), x.new_tensor(2.0))
    assert abs(torch.trapezoid(density, x).item() - 1) < 1e-5


def test_the_mode_is_the_component_with_the_higher_peak():
    pi = torch.tensor([0.9, 0.9, 0.2])
    b = torch.tensor([[1.0, 1.0], [20.0, 1.0], [0.1, 1.0]])
    assert first_is_mode(pi, b).tolist() == [True, False, True]


def test_likelihood_of_two_components_is_the_logarithm_of_their_weighted_densities():
    mu, b = random(50, 2, low=1, high=60), random(50, 2, low=0.7, high=9, seed=1)
    pi, labels = random(50, low=0.05, high=0.95, seed=2), random(50, low=1, high=60, seed=3)
    mixture = Mixture(disparity=mu[:, 0], mu=mu, pi=pi, b=b)
    for label, loss, w, m, s in zip(
        labels, negative_log_likelihood(mixture, labels, unit=64), pi, mu / 64, b / 64, strict=True
    ):
        y = label.item() / 64
        density = sum(
            weight * math.exp(-abs(y - m[k].item()) / s[k].item()) / (2 * s[k].item())
            for k, weight in enumerate((w.item(), 1 - w.item()))
        )
        assert abs(loss.item() + math.log(density)) < 1e-9


def test_one_component_and_none_leave_out_what_the_release_leaves_out():
    mu, b = torch.tensor([[8.0]]), torch.tensor([[2.0]])
    labels = torch.tensor([12.0])
    unimodal = negative_log_likelihood(Mixture(disparity=mu[:, 0], mu=mu, b=b), labels, unit=64)
    assert abs(unimodal.item() - (4 / 2 + math.log(2 / 64))) < 1e-6
    standard = negative_log_likelihood(Mixture(disparity=mu[:, 0], mu=mu), labels, unit=64)
    assert standard.item() == 4 / 64


def test_labels_of_zero_and_beyond_the_unit_do_not_count():
    mixture = Mixture(disparity=torch.ones(4), mu=torch.ones(4, 1))
    labels = torch.tensor([0.0, 64.0, 64.1, -1.0])
    assert len(negative_log_likelihood(mixture, labels, unit=64)) == 1


def test_the_likelihood_of_an_impossible_label_stays_finite():
    mu = torch.tensor([[1.0, 2.0]])
    mixture = Mixture(disparity=mu[:, 0], mu=mu, pi=torch.tensor([1.0]), b=torch.full((1, 2), 0.01))
    loss = negative_log_likelihood(mixture, torch.tensor([64.0]), unit=64)
    assert bool(torch.isfinite(loss).all())


def test_entropy_of_a_narrow_mixture_is_that_of_its_components():
    """Far apart and equal: 1 + ln(2 b) of one Laplacian, plus ln 2 for the choice."""
    pi = torch.full((1,), 0.5, dtype=torch.float64)
    mu = torch.tensor([[0.1, 0.9]], dtype=torch.float64)
    b = torch.full((1, 2), 0.02, dtype=torch.float64)
    expected = 1 + math.log(2 * 0.02) + math.log(2)
    assert differential_entropy(pi, mu, b).item() == pytest.approx(expected, abs=2e-3)
    assert differential_entropy(pi, mu, 2 * b).item() > expected
