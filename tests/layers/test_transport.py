"""Optimal transport is Sinkhorn's alternation of row and column sums."""

from __future__ import annotations

import math

import torch

from stereopsis.layers.transport import transport, with_dustbins


def _scores(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_dustbins_border_the_scores() -> None:
    scores = _scores(2, 3, 4)
    padded = with_dustbins(scores, torch.tensor(0.5))
    assert torch.equal(padded[..., :3, :4], scores)
    assert bool((padded[..., 3, :] == 0.5).all())
    assert bool((padded[..., :, 4] == 0.5).all())


def test_forbidden_pairs_stay_forbidden() -> None:
    scores = _scores(3, 3).masked_fill(torch.ones(3, 3).triu(1) > 0, -math.inf)
    plan = transport(with_dustbins(scores, torch.tensor(0.0)), iterations=5)
    assert bool((plan[:3, :3].triu(1) == 0).all())
    assert bool(plan.isfinite().all())


def test_alternation_equals_loops_over_rows_and_columns() -> None:
    scores = with_dustbins(_scores(3, 4), torch.tensor(0.3)).double()
    kernel = [[math.exp(value) for value in row] for row in scores.tolist()]
    rows, columns = [1 / 7] * 3 + [4 / 7], [1 / 7] * 4 + [3 / 7]
    a, b = [1.0] * 4, [1.0] * 5
    for _ in range(6):
        b = [columns[j] / sum(kernel[i][j] * a[i] for i in range(4)) for j in range(5)]
        a = [rows[i] / sum(kernel[i][j] * b[j] for j in range(5)) for i in range(4)]
    expected = [[7 * a[i] * kernel[i][j] * b[j] for j in range(5)] for i in range(4)]
    assert torch.allclose(transport(scores, iterations=6), torch.tensor(expected).double())


def test_every_pixel_goes_somewhere() -> None:
    plan = transport(with_dustbins(_scores(2, 5, 5), torch.tensor(0.0)), iterations=50)
    assert torch.allclose(plan[:, :5].sum(-1), torch.ones(2, 5), atol=1e-5)
    assert torch.allclose(plan[:, :, :5].sum(-2), torch.ones(2, 5), atol=1e-4)
