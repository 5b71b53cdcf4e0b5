"""How networks start where they do not start as PyTorch's layers do."""

from __future__ import annotations

import math

from torch import nn


def he_by_output(module: nn.Module) -> None:
    """Convolutions (not transposed ones) normal with variance 2 / (kernel volume * output channels)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            fan = math.prod(layer.kernel_size) * layer.out_channels
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2.0 / fan))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
