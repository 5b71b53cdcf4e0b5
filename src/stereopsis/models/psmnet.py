"""PSMNet: pyramid-pooled features, a concatenation volume, stacked 3-D hourglasses, soft argmin.

Chang and Chen, "Pyramid Stereo Matching Network", CVPR 2018 (arXiv 1803.08669), as released in
JiaRenChang/PSMNet (code and weights: MIT): the stacked hourglass and the basic network.

Kept quirks of the release:
- the sum of a residual block is not rectified;
- the third hourglass takes its first skip from the first hourglass, not the second;
- both halves of the volume are zero where nothing matches;
- `align_corners` is False as the code is written today, and was True when the older checkpoints were
  trained (PyTorch before 0.4.1): those want `align_corners=True`.

Deviations: scores are read out in slabs of rows, never as a volume of full resolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.convolution import ConvNorm, channels_innermost
from stereopsis.layers.cost_volume import concatenation_volume
from stereopsis.layers.initialisation import he_by_output
from stereopsis.layers.regression import upsampled_soft_argmax
from stereopsis.layers.residual import residual_layer
from stereopsis.models.base import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Backbone,
    Padding,
    StateDict,
    StereoModel,
    normalise,
    rename,
)
from stereopsis.models.registry import Card, register, register_backbone
from stereopsis.structures import VolumeOutput


@dataclass(frozen=True)
class PSMNetConfig:
    max_disparity: int = 192
    """A multiple of 16 (of 4 for the basic network)."""
    aggregation: Literal["hourglass", "basic"] = "hourglass"
    align_corners: bool = False
    """In every upsampling; True for checkpoints of PyTorch before 0.4.1."""
    width: int = 32
    """Channels of the volume's filters and of each view's features; the released networks have 32."""

    def __post_init__(self) -> None:
        multiple = 16 if self.aggregation == "hourglass" else 4
        if self.max_disparity < multiple or self.max_disparity % multiple:
            raise ValueError(f"max_disparity must be a multiple of {multiple}, it is {self.max_disparity}")


_CARD = Card(
    title="PSMNet",
    paper="Chang and Chen, Pyramid Stereo Matching Network, CVPR 2018, arXiv 1803.08669",
    repository="https://github.com/JiaRenChang/PSMNet",
    code_licence="MIT",
    weights_licence="MIT",
    published=(
        "psmnet: D1-all 2.32 % (all pixels), 2.14 % (non-occluded) on KITTI 2015's test set (repository)",
        "psmnet: EPE 1.09 px on SceneFlow's test set, truth below 192 px (paper)",
    ),
    notes=(
        "checkpoints trained with PyTorch before 0.4.1 want align_corners=True; with False their "
        "disparities are about 1.17 too small (users' reports)",
    ),
)


@register(
    {"psmnet": PSMNetConfig(), "psmnet-basic": PSMNetConfig(aggregation="basic")},
    card=_CARD,
    tiny={"max_disparity": 32, "width": 4},
)
class PSMNet(StereoModel[PSMNetConfig, VolumeOutput]):
    def __init__(self, config: PSMNetConfig) -> None:
        super().__init__(config)
        self.feature_extraction = FeatureExtraction(config.width, config.align_corners)
        aggregation = HourglassAggregation if config.aggregation == "hourglass" else BasicAggregation
        self.aggregation = aggregation(config.width)
        he_by_output(self)

    @property
    def padding(self) -> Padding:
        return Padding(
            multiple=(16, 16), vertical="top", horizontal="right", fill=IMAGENET_MEAN, minimum=(256, 256)
        )

    def forward(self, left: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"]) -> VolumeOutput:
        """In training `stages` are the disparities of the first two hourglasses."""
        left, right = (normalise(image, IMAGENET_MEAN, IMAGENET_STD) for image in (left, right))
        scores, _ = self.match(left, right)
        disparities = torch.arange(float(self.config.max_disparity), device=left.device)
        size = (left.shape[-2], left.shape[-1])
        read = scores if self.training else scores[-1:]
        stages = [
            upsampled_soft_argmax(s, disparities, size, align_corners=self.config.align_corners) for s in read
        ]
        return VolumeOutput(
            disparity=stages[-1],
            probabilities=scores[-1].softmax(1),
            levels=self._levels(disparities),
            stages=tuple(stages[:-1]),
        )

    def match(
        self, left: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"]
    ) -> tuple[list[Float[Tensor, "b d hq wq"]], Float[Tensor, "b c hq wq"]]:
        """Scores of each stage over levels of 4 pixels at a quarter of the size, and the left features."""
        features = [self.feature_extraction(channels_innermost(image)) for image in (left, right)]
        volume = concatenation_volume(features[0], features[1], self.config.max_disparity // 4)
        return self.aggregation(channels_innermost(volume)), features[0]

    def _levels(self, disparities: Tensor) -> Tensor:
        """The disparity of each plane of the volume, in pixels, where linear interpolation puts it."""
        planes = len(disparities) // 4
        if self.config.align_corners:
            return torch.linspace(0, float(disparities[-1]), planes, device=disparities.device)
        return 4 * torch.arange(float(planes), device=disparities.device) + 1.5

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> PSMNetConfig | None:
        if "feature_extraction.lastconv.2.weight" not in state or "dres0.0.0.weight" not in state:
            return None
        return PSMNetConfig(aggregation="basic" if "classify.2.weight" in state else "hourglass")

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> StateDict:
        return rename(state, _OFFICIAL_NAMES)


_OFFICIAL_NAMES = [
    (r"\.0\.weight$", ".conv.weight"),
    (r"\.1\.(weight|bias|running_mean|running_var|num_batches_tracked)$", r".norm.\1"),
    (r"^feature_extraction\.firstconv\.([024])", lambda m: f"feature_extraction.stem.{int(m[1]) // 2}"),
    (r"^feature_extraction\.layer(\d)\.(\d+)\.conv1\.0", r"feature_extraction.layer\1.\2.conv1"),
    (r"^feature_extraction\.layer(\d)\.(\d+)\.downsample", r"feature_extraction.layer\1.\2.shortcut"),
    (r"^feature_extraction\.branch(\d)\.1", lambda m: f"feature_extraction.pyramid.{int(m[1]) - 1}.conv"),
    (r"^feature_extraction\.lastconv\.([02])", lambda m: f"feature_extraction.fusion.{int(m[1]) // 2}"),
    (r"^dres0\.([02])", lambda m: f"aggregation.entry.{int(m[1]) // 2}"),
    (r"^dres(\d)\.([02])\.", lambda m: f"aggregation.residual.{int(m[1]) - 1}.{int(m[2]) // 2}."),
    (r"^dres(\d)\.(conv\d)(?:\.0)?", lambda m: f"aggregation.hourglasses.{int(m[1]) - 2}.{m[2]}"),
    (r"^classif(\d)\.([02])", lambda m: f"aggregation.classifiers.{int(m[1]) - 1}.{int(m[2]) // 2}"),
    (r"^classify\.([02])", lambda m: f"aggregation.classifier.{int(m[1]) // 2}"),
]


class FeatureExtraction(nn.Module):
    """A residual network and pooling at four scales: image [b 3 h w] -> features [b c h/4 w/4]."""

    def __init__(self, width: int, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.stem = nn.Sequential(
            ConvNorm(3, width, stride=2, activation="relu"),
            ConvNorm(width, width, activation="relu"),
            ConvNorm(width, width, activation="relu"),
        )
        self.layer1 = residual_layer(width, width, blocks=3)
        self.layer2 = residual_layer(width, 2 * width, blocks=16, stride=2)
        self.layer3 = residual_layer(2 * width, 4 * width, blocks=3)
        self.layer4 = residual_layer(4 * width, 4 * width, blocks=3, dilation=2)
        self.pyramid = nn.ModuleList(PooledBranch(4 * width, width, size) for size in (64, 32, 16, 8))
        self.fusion = nn.Sequential(
            ConvNorm(10 * width, 4 * width, activation="relu"), nn.Conv2d(4 * width, width, 1, bias=False)
        )

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c hq wq"]:
        raw = self.layer2(self.layer1(self.stem(image)))
        skip = self.layer4(self.layer3(raw))
        pooled = [
            F.interpolate(branch(skip), skip.shape[-2:], mode="bilinear", align_corners=self.align_corners)
            for branch in reversed(self.pyramid)
        ]
        return self.fusion(torch.cat([raw, skip, *pooled], 1))


class PooledBranch(nn.Module):
    """The mean over squares of `size` pixels (what is left over at the border is dropped), projected."""

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.conv = ConvNorm(inputs, outputs, kernel=1, activation="relu")

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o hp wp"]:
        return self.conv(F.avg_pool2d(x, self.size))


def _pair_of_filters(inputs: int, outputs: int, last: Literal["relu", "none"]) -> nn.Sequential:
    return nn.Sequential(
        ConvNorm(inputs, outputs, dimensions=3, activation="relu"),
        ConvNorm(outputs, outputs, dimensions=3, activation=last),
    )


def _classifier(width: int) -> nn.Sequential:
    return nn.Sequential(
        ConvNorm(width, width, dimensions=3, activation="relu"),
        nn.Conv3d(width, 1, 3, padding=1, bias=False),
    )


class BasicAggregation(nn.Module):
    """Ten 3-D convolutions with skips: volume [b 2c d h w] -> one stage of scores [b d h w]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.entry = _pair_of_filters(2 * width, width, "relu")
        self.residual = nn.ModuleList(_pair_of_filters(width, width, "none") for _ in range(4))
        self.classifier = _classifier(width)

    def forward(self, volume: Float[Tensor, "b c2 d h w"]) -> list[Float[Tensor, "b d h w"]]:
        volume = self.entry(volume)
        for filters in self.residual:
            volume = filters(volume).add_(volume)
        return [self.classifier(volume).squeeze(1)]


class HourglassAggregation(nn.Module):
    """Three hourglasses, each adding to the scores before: volume [b 2c d h w] -> [b d h w] x 3."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.entry = _pair_of_filters(2 * width, width, "relu")
        self.residual = nn.ModuleList([_pair_of_filters(width, width, "none")])
        self.hourglasses = nn.ModuleList(Hourglass(width) for _ in range(3))
        self.classifiers = nn.ModuleList(_classifier(width) for _ in range(3))

    def forward(self, volume: Float[Tensor, "b c2 d h w"]) -> list[Float[Tensor, "b d h w"]]:
        entered = self.entry(volume)
        first = self.residual[0](entered).add_(entered)
        del entered, volume
        out1, half1, back = self.hourglasses[0](first, None, None)
        scores = [self.classifiers[0](out1.add_(first)).squeeze(1)]
        out2, _, back = self.hourglasses[1](out1, half1, back)
        del out1
        scores.append(self.classifiers[1](out2.add_(first)).squeeze(1) + scores[-1])
        out3, _, _ = self.hourglasses[2](out2, half1, back)
        del out2, half1, back
        scores.append(self.classifiers[2](out3.add_(first)).squeeze(1) + scores[-1])
        return scores


class Hourglass(nn.Module):
    """Down to 1/4 of the volume and back, with skips from the hourglass before.

    forward(x, down_skip, up_skip) gives (output, its half-size volume on the way down, and on the way up).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        double = 2 * width
        self.conv1 = ConvNorm(width, double, dimensions=3, stride=2, activation="relu")
        self.conv2 = ConvNorm(double, double, dimensions=3, activation="none")
        self.conv3 = ConvNorm(double, double, dimensions=3, stride=2, activation="relu")
        self.conv4 = ConvNorm(double, double, dimensions=3, activation="relu")
        self.conv5 = _doubling(double, double)
        self.conv6 = _doubling(double, width)

    def forward(
        self,
        x: Float[Tensor, "b c d h w"],
        skip_down: Float[Tensor, "b c2 dh hh wh"] | None,
        skip_up: Float[Tensor, "b c2 dh hh wh"] | None,
    ) -> tuple[Float[Tensor, "b c d h w"], Float[Tensor, "b c2 dh hh wh"], Float[Tensor, "b c2 dh hh wh"]]:
        down = self.conv2(self.conv1(x))
        down = F.relu_(down if skip_up is None else down.add_(skip_up))
        up = self.conv5(self.conv4(self.conv3(down)))
        up = F.relu_(up.add_(down if skip_down is None else skip_down))
        return self.conv6(up), down, up


def _doubling(inputs: int, outputs: int) -> ConvNorm:
    return ConvNorm(
        inputs, outputs, dimensions=3, transposed=True, stride=2, output_padding=1, activation="none"
    )


@register_backbone("psmnet")
class PSMNetBackbone(Backbone):
    """The stacked hourglass network up to its last scores, for a head: (scores, left features), both 1/4."""

    def __init__(self, *, max_disparity: int, in_channels: int = 3, width: int = 32) -> None:
        super().__init__()
        if in_channels != 3:
            raise ValueError(f"PSMNet takes 3 channels an image, not {in_channels}")
        self.network = PSMNet(PSMNetConfig(max_disparity=max_disparity, width=width))
        self.channels = (max_disparity // 4, width)
        self.smallest = 256

    def forward(self, left: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        scores, features = self.network.match(left, right)
        return [scores[-1], features]

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> StateDict:
        return {f"network.{name}": tensor for name, tensor in PSMNet.from_official(state).items()}
