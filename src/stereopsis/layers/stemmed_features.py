"""Features of CoEx and the IGEV family: MobileNetV2, decoded to 1/4, beside a shallow stem from the image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.convolution import ConvNorm, Norm, UpAndMerge
from stereopsis.layers.mobilenet import MobileNetV2, Rules, mobilenet_rules


class StemmedMaps(NamedTuple):
    """The stem at 1/2 and the decoded maps at 1/4, 1/8, 1/16 and 1/32."""

    stem2: Float[Tensor, "b 32 h2 w2"]
    scale4: Float[Tensor, "b 96 h4 w4"]
    scale8: Float[Tensor, "b 64 h8 w8"]
    scale16: Float[Tensor, "b 192 h16 w16"]
    scale32: Float[Tensor, "b 160 h32 w32"]

    def first(self, count: int) -> StemmedMaps:
        """The maps of the first `count` images of the batch."""
        return StemmedMaps(*(maps[:count] for maps in self))


class StemmedFeatures(nn.Module):
    """An image, normalised by the caller, to five maps; `norm` is the decoder's and the stem's."""

    def __init__(self, *, norm: Norm) -> None:
        super().__init__()
        self.backbone = MobileNetV2()
        self.decode16 = UpAndMerge(160, 96, norm=norm)
        self.decode8 = UpAndMerge(192, 32, norm=norm)
        self.decode4 = UpAndMerge(64, 24, norm=norm)
        self.smooth4 = ConvNorm(48, 48, norm=norm)
        self.stem2 = halving_stem(3, 32, norm)
        self.stem4 = halving_stem(32, 48, norm)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> StemmedMaps:
        maps = self.backbone(image)
        scale16 = self.decode16(maps.scale32, maps.scale16)
        scale8 = self.decode8(scale16, maps.scale8)
        deep4 = self.smooth4(self.decode4(scale8, maps.scale4))
        stem2 = self.stem2(image)
        scale4 = torch.cat([deep4, self.stem4(stem2)], 1)
        return StemmedMaps(stem2, scale4, scale8, scale16, maps.scale32)


def halving_stem(inputs: int, outputs: int, norm: Norm) -> nn.Sequential:
    """Two convolutions, the first of stride 2."""
    return nn.Sequential(
        ConvNorm(inputs, outputs, stride=2, norm=norm),
        ConvNorm(outputs, outputs, norm=norm, activation="relu"),
    )


def stemmed_rules(ours: str) -> Rules:
    """Renaming rules from the published names (`feature.`, `stem_2`, `stem_4`) to those under `ours`."""
    rules = [
        (r"^feature\.deconv32_16\.", f"{ours}decode16."),
        (r"^feature\.deconv16_8\.", f"{ours}decode8."),
        (r"^feature\.deconv8_4\.", f"{ours}decode4."),
        (r"^feature\.conv4\.", f"{ours}smooth4."),
        (r"^stem_([24])\.0\.", rf"{ours}stem\1.0."),
        (r"^stem_([24])\.1\.", rf"{ours}stem\1.1.conv."),
        (r"^stem_([24])\.2\.", rf"{ours}stem\1.1.norm."),
    ]
    own = ours.replace(".", r"\.")
    rules += [
        (rf"^({own}decode\d+)\.conv1\.", r"\1.up."),
        (rf"^({own}decode\d+)\.conv2\.", r"\1.merge."),
    ]
    return rules + mobilenet_rules(r"feature\.", f"{ours}backbone.")
