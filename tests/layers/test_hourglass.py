"""Feature attention, the guided hourglass, superpixel weights: equations and shapes."""

from __future__ import annotations

import torch

from stereopsis.layers.hourglass import FeatureAttention, GuidedHourglass
from stereopsis.layers.stemmed_features import StemmedFeatures
from stereopsis.layers.superpixels import ImageSuperpixels


def test_attention_is_shared_by_all_disparities() -> None:
    attention = FeatureAttention(3, 8, norm="instance")
    volume, features = torch.randn(1, 3, 5, 4, 6), torch.randn(1, 8, 4, 6)
    weights = torch.sigmoid(attention.weigh(attention.squeeze(features)))
    out = attention(volume, features)
    for d in range(5):
        torch.testing.assert_close(out[:, :, d], volume[:, :, d] * weights)


def test_features_guide_a_volume_and_its_upsampling() -> None:
    with torch.no_grad():
        maps = StemmedFeatures(norm="instance").eval()(torch.rand(2, 3, 64, 96))
        left = maps.first(1)
        out = GuidedHourglass(8, 8, bottom=48, norm="instance").eval()(torch.randn(1, 8, 16, 16, 24), left)
        weights = ImageSuperpixels(24, norm="instance").eval()(left.scale4, left.stem2)
    assert [tuple(m.shape[1:]) for m in maps] == [
        (32, 32, 48),
        (96, 16, 24),
        (64, 8, 12),
        (192, 4, 6),
        (160, 2, 3),
    ]
    assert out.shape == (1, 8, 16, 16, 24)
    torch.testing.assert_close(weights.sum(1), torch.ones(1, 64, 96))
