"""Residual blocks that several networks are built of."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.convolution import ConvNorm, activate


class LinearResidual(nn.Module):
    """Two 3x3 convolutions and a skip, whose sum is not rectified (PSMNet, BGNet)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, outputs, stride=stride, dilation=dilation, activation="relu")
        self.conv2 = ConvNorm(outputs, outputs, dilation=dilation, activation="none")
        self.shortcut = (
            None
            if stride == 1 and inputs == outputs
            else ConvNorm(inputs, outputs, kernel=1, stride=stride, activation="none")
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o ho wo"]:
        return self.conv2(self.conv1(x)).add_(x if self.shortcut is None else self.shortcut(x))


def residual_layer(
    inputs: int, outputs: int, *, blocks: int, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    """The first block with the stride, then blocks of one shape."""
    first = LinearResidual(inputs, outputs, stride=stride, dilation=dilation)
    rest = (LinearResidual(outputs, outputs, dilation=dilation) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


class DilatedResidual(nn.Module):
    """Two dilated 3x3 convolutions and a skip, leaky ReLUs (StereoNet, StereoDRNet, AANet)."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(width, width, dilation=dilation, slope=0.2)
        self.conv2 = ConvNorm(width, width, dilation=dilation, activation="none")

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return activate(self.conv2(self.conv1(x)).add_(x), "leaky", 0.2)
