"""Channel and spatial attention against loops."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from stereopsis.layers.attention import ChannelAttention, SpatialAttention


def test_channel_attention_weighs_by_mean_and_maximum() -> None:
    generator = torch.Generator().manual_seed(0)
    attention = ChannelAttention(8, reduction=4)
    x = torch.randn(2, 8, 3, 4, generator=generator)
    squeeze, excite = attention.squeeze.weight[:, :, 0, 0], attention.excite.weight[:, :, 0, 0]
    expected = torch.empty_like(x)
    for b in range(2):
        pooled = (
            torch.stack([x[b, c].mean() for c in range(8)]),
            torch.stack([x[b, c].max() for c in range(8)]),
        )
        weights = torch.sigmoid(sum((excite @ torch.relu(squeeze @ p) for p in pooled), torch.zeros(8)))
        for c in range(8):
            expected[b, c] = weights[c] * x[b, c]
    torch.testing.assert_close(attention(x), expected)


def test_spatial_attention_convolves_the_mean_and_the_maximum_in_this_order() -> None:
    attention = SpatialAttention()
    x = torch.randn(2, 8, 5, 6)
    pooled = torch.stack([x.mean(1), x.max(1).values], 1)
    expected = torch.sigmoid(F.conv2d(pooled, attention.conv.weight, padding=3))
    torch.testing.assert_close(attention(x), expected)
