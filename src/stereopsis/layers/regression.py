"""Disparity and its uncertainty from scores or probabilities over levels."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def expected_disparity(
    probabilities: Float[Tensor, "b d h w"], levels: Float[Tensor, " d"]
) -> Float[Tensor, "b h w"]:
    """The mean disparity: `sum_d levels[d] * probabilities[d]`."""
    return (probabilities * levels[:, None, None]).sum(1)


def soft_argmax(scores: Float[Tensor, "b d h w"], levels: Float[Tensor, " d"]) -> Float[Tensor, "b h w"]:
    """The mean disparity under `softmax(scores)`; for costs, where less is better, give their negative."""
    return expected_disparity(scores.softmax(1), levels)


def top_k_regression(
    scores: Float[Tensor, "b d h w"], levels: Float[Tensor, " d"], *, k: int
) -> Float[Tensor, "b h w"]:
    """The mean disparity under the softmax of the k highest scores alone (CoEx, arXiv 2108.05773)."""
    best, index = scores.topk(k, dim=1)
    return (best.softmax(1) * levels[index]).sum(1)


def entropy(probabilities: Float[Tensor, "b d h w"], *, epsilon: float = 1e-12) -> Float[Tensor, "b h w"]:
    """`-sum_d q ln q` in nats, with `q = p + epsilon`: 0 for one certain level, ln d for equal ones."""
    shifted = probabilities + epsilon
    return -(shifted * torch.log(shifted)).sum(1)
