"""Attention on maps, linear or in windows, equals attention spelled out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from stereopsis.layers.feature_transformer import (
    FeatureTransformerLayer,
    attention,
    linear_attention,
    shifted_window_mask,
    window_attention,
)


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_linear_attention_weighs_by_products_of_positive_features() -> None:
    q, k, v = (_random(2, n, 6, seed=n) for n in (4, 5, 5))
    result = linear_attention(q, k, v, heads=2)
    for head in (slice(0, 3), slice(3, 6)):
        weights = (F.elu(q[..., head]) + 1) @ (F.elu(k[..., head]) + 1).transpose(1, 2)
        expected = weights @ v[..., head] / weights.sum(-1, keepdim=True)
        assert torch.allclose(result[..., head], expected, atol=1e-5)


def test_one_window_is_attention_over_everything() -> None:
    q, k, v = (_random(2, 4, 6, 8, seed=seed) for seed in range(3))
    windowed = window_attention(q, k, v, splits=(1, 1))
    expected = attention(q.flatten(1, 2), k.flatten(1, 2), v.flatten(1, 2)).view_as(q)
    assert torch.allclose(windowed, expected, atol=1e-6)


@pytest.mark.parametrize("size", [(4, 6), (6, 10), (1, 6)])
def test_shifted_windows_see_neighbours_only(size: tuple[int, int]) -> None:
    height, width = size
    splits = (2 if height > 1 else 1, 2)
    q, k, v = (_random(1, height, width, 4, seed=seed) for seed in range(3))
    mask = shifted_window_mask(height, width, splits, device=q.device)
    result = window_attention(q, k, v, splits=splits, mask=mask)
    rows, columns = height // splits[0], width // splits[1]

    def window(index: int, side: int, length: int) -> tuple[int, bool]:
        """The window after the shift, and whether the pixel wrapped round to get there."""
        shift = side // 2
        return (index - shift) % length // side, index < shift

    for y in range(height):
        for x in range(width):
            place = (window(y, rows, height), window(x, columns, width))
            seen = [
                (a, b)
                for a in range(height)
                for b in range(width)
                if (window(a, rows, height), window(b, columns, width)) == place
            ]
            keys = torch.stack([k[0, a, b] for a, b in seen])
            values = torch.stack([v[0, a, b] for a, b in seen])
            expected = (keys @ q[0, y, x] / 2).softmax(0) @ values
            assert torch.allclose(result[0, y, x], expected, atol=1e-5)


def test_without_a_perceptron_the_message_is_only_normed() -> None:
    torch.manual_seed(0)
    layer = FeatureTransformerLayer(8, hidden=None)
    tokens, source = _random(2, 5, 8), _random(2, 3, 8, seed=1)
    message = attention(layer.query(tokens), layer.key(source), layer.value(source))
    assert torch.allclose(layer(tokens, source, attention), tokens + layer.norm1(layer.merge(message)))


def test_linear_attention_over_many_tokens_does_not_overflow_half_precision() -> None:
    q, k, v = (torch.full((1, 20_000, 8), 2.0) for _ in range(3))
    with torch.autocast("cpu", torch.float16):
        found = linear_attention(q.half(), k.half(), v.half(), heads=1)
    assert torch.allclose(found, v, rtol=1e-3)


def test_attention_over_disparities_keeps_them_exact_under_autocast() -> None:
    query, key = _random(1, 6, 4, seed=0), _random(1, 5, 4, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        found = attention(query.bfloat16(), key.bfloat16(), torch.full((1, 5, 1), 203.3))
    assert torch.allclose(found, torch.full((1, 6, 1), 203.3), rtol=1e-6)
