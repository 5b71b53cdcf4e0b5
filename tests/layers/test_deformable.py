"""Deformable convolution against a naive loop, and against a plain convolution where nothing moves."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stereopsis.layers.deformable import DeformableConv, deformable_conv2d


def _naive(
    x: Tensor, offsets: Tensor, masks: Tensor, weight: Tensor, stride: int, dilation: int, groups: int
) -> Tensor:
    batch, channels, height, width = x.shape
    rows, columns = offsets.shape[-2:]
    out = torch.zeros(batch, weight.shape[0], rows, columns)

    def value(b: int, c: int, y: float, x_position: float) -> float:
        total = 0.0
        for j in (math.floor(y), math.floor(y) + 1):
            for i in (math.floor(x_position), math.floor(x_position) + 1):
                if 0 <= j < height and 0 <= i < width:
                    total += float(x[b, c, j, i]) * (1 - abs(y - j)) * (1 - abs(x_position - i))
        return total

    for b in range(batch):
        for row in range(rows):
            for column in range(columns):
                for c in range(channels):
                    group = c // (channels // groups)
                    for tap in range(9):
                        dy, dx = offsets[b, 18 * group + 2 * tap : 18 * group + 2 * tap + 2, row, column]
                        y = row * stride + dilation * (tap // 3 - 1) + float(dy)
                        x_position = column * stride + dilation * (tap % 3 - 1) + float(dx)
                        sample = value(b, c, y, x_position) * masks[b, 9 * group + tap, row, column]
                        out[b, :, row, column] += weight[:, c, tap // 3, tap % 3] * sample
    return out


def test_it_is_the_naive_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 5, 6, generator=generator)
    weight = torch.randn(3, 4, 3, 3, generator=generator)
    for stride, dilation in ((1, 2), (2, 2), (1, 1)):
        rows, columns = -(-5 // stride), -(-6 // stride)
        offsets = 2 * torch.randn(2, 36, rows, columns, generator=generator)
        masks = 2 * torch.rand(2, 18, rows, columns, generator=generator)
        found = deformable_conv2d(x, offsets, masks, weight, stride=stride, dilation=dilation, groups=2)
        expected = _naive(x, offsets, masks, weight, stride, dilation, 2)
        assert float((found - expected).abs().max()) < 1e-4


@torch.no_grad()
def test_it_starts_as_a_plain_dilated_convolution() -> None:
    torch.manual_seed(0)
    layer = DeformableConv(4, 3, stride=2)
    x = torch.randn(1, 4, 9, 11)
    plain = F.conv2d(x, layer.weight, stride=2, padding=2, dilation=2)
    assert float((layer(x) - plain).abs().max()) < 1e-5


def test_gradients_reach_offsets_and_weights() -> None:
    torch.manual_seed(0)
    layer = DeformableConv(4, 3)
    layer(torch.randn(1, 4, 6, 6)).square().sum().backward()
    for parameter in layer.parameters():
        assert parameter.grad is not None
        assert bool(parameter.grad.abs().sum() > 0)
