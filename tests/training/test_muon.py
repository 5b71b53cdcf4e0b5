"""Muon's steps: orthogonal for matrices, AdamW's for the rest."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from stereopsis.training.config import OptimizerSettings
from stereopsis.training.muon import Muon, orthogonalise
from stereopsis.training.schedule import build_optimizer


@pytest.mark.parametrize("shape", [(24, 90), (90, 24)])
def test_singular_values_come_near_one_and_singular_vectors_stay(shape: tuple[int, int]) -> None:
    matrix = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    result = orthogonalise(matrix)
    values = torch.linalg.svdvals(result)
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    rotated = u.mT @ result @ v.mT
    off_diagonal = rotated - torch.diag_embed(rotated.diagonal(dim1=-2, dim2=-1))
    assert float(off_diagonal.abs().max()) < 0.05


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 1, 3))


def _train(network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, steps: int) -> float:
    loss = torch.tensor(0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (network(images) - images.mean(1, keepdim=True)[..., 2:-2, 2:-2]).square().mean()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def test_a_matrix_steps_by_a_fifth_of_the_rate_and_a_bias_as_under_adamw() -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    network, other = _network(), _network()
    settings = OptimizerSettings(name="muon", lr=1e-3, momentum=0.95)
    _train(network, build_optimizer(network, settings), images, 1)
    _train(other, build_optimizer(other, OptimizerSettings(name="adamw", lr=1e-3)), images, 1)
    before, now = dict(_network().named_parameters()), dict(network.named_parameters())
    step = (now["0.weight"] - before["0.weight"]).square().mean().sqrt()
    assert float(step.detach()) == pytest.approx(0.2e-3, rel=0.2)
    for name in ("0.bias", "1.weight", "3.weight", "3.bias"):
        torch.testing.assert_close(now[name], dict(other.named_parameters())[name])


def test_it_learns_and_goes_on_from_its_state_as_if_undisturbed() -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    network = _network()
    optimizer = build_optimizer(network, OptimizerSettings(name="muon", lr=1e-2, momentum=0.95))
    first = _train(network, optimizer, images, 1)
    _train(network, optimizer, images, 20)
    resumed = _network()
    resumed.load_state_dict(network.state_dict())
    successor = build_optimizer(resumed, OptimizerSettings(name="muon", lr=1e-2, momentum=0.95))
    assert isinstance(successor, Muon)
    successor.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    undisturbed = _train(network, optimizer, images, 20)
    assert _train(resumed, successor, images, 20) == undisturbed
    assert undisturbed < first / 10
