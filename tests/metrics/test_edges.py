"""Soft edge error and its masks: SMD-Nets' published figures, and loops over pixels."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from stereopsis.metrics import disparity as metrics
from stereopsis.metrics.edges import boundaries, edge_epe, instance_boundaries, see, soft_edge_error


@pytest.fixture(params=["a", "b"])
def published(request: pytest.FixtureRequest, reference: Path) -> dict[str, Tensor]:
    with np.load(reference / "smdnets" / "fixtures" / f"metrics-{request.param}.npz") as stored:
        return {
            key: torch.from_numpy(np.asarray(stored[key]))
            for key in stored.files
            if stored[key].dtype.kind != "U"
        }


def test_published_boundaries(published: dict[str, Tensor]) -> None:
    for dilation in (0, 2, 10):
        ours = boundaries(published["gt"], dilation=dilation)
        assert torch.equal(ours, published[f"boundaries_dilation{dilation}"].bool()), f"dilation {dilation}"
    assert torch.equal(boundaries(published["gt"], threshold=4.0), published["boundaries_th4"].bool())


def test_published_soft_edge_error(published: dict[str, Tensor]) -> None:
    for radius in (1, 2):
        ours = soft_edge_error(published["pred"], published["gt"], radius=radius)
        torch.testing.assert_close(ours, published[f"soft_edge_error_radius{radius}"], rtol=0, atol=0)


def test_published_figures(published: dict[str, Tensor]) -> None:
    maps = published["pred"], published["gt"], published["mask"].bool()
    assert metrics.epe(*maps).item() == pytest.approx(published["epe"].item(), rel=1e-6)
    for threshold in (1.0, 2.0, 3.0):
        ours = 100 * metrics.bad(*maps, threshold=threshold).item()
        assert ours == pytest.approx(published[f"bad{threshold:.0f}"].item(), rel=1e-12)
    for dilation in (0, 2, 10):
        edges = boundaries(published["gt"], dilation=dilation)
        ours = see(*maps, edges=edges).item()
        assert ours == pytest.approx(published[f"see_dilation{dilation}"].item(), rel=1e-6)
    assert see(*maps).item() == see(*maps, edges=boundaries(published["gt"])).item()


def _naive_boundary(truth: Tensor, y: int, x: int, threshold: float) -> bool:
    height, width = truth.shape
    here = float(truth[y, x])
    for ny, nx in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
        if 0 <= ny < height and 0 <= nx < width:
            there = float(truth[ny, nx])
            if math.isfinite(here) and math.isfinite(there) and abs(here - there) > threshold:
                return True
    return False


def _naive_soft_error(disparity: Tensor, truth: Tensor, y: int, x: int) -> float:
    height, width = truth.shape
    best = math.inf
    for ny in range(y - 1, y + 2):
        for nx in range(x - 1, x + 2):
            there = float(truth[ny, nx]) if 0 <= ny < height and 0 <= nx < width else 0.0
            if math.isfinite(there) and math.isfinite(float(disparity[y, x])):
                best = min(best, abs(there - float(disparity[y, x])))
    return best


def _maps(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    truth = (torch.rand(8, 10, generator=generator) * 4).round() * 1.5
    disparity = truth + torch.randn(8, 10, generator=generator)
    truth[torch.rand(8, 10, generator=generator) < 0.15] = math.inf
    truth[torch.rand(8, 10, generator=generator) < 0.05] = math.nan
    disparity[torch.rand(8, 10, generator=generator) < 0.1] = math.nan
    return disparity, truth, torch.rand(8, 10, generator=generator) < 0.8


def test_see_equals_a_loop_over_pixels() -> None:
    for seed in range(10):
        disparity, truth, mask = _maps(seed)
        errors = [
            _naive_soft_error(disparity, truth, y, x)
            for y in range(8)
            for x in range(10)
            if mask[y, x] and math.isfinite(truth[y, x]) and _naive_boundary(truth, y, x, 1.0)
        ]
        finite = [e for e in errors if math.isfinite(e)]
        assert see(disparity, truth, mask).item() == pytest.approx(sum(finite) / len(finite), rel=1e-6)


def test_see_forgives_an_edge_one_pixel_off_and_not_a_value_in_between() -> None:
    truth = torch.tensor([10.0, 10.0, 20.0, 20.0]).expand(3, 4)
    disparity = torch.tensor([13.0, 20.0, 15.0, 13.0]).expand(3, 4)
    everywhere = torch.ones(3, 4, dtype=torch.bool)
    # The edge is columns 1 and 2: 20 is the neighbour's truth, 15 is 5 from either side's.
    assert see(disparity, truth, everywhere).item() == 2.5
    assert edge_epe(disparity, truth, everywhere, dilation=1).item() == 7.5


def test_edge_epe_equals_a_loop_over_pixels() -> None:
    for seed in range(5):
        disparity, truth, mask = _maps(seed)
        near = [
            abs(float(disparity[y, x]) - float(truth[y, x]))
            for y in range(8)
            for x in range(10)
            if mask[y, x]
            and math.isfinite(truth[y, x])
            and math.isfinite(disparity[y, x])
            and any(
                _naive_boundary(truth, ny, nx, 1.0)
                for ny in range(max(0, y - 1), min(8, y + 2))
                for nx in range(max(0, x - 1), min(10, x + 2))
            )
        ]
        ours = edge_epe(disparity, truth, mask, dilation=3).item()
        assert ours == pytest.approx(sum(near) / len(near), rel=1e-6)


def test_no_edges_give_nan() -> None:
    flat = torch.full((5, 5), 7.0)
    assert math.isnan(see(flat, flat, torch.ones(5, 5, dtype=torch.bool)).item())


def test_instances_of_neighbouring_numbers_have_a_border() -> None:
    instances = torch.tensor([[0.0, 0.0, 1.0, 1.0, 2.0]])
    assert instance_boundaries(instances).tolist() == [[False, True, True, True, True]]
