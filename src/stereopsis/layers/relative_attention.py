"""Attention within image rows that knows the distance between columns (Dai et al., Transformer-XL; STTR)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Rows = Float[Tensor, "rows w c"]
Distances = Float[Tensor, "distances c"]


def relative_positions(columns: int, channels: int, *, scale: float, like: Tensor) -> Distances:
    """The sine code of the distances (columns - 1) * scale, ..., -(columns - 1) * scale."""
    distances = torch.arange(columns - 1, -columns, -1, device=like.device, dtype=like.dtype) * scale
    channel = torch.arange(0, channels, 2, device=like.device, dtype=like.dtype)
    angles = distances[:, None] / 10000 ** (channel / channels)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


class RelativeAttention(nn.Module):
    """Attention within rows whose scores add content to content, content to position, position to content."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.in_projection = nn.Linear(channels, 3 * channels)
        self.out_projection = nn.Linear(channels, channels)
        self.heads = heads
        self.scaling = (channels // heads) ** -0.5

    def forward(self, query: Rows, source: Rows, position: Distances) -> Rows:
        weights = self.scores(query, source, position).softmax(-1)
        attended = weights @ self._project(source, 2)
        return self.out_projection(attended.movedim(0, 2).flatten(2))

    def scores(self, query: Rows, source: Rows, position: Distances) -> Float[Tensor, "heads rows w w"]:
        """Of query column i and source column j, before the softmax; theirs is position n - 1 - i + j."""
        q, k = self._project(query, 0) * self.scaling, self._project(source, 1)
        q_position = self._project(position[None], 0).squeeze(1) * self.scaling
        k_position = self._project(position[None], 1).squeeze(1)
        by_query = _along_diagonals(_products(q, k_position))
        by_source = _along_diagonals(_products(k, q_position.flip(-2))).transpose(-1, -2)
        return (q @ k.transpose(-1, -2)).add_(by_query).add_(by_source)

    def _project(self, x: Float[Tensor, "rows n c"], part: int) -> Float[Tensor, "heads rows n ch"]:
        channels = x.shape[-1]
        rows = slice(part * channels, (part + 1) * channels)
        projected = F.linear(x, self.in_projection.weight[rows], self.in_projection.bias[rows])
        return projected.unflatten(-1, (self.heads, -1)).movedim(2, 0)


def _products(
    x: Float[Tensor, "heads rows n c"], position: Float[Tensor, "heads distances c"]
) -> Float[Tensor, "heads rows n distances"]:
    return (x.flatten(1, 2) @ position.transpose(-1, -2)).unflatten(1, x.shape[1:3])


def _along_diagonals(x: Float[Tensor, "*b n distances"]) -> Float[Tensor, "*b n n"]:
    """Entry (i, j) is x[i, n - 1 - i + j]: a view, since that step is constant in memory."""
    n = x.shape[-2]
    return x.flatten(-2)[..., n - 1 : -1].unflatten(-1, (n, 2 * n - 2))[..., :n] if n > 1 else x
