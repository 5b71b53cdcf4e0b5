"""StereoNet: a coarse volume of feature differences, then a cascade of image-guided refinements.

Khamis et al., "StereoNet: Guided Hierarchical Refinement for Real-Time Edge-Aware Depth Prediction",
ECCV 2018 (arXiv 1807.08865), as released in andrewlstewart/StereoNet_PyTorch (code and weights: The
Unlicense): RGB for SceneFlow, gray for KeystoneDepth.

Kept quirks of the release:
- level i of the volume is a shift of i feature pixels (2^K i image pixels), but the regression reads it
  as i M / (D - 1) pixels, so that the last level stands for M itself;
- no convolution of the downsampling has a norm or an activation;
- images and disparities are resized with aligned corners, and disparities keep their values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.convolution import ConvNorm, channels_innermost
from stereopsis.layers.cost_volume import difference_volume
from stereopsis.layers.regression import expected_disparity
from stereopsis.layers.residual import DilatedResidual
from stereopsis.models.base import Padding, StateDict, StereoModel, normalise, rename
from stereopsis.models.registry import Card, register
from stereopsis.structures import VolumeOutput, luma

Side = Literal["left", "right"]

_WIDTH = 32  # the release fixes every width at 32
_KEYSTONE_MEAN = {"left": 111.5684, "right": 113.6528}
_KEYSTONE_STD = {"left": 61.9625, "right": 62.0313}


@dataclass(frozen=True)
class StereoNetConfig:
    in_channels: Literal[1, 3] = 3
    downsamplings: int = 3
    """K: the volume is at 1 / 2^K of the image."""
    refinements: int = 3
    """R: the first refinement works at 1 / 2^(R - 1)."""
    max_disparity: int = 256
    """M, in pixels."""

    @property
    def levels(self) -> int:
        """D, the planes of the volume."""
        return (self.max_disparity + 1) // 2**self.downsamplings


_CARD = Card(
    title="StereoNet",
    paper="Khamis et al., StereoNet: Guided Hierarchical Refinement for Real-Time Edge-Aware Depth "
    "Prediction, ECCV 2018, arXiv 1807.08865",
    repository="https://github.com/andrewlstewart/StereoNet_PyTorch",
    code_licence="Unlicense",
    weights_licence="Unlicense",
    published=(
        "stereonet: EPE 3.93 px on SceneFlow's validation set, all pixels (repository's README)",
        "stereonet-gray: EPE 1.543 px on KeystoneDepth's validation split, all pixels (repository's README)",
    ),
    notes=(
        "the last level of the volume stands for max_disparity although it was built with a smaller shift",
        "gray images are rounded to 8 bits, as the release reads them",
    ),
)


@register(
    {"stereonet": StereoNetConfig(), "stereonet-gray": StereoNetConfig(in_channels=1)},
    card=_CARD,
    tiny={"max_disparity": 64},
)
class StereoNet(StereoModel[StereoNetConfig, VolumeOutput]):
    """`forward` gives the left view, in training the right one too; `forward_side` either, same weights."""

    def __init__(self, config: StereoNetConfig) -> None:
        super().__init__(config)
        self.feature_extractor = FeatureExtractor(config.in_channels, config.downsamplings)
        self.cost_filter = CostFilter()
        self.refiners = nn.ModuleList(Refiner(config.in_channels) for _ in range(config.refinements))

    @property
    def padding(self) -> Padding:
        smallest = 2**self.config.downsamplings
        return Padding(minimum=(smallest, smallest))

    def forward(self, left: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"]) -> VolumeOutput:
        output = self.forward_side(left, right, side="left")
        if not self.training:
            return output
        other = self.forward_side(left, right, side="right")
        return dataclasses.replace(output, right_disparity=other.disparity, right_stages=other.stages)

    def forward_side(
        self, left: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"], *, side: Side
    ) -> VolumeOutput:
        """The disparity of one view; `stages` holds the disparities before the last, coarse to fine."""
        images = {
            "left": channels_innermost(self._prepare(left, "left")),
            "right": channels_innermost(self._prepare(right, "right")),
        }
        features = {view: self.feature_extractor(images[view]) for view in images}
        volume = difference_volume(features["left"], features["right"], self.config.levels, reference=side)
        probabilities = self.cost_filter(channels_innermost(volume)).neg().float().softmax(1)
        del volume
        levels = torch.linspace(0, self.config.max_disparity, self.config.levels, device=left.device)
        stages = [expected_disparity(probabilities, levels)]
        for k, refiner in enumerate(self.refiners, start=1):
            stages.append(refiner(self._resized(images[side], k), stages[-1]))
        return VolumeOutput(
            disparity=stages[-1], probabilities=probabilities, levels=levels, stages=tuple(stages[:-1])
        )

    def _prepare(self, image: Float[Tensor, "b 3 h w"], side: Side) -> Float[Tensor, "b c h w"]:
        if self.config.in_channels == 3:
            return (image - 0.5) * 2
        gray = (luma(image) * 255).round()
        return normalise(gray, (_KEYSTONE_MEAN[side],), (_KEYSTONE_STD[side],))

    def _resized(self, image: Float[Tensor, "b c h w"], k: int) -> Float[Tensor, "b c hk wk"]:
        """The image at the resolution of refinement k = 1 .. R."""
        scale = 2 ** (self.config.refinements - k)
        size = (image.shape[-2] // scale, image.shape[-1] // scale)
        return _resize(image, size)

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> StereoNetConfig | None:
        first = state.get("feature_extractor.net.segment_0_conv_0.weight")
        if first is None or "cost_volumizer.net.segment_1_conv_0.weight" not in state or first.ndim != 4:
            return None
        return dataclasses.replace(
            StereoNetConfig(),
            in_channels=1 if first.shape[1] == 1 else 3,
            downsamplings=_count(state, "feature_extractor.net.segment_0_conv_{}.weight"),
            refinements=_count(state, "refiners.{}.net.segment_0_conv_0.weight"),
        )

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> StateDict:
        return rename(
            state,
            [
                (r"^feature_extractor\.net\.segment_0_conv_(\d+)", r"feature_extractor.downsampling.\1"),
                (r"^feature_extractor\.net\.segment_1_res_(\d+)", r"feature_extractor.residual.\1"),
                (r"^feature_extractor\.net\.segment_2_conv_0", "feature_extractor.projection"),
                (r"^cost_volumizer\.net\.segment_0_conv_(\d+)", r"cost_filter.blocks.\1.conv"),
                (r"^cost_volumizer\.net\.segment_0_bn_(\d+)", r"cost_filter.blocks.\1.norm"),
                (r"^cost_volumizer\.net\.segment_1_conv_0", "cost_filter.projection"),
                (r"^refiners\.(\d+)\.net\.segment_0_conv_0", r"refiners.\1.embedding"),
                (r"^refiners\.(\d+)\.net\.segment_1_res_(\d+)", r"refiners.\1.residual.\2"),
                (r"^refiners\.(\d+)\.net\.segment_2_conv_0", r"refiners.\1.projection"),
                (r"\.conv_([12])\.", r".conv\1.conv."),
                (r"\.batch_norm_([12])\.", r".conv\1.norm."),
            ],
        )


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    number = 0
    while pattern.format(number) in state:
        number += 1
    return number


class FeatureExtractor(nn.Module):
    """K strided convolutions, six residual blocks, one convolution: [b c h w] -> [b 32 h/2^K w/2^K]."""

    def __init__(self, in_channels: int, downsamplings: int) -> None:
        super().__init__()
        self.downsampling = nn.Sequential(
            *(
                nn.Conv2d(in_channels if k == 0 else _WIDTH, _WIDTH, 5, stride=2, padding=2)
                for k in range(downsamplings)
            )
        )
        self.residual = nn.Sequential(*(DilatedResidual(_WIDTH, 1) for _ in range(6)))
        self.projection = nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1)

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b f hf wf"]:
        return self.projection(self.residual(self.downsampling(image)))


class CostFilter(nn.Module):
    """Four 3-D convolutions and a projection: differences [b 32 d h w] -> cost [b d h w]."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(ConvNorm(_WIDTH, _WIDTH, dimensions=3, slope=0.2, bias=True) for _ in range(4))
        )
        self.projection = nn.Conv3d(_WIDTH, 1, 3, padding=1)

    def forward(self, volume: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b d h w"]:
        return self.projection(self.blocks(volume)).squeeze(1)


class Refiner(nn.Module):
    """Adds a residual, learned from the image and the disparity before, to that disparity."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.embedding = nn.Conv2d(in_channels + 1, _WIDTH, 3, padding=1)
        self.residual = nn.Sequential(*(DilatedResidual(_WIDTH, dilation) for dilation in (1, 2, 4, 8, 1, 1)))
        self.projection = nn.Conv2d(_WIDTH, 1, 3, padding=1)

    def forward(
        self, image: Float[Tensor, "b c h w"], coarse: Float[Tensor, "b hc wc"]
    ) -> Float[Tensor, "b h w"]:
        disparity = _resize(coarse[:, None], (image.shape[-2], image.shape[-1]))
        x = self.embedding(torch.cat([image, disparity], 1))
        for block in self.residual:  # called as a whole, it would hold its own input to the end
            x = block(x)
        return F.relu(self.projection(x) + disparity).squeeze(1)


def _resize(x: Float[Tensor, "b c h w"], size: tuple[int, int]) -> Float[Tensor, "b c hr wr"]:
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=True)
