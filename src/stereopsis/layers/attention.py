"""Channel and spatial attention: the contextual spatial attention of Selective-Stereo (CVPR 2024)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ChannelAttention(nn.Module):
    """Weights per channel from its mean and maximum over the image, times the input."""

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.excite = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        mean, maximum = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        return torch.sigmoid(self._weigh(mean) + self._weigh(maximum)) * x

    def _weigh(self, pooled: Float[Tensor, "b c 1 1"]) -> Float[Tensor, "b c 1 1"]:
        return self.excite(torch.relu(self.squeeze(pooled)))


class SpatialAttention(nn.Module):
    """Weights per pixel, 0 to 1, from the mean and the maximum over channels."""

    def __init__(self, *, kernel: int = 7) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return torch.sigmoid(self.conv(pooled))
