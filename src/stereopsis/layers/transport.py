"""Optimal transport between two rows of features, in the log domain (Sinkhorn, as in SuperGlue and STTR)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def with_dustbins(scores: Float[Tensor, "*b n m"], score: Float[Tensor, ""]) -> Float[Tensor, "*b n1 m1"]:
    """The scores with one more row and column, where what has no partner goes at the price of `score`."""
    padded = F.pad(scores, (0, 1, 0, 1))
    bins = F.pad(torch.zeros_like(scores), (0, 1, 0, 1), value=1.0)
    return padded + bins * score


def transport(scores: Float[Tensor, "*b n1 m1"], *, iterations: int) -> Float[Tensor, "*b n1 m1"]:
    """The plan that maximises entropy plus `scores` under its marginals; last row and column are dustbins.

    Every row and column sums to 1 but the dustbins, which may take everything of the other side; after
    few iterations only the sums of the rows are exact. Entries outside the dustbins are probabilities.
    """
    rows, columns = scores.shape[-2] - 1, scores.shape[-1] - 1
    total = math.log(rows + columns)
    row_mass = scores.new_zeros(rows + 1)
    row_mass[-1] = math.log(columns)
    column_mass = scores.new_zeros(columns + 1)
    column_mass[-1] = math.log(rows)
    row_mass, column_mass = row_mass - total, column_mass - total
    u = torch.zeros_like(scores[..., 0])
    v = torch.zeros_like(scores[..., 0, :])
    for _ in range(iterations):
        v = column_mass - torch.logsumexp(scores + u[..., :, None], -2)
        u = row_mass - torch.logsumexp(scores + v[..., None, :], -1)
    return (scores + u[..., :, None] + v[..., None, :] + total).exp()
