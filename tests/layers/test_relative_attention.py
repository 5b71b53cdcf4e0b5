"""Relative attention adds three scores for every pair of columns; here in loops."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from stereopsis.layers.relative_attention import RelativeAttention, relative_positions


def _tokens(seed: int) -> torch.Tensor:
    return torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(seed))


def test_positions_are_sines_of_scaled_distances() -> None:
    code = relative_positions(3, 4, scale=2.5, like=torch.zeros(1))
    distances = [5.0, 2.5, 0.0, -2.5, -5.0]
    for row, distance in zip(code.tolist(), distances, strict=True):
        periods = [distance, distance / 100]
        expected = [f(x) for x in periods for f in (math.sin, math.cos)]
        assert torch.allclose(torch.tensor(row), torch.tensor(expected), atol=1e-6)


def test_scores_are_the_sum_of_three_products() -> None:
    torch.manual_seed(0)
    layer = RelativeAttention(8, 2)
    query, source = _tokens(1), _tokens(2)
    position = relative_positions(5, 8, scale=1.0, like=query)
    weights, biases = layer.in_projection.weight.chunk(3), layer.in_projection.bias.chunk(3)

    def project(x: torch.Tensor, part: int) -> torch.Tensor:
        return F.linear(x, weights[part], biases[part])

    scores = layer.scores(query, source, position)
    for row in range(2):
        for i in range(5):
            for j in range(5):
                place = position[5 - 1 - i + j]
                for head in range(2):
                    c = slice(4 * head, 4 * head + 4)
                    q, k = project(query[row, i], 0)[c] / 2, project(source[row, j], 1)[c]
                    q_place, k_place = project(place, 0)[c] / 2, project(place, 1)[c]
                    expected = q @ k + q @ k_place + k @ q_place
                    assert torch.allclose(scores[head, row, i, j], expected, atol=1e-5)


def test_output_is_the_weighted_mean_of_values() -> None:
    torch.manual_seed(0)
    layer = RelativeAttention(8, 2)
    query, source = _tokens(1), _tokens(2)
    position = relative_positions(5, 8, scale=1.0, like=query)
    shares = layer.scores(query, source, position).softmax(-1)
    values = F.linear(source, layer.in_projection.weight[16:], layer.in_projection.bias[16:])
    heads = [shares[head] @ values[..., 4 * head : 4 * head + 4] for head in range(2)]
    expected = layer.out_projection(torch.cat(heads, -1))
    assert torch.allclose(layer(query, source, position), expected, atol=1e-6)


def test_one_column_has_one_score() -> None:
    layer = RelativeAttention(8, 2)
    tokens = _tokens(0)[:, :1]
    position = relative_positions(1, 8, scale=1.0, like=tokens)
    assert layer.scores(tokens, tokens, position).shape == (2, 2, 1, 1)
