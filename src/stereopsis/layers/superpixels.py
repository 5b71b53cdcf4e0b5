"""Superpixel weights of CoEx and the IGEV family: what guides the upsampling from 1/4 to the full size."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.convolution import ConvNorm, Norm, UpAndMerge
from stereopsis.layers.mobilenet import Rules


class SuperpixelWeights(nn.Module):
    """Features at 1/4 and the image's stem at 1/2 to weights of 9 neighbours at full size, float32."""

    def __init__(self, features: int, *, norm: Norm) -> None:
        super().__init__()
        self.refine = UpAndMerge(features, 32, norm=norm)
        self.expand = nn.ConvTranspose2d(64, 9, 4, stride=2, padding=1)

    def forward(
        self, features: Float[Tensor, "b c h4 w4"], stem2: Float[Tensor, "b 32 h2 w2"]
    ) -> Float[Tensor, "b 9 h w"]:
        return torch.softmax(self.expand(self.refine(features, stem2)).float(), 1)


class ImageSuperpixels(nn.Module):
    """Superpixel weights from the left image's features at 1/4 alone."""

    def __init__(self, width: int, *, norm: Norm) -> None:
        super().__init__()
        self.smooth = nn.Sequential(
            ConvNorm(96, width, norm=norm), ConvNorm(width, width, norm=norm, activation="relu")
        )
        self.weights = SuperpixelWeights(width, norm=norm)

    def forward(
        self, features: Float[Tensor, "b 96 h4 w4"], stem2: Float[Tensor, "b 32 h2 w2"]
    ) -> Float[Tensor, "b 9 h w"]:
        return self.weights(self.smooth(features), stem2)


def superpixel_rules(published: str, ours: str) -> Rules:
    """Renaming rules of SuperpixelWeights; published: the suffix of `spx` (`""`, `"_gru"`)."""
    return [
        (rf"^spx_2{published}\.conv1\.", f"{ours}.refine.up."),
        (rf"^spx_2{published}\.conv2\.", f"{ours}.refine.merge."),
        (rf"^spx{published}\.0\.", f"{ours}.expand."),
    ]


def image_superpixel_rules(ours: str) -> Rules:
    """Renaming rules of ImageSuperpixels from the published `spx_4`, `spx_2` and `spx`."""
    return [
        (r"^spx_4\.0\.", f"{ours}.smooth.0."),
        (r"^spx_4\.1\.", f"{ours}.smooth.1.conv."),
        (r"^spx_4\.2\.", f"{ours}.smooth.1.norm."),
        *superpixel_rules("", f"{ours}.weights"),
    ]
