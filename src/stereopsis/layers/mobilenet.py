"""MobileNetV2 features (Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018).

Width 1.0, without the last stage and the head, as CoEx and the IGEV family use it: symmetric padding,
no convolution biases, batch norm, ReLU6. The tensors are those of timm's `mobilenetv2_100`.
"""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.convolution import ConvNorm

Rules = list[tuple[str, str]]


class MobileNetMaps(NamedTuple):
    """Feature maps at 1/2 (16 channels), 1/4 (24), 1/8 (32), 1/16 (96) and 1/32 (160)."""

    scale2: Float[Tensor, "b 16 h2 w2"]
    scale4: Float[Tensor, "b 24 h4 w4"]
    scale8: Float[Tensor, "b 32 h8 w8"]
    scale16: Float[Tensor, "b 96 h16 w16"]
    scale32: Float[Tensor, "b 160 h32 w32"]


class MobileNetV2(nn.Module):
    """The stem and stages 0 to 5: an image to five maps."""

    channels = (16, 24, 32, 96, 160)

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 32, stride=2, activation="relu6")
        self.scale2 = nn.Sequential(SeparableConvolution(32, 16))
        self.scale4 = _stage(16, 24, units=2)
        self.scale8 = _stage(24, 32, units=3)
        self.scale16 = nn.Sequential(*_stage(32, 64, units=4), *_stage(64, 96, units=3, stride=1))
        self.scale32 = _stage(96, 160, units=3)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> MobileNetMaps:
        scale2 = self.scale2(self.stem(image))
        scale4 = self.scale4(scale2)
        scale8 = self.scale8(scale4)
        scale16 = self.scale16(scale8)
        return MobileNetMaps(scale2, scale4, scale8, scale16, self.scale32(scale16))


class SeparableConvolution(nn.Module):
    """Depthwise 3x3, then a linear 1x1."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = ConvNorm(inputs, inputs, groups=inputs, activation="relu6")
        self.project = ConvNorm(inputs, outputs, kernel=1, activation="none")

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b co h w"]:
        return self.project(self.depthwise(x))


class InvertedResidual(nn.Module):
    """1x1 expansion by 6, depthwise 3x3 with the stride, linear 1x1; shortcut where shapes allow."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        wide = 6 * inputs
        self.expand = ConvNorm(inputs, wide, kernel=1, activation="relu6")
        self.depthwise = ConvNorm(wide, wide, stride=stride, groups=wide, activation="relu6")
        self.project = ConvNorm(wide, outputs, kernel=1, activation="none")
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b co ho wo"]:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


def _stage(inputs: int, outputs: int, *, units: int, stride: int = 2) -> nn.Sequential:
    first = InvertedResidual(inputs, outputs, stride=stride)
    return nn.Sequential(first, *(InvertedResidual(outputs, outputs, stride=1) for _ in range(units - 1)))


def mobilenet_rules(published: str, ours: str) -> Rules:
    """Renaming rules (`models.base.rename`) from timm's names, in the layout that CoEx and IGEV publish.

    published, ours: the prefixes, dots escaped in the first (`r"feature\\."`, `"features.backbone."`).
    """
    rules = [
        (rf"^{published}conv_stem\.", f"{ours}stem.conv."),
        (rf"^{published}bn1\.", f"{ours}stem.norm."),
        (rf"^{published}block0\.0\.", f"{ours}scale2."),
        (rf"^{published}block1\.0\.", f"{ours}scale4."),
        (rf"^{published}block2\.0\.", f"{ours}scale8."),
        (rf"^{published}block3\.0\.", f"{ours}scale16."),
        (rf"^{published}block4\.0\.", f"{ours}scale32."),
    ]
    rules += [(rf"^{published}block3\.1\.{unit}\.", f"{ours}scale16.{4 + unit}.") for unit in range(3)]
    own = ours.replace(".", r"\.")
    separable = rf"^({own}scale2\.\d+)"
    inverted = rf"^({own}(?:scale4|scale8|scale16|scale32)\.\d+)"
    parts = [
        (separable, (("conv_dw", "bn1", "depthwise"), ("conv_pw", "bn2", "project"))),
        (
            inverted,
            (("conv_pw", "bn1", "expand"), ("conv_dw", "bn2", "depthwise"), ("conv_pwl", "bn3", "project")),
        ),
    ]
    for unit, layers in parts:
        for conv, norm, name in layers:
            rules.append((rf"{unit}\.{conv}\.", rf"\1.{name}.conv."))
            rules.append((rf"{unit}\.{norm}\.", rf"\1.{name}.norm."))
    return rules
