"""AANet and AANet+: correlations at three scales, aggregated in 2-D within each scale and across them.

Xu and Zhang, "AANet: Adaptive Aggregation Network for Efficient Stereo Matching", CVPR 2020 (arXiv
2004.09548), as released in haofeixu/aanet (code and weights: Apache-2.0). AANet+ has deeper features
and refinements.

Kept quirks of the release:
- planes of the volumes are the channels of 2-D convolutions: the tensors fix the range of disparities;
- the refinements warp at positions counted from corner to corner and sampled from edge to edge, which
  stretches the warped image by half a pixel at its borders;
- the convolution that reads offsets and masks is grouped across the layout of its outputs.

As published, only training computes the last module's outputs at 1/6 and 1/12.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.convolution import ConvNorm, activate
from stereopsis.layers.cost_volume import correlation_volume
from stereopsis.layers.deformable import DeformableConv
from stereopsis.layers.double_hourglass import DoubleHourglass, double_hourglass_rules
from stereopsis.layers.regression import expected_disparity, soft_argmax
from stereopsis.layers.residual import DilatedResidual
from stereopsis.layers.upsampling import doubled
from stereopsis.models.base import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Padding,
    StateDict,
    StereoModel,
    normalise,
    rename,
)
from stereopsis.models.registry import Card, register
from stereopsis.structures import VolumeOutput

_SCALES = (3, 6, 12)
_MODULES = 6
_DEFORMABLE_FROM = 3
"""Modules from this one on aggregate with deformable convolutions."""


@dataclass(frozen=True)
class AANetConfig:
    plus: bool = False
    """AANet+: hourglass features and refinements."""
    max_disparity: int = 192
    """Pixels, a multiple of 12; part of the tensors' shapes."""

    def __post_init__(self) -> None:
        if self.max_disparity < 12 or self.max_disparity % 12:
            raise ValueError(f"AANet's max_disparity must be a multiple of 12, it is {self.max_disparity}")

    @property
    def levels(self) -> tuple[int, ...]:
        """Planes at 1/3, 1/6 and 1/12."""
        return tuple(self.max_disparity // scale for scale in _SCALES)


_CARD = Card(
    title="AANet and AANet+",
    paper="Xu and Zhang, AANet: Adaptive Aggregation Network for Efficient Stereo Matching, CVPR 2020, "
    "arXiv 2004.09548",
    repository="https://github.com/haofeixu/aanet",
    code_licence="Apache-2.0",
    weights_licence="Apache-2.0",
    published=(
        "aanet: SceneFlow EPE 0.87 px, over 1 px 9.3 % (paper)",
        "aanet-plus: SceneFlow EPE 0.72 px, over 1 px 7.4 % (repository)",
        "KITTI 2015 D1-all: aanet 2.55 %, aanet-plus 2.03 %; KITTI 2012 Out-Noc: 1.91 %, 1.55 % (paper, "
        "repository)",
    ),
    notes=(
        "images are padded to multiples of 12 (AANet+: 96) where the release pads to one size per data set",
        "the refinements' warp stretches the image by half a pixel at its borders: kept",
    ),
)


@register(
    {"aanet": AANetConfig(), "aanet-plus": AANetConfig(plus=True)}, card=_CARD, tiny={"max_disparity": 48}
)
class AANet(StereoModel[AANetConfig, VolumeOutput]):
    """`stages` holds the disparities at 1/3 and 1/2 (in training at 1/12 and 1/6 before), in image pixels."""

    def __init__(self, config: AANetConfig) -> None:
        super().__init__(config)
        self.features = HourglassFeatures() if config.plus else ResidualFeatures()
        self.aggregation = AdaptiveAggregation(config.levels)
        self.refinements = nn.ModuleList(Refinement(config.plus) for _ in range(2))

    @property
    def padding(self) -> Padding:
        multiple = 96 if self.config.plus else 12
        return Padding((multiple, multiple), vertical="top", horizontal="right", fill=IMAGENET_MEAN)

    def forward(self, left: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"]) -> VolumeOutput:
        images = normalise(torch.cat([left, right]), IMAGENET_MEAN, IMAGENET_STD)
        pairs = [features.chunk(2) for features in self.features(images)]
        costs = [
            correlation_volume(left_map, right_map, levels)
            for (left_map, right_map), levels in zip(pairs, self.config.levels, strict=True)
        ]
        scores = [score.float() for score in self.aggregation(costs)]
        coarse = [_regressed(score, scale) for score, scale in zip(scores[1:], _SCALES[1:], strict=False)]
        levels = torch.arange(scores[0].shape[1], device=left.device, dtype=torch.float32)
        probabilities = scores[0].softmax(1)
        third = expected_disparity(probabilities, levels)
        halved = F.interpolate(images, scale_factor=0.5, mode="bilinear")
        half = self.refinements[0](third, *halved.chunk(2))
        full = self.refinements[1](half, *images.chunk(2))
        return VolumeOutput(
            full,
            probabilities=probabilities,
            levels=_SCALES[0] * levels,
            stages=(*reversed(coarse), _SCALES[0] * third, 2 * half),
        )

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> AANetConfig | None:
        last = state.get("aggregation.final_conv.0.weight")
        if last is None or "aggregation.fusions.0.branches.0.0.conv1.weight" not in state:
            return None
        plus = "feature_extractor.conv1a.conv.weight" in state
        return AANetConfig(plus=plus, max_disparity=_SCALES[0] * last.shape[0])

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> StateDict:
        return rename(state, _RULES)


_RULES = [
    (r"^feature_extractor\.conv1\.0\.", "features.stem.conv."),
    (r"^feature_extractor\.conv1\.1\.", "features.stem.norm."),
    (r"^feature_extractor\.conv_start\.", "features.start."),
    *double_hourglass_rules(r"feature_extractor\.", "features.hourglass.", depth=4),
    (r"^feature_extractor\.", "features."),
    (r"^fpn\.lateral_convs\.", "features.lateral."),
    (r"^fpn\.fpn_convs\.(\d)\.0\.", r"features.smooth.\1.conv."),
    (r"^fpn\.fpn_convs\.(\d)\.1\.", r"features.smooth.\1.norm."),
    (r"^fpn\.out([12])\.0\.", r"features.pyramid.\1.0.conv."),
    (r"^fpn\.out([12])\.1\.", r"features.pyramid.\1.0.norm."),
    (r"^fpn\.out([12])\.3\.", r"features.pyramid.\1.1.conv."),
    (r"^fpn\.out([12])\.4\.", r"features.pyramid.\1.1.norm."),
    (r"^features\.pyramid\.1\.", "features.to6."),
    (r"^features\.pyramid\.2\.", "features.to12."),
    (r"^aggregation\.fusions\.(\d)\.branches\.(\d)\.0\.", r"aggregation.steps.\1.branches.\2."),
    (r"^aggregation\.fusions\.(\d)\.fuse_layers\.", r"aggregation.steps.\1.exchanges."),
    (r"(\.exchanges\.\d\.\d(?:\.\d)?)\.0\.(weight)$", r"\1.conv.\2"),
    (r"(\.exchanges\.\d\.\d(?:\.\d)?)\.1\.(\w+)$", r"\1.norm.\2"),
    (r"^aggregation\.final_conv\.", "aggregation.project."),
    *double_hourglass_rules(r"refinement\.0\.", "refinements.0.body.hourglass.", depth=4),
    *double_hourglass_rules(r"refinement\.1\.", "refinements.1.body.hourglass.", depth=4),
    (r"^refinement\.(\d)\.conv1\.", r"refinements.\1.embed_error."),
    (r"^refinement\.(\d)\.conv2\.", r"refinements.\1.embed_disparity."),
    (r"^(refinements\.\d\.embed_\w+)\.0\.", r"\1.conv."),
    (r"^(refinements\.\d\.embed_\w+)\.1\.", r"\1.norm."),
    (r"^refinement\.(\d)\.dilated_blocks\.(\d)\.conv(\d)\.", r"refinements.\1.body.\2.conv\3.conv."),
    (r"^refinement\.(\d)\.dilated_blocks\.(\d)\.bn(\d)\.", r"refinements.\1.body.\2.conv\3.norm."),
    (r"^refinement\.(\d)\.conv_start\.", r"refinements.\1.body.start."),
    (r"^refinement\.(\d)\.final_conv\.", r"refinements.\1.project."),
    (r"\.deform_conv\.", "."),
    (r"^(features\.start\.\d)\.bn\.", r"\1.norm."),
    (r"^(features\.layer\d\.\d|aggregation\.steps\.\d\.branches\.\d)\.", r"\1:"),
    (r":conv1\.", ".reduce.conv."),
    (r":bn1\.", ".reduce.norm."),
    (r":conv2\.", ".conv."),
    (r":bn2\.", ".norm."),
    (r":conv3\.", ".expand.conv."),
    (r":bn3\.", ".expand.norm."),
    (r":downsample\.0\.", ".shortcut.conv."),
    (r":downsample\.1\.", ".shortcut.norm."),
]


class Bottleneck(nn.Module):
    """1x1, 3x3 (plain or deformable, with the stride), 1x1, and a skip, rectified."""

    def __init__(
        self, inputs: int, width: int, outputs: int, *, stride: int = 1, deformable: bool = False
    ) -> None:
        super().__init__()
        self.reduce = ConvNorm(inputs, width, kernel=1, activation="relu")
        self.conv = (
            DeformableConv(width, width, stride=stride)
            if deformable
            else nn.Conv2d(width, width, 3, stride, 1, bias=False)
        )
        self.norm = nn.BatchNorm2d(width)
        self.expand = ConvNorm(width, outputs, kernel=1, activation="none")
        self.shortcut = (
            nn.Identity()
            if stride == 1 and inputs == outputs
            else ConvNorm(inputs, outputs, kernel=1, stride=stride, activation="none")
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o ho wo"]:
        y = F.relu(self.norm(self.conv(self.reduce(x))))
        return activate(self.expand(y) + self.shortcut(x), "relu")


class ResidualFeatures(nn.Module):
    """AANet: a residual network, deformable at 1/12, and a feature pyramid of 128 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 32, kernel=7, stride=3, activation="relu")
        self.layer1 = _layer(32, 32, blocks=3)
        self.layer2 = _layer(128, 64, blocks=4, stride=2)
        self.layer3 = _layer(256, 128, blocks=6, stride=2, deformable=True)
        self.lateral = nn.ModuleList(nn.Conv2d(width, 128, 1) for width in (128, 256, 512))
        self.smooth = nn.ModuleList(ConvNorm(128, 128, activation="relu", bias=True) for _ in range(3))

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        third = self.layer1(self.stem(image))
        sixth = self.layer2(third)
        maps = [third, sixth, self.layer3(sixth)]
        maps = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for level in (1, 0):
            maps[level] = maps[level] + doubled(maps[level + 1])
        return [smooth(x) for smooth, x in zip(self.smooth, maps, strict=True)]


def _layer(
    inputs: int, width: int, *, blocks: int, stride: int = 1, deformable: bool = False
) -> nn.Sequential:
    first = Bottleneck(inputs, width, 4 * width, stride=stride, deformable=deformable)
    rest = (Bottleneck(4 * width, width, 4 * width, deformable=deformable) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


class HourglassFeatures(nn.Module):
    """AANet+: GA-Net's two hourglasses with deformable convolutions at 1/3, and a pyramid going down."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Sequential(
            ConvNorm(3, 32, activation="relu"),
            ConvNorm(32, 32, kernel=5, stride=3, activation="relu"),
            DeformableConv(32, 32),
        )
        self.hourglass = _hourglass()
        self.to6 = _halving(32, 64)
        self.to12 = _halving(64, 128)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        _, third = self.hourglass(self.start(image))
        sixth = self.to6(third)
        return [third, sixth, self.to12(sixth)]


def _hourglass() -> DoubleHourglass:
    return DoubleHourglass((32, 48, 64, 96, 128), norm="batch", deformable=2)


def _halving(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        ConvNorm(inputs, outputs, stride=2, slope=0.2), ConvNorm(outputs, outputs, kernel=1, slope=0.2)
    )


class AdaptiveAggregation(nn.Module):
    """Six modules within and across scales; the planes of each scale are its channels."""

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(
            AggregationModule(levels, deformable=k >= _DEFORMABLE_FROM) for k in range(_MODULES)
        )
        self.project = nn.ModuleList(nn.Conv2d(width, width, 1) for width in levels)

    def forward(self, costs: list[Tensor]) -> list[Tensor]:
        """Scores at 1/3, and in training at 1/6 and 1/12."""
        wanted = len(costs) if self.training else 1
        for k, module in enumerate(self.steps):
            costs = module(costs, wanted if k == _MODULES - 1 else len(costs))
        return [project(cost) for project, cost in zip(self.project, costs, strict=False)]


class AggregationModule(nn.Module):
    """Each scale by itself (a bottleneck), then every scale gathers all of them."""

    def __init__(self, levels: Sequence[int], *, deformable: bool) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            Bottleneck(width, width, width, deformable=deformable) for width in levels
        )
        self.exchanges = nn.ModuleList(
            nn.ModuleList(_exchange(levels, source, target) for source in range(len(levels)))
            for target in range(len(levels))
        )

    def forward(self, costs: list[Tensor], wanted: int) -> list[Tensor]:
        """The first `wanted` scales."""
        costs = [branch(cost) for branch, cost in zip(self.branches, costs, strict=True)]
        gathered = []
        for target in range(wanted):
            size = costs[target].shape[-2:]
            total = costs[target].new_zeros(())
            exchanges = cast(nn.ModuleList, self.exchanges[target])
            for exchange, cost in zip(exchanges, costs, strict=True):
                total = total + _resized(exchange(cost), size)
            gathered.append(activate(total, "leaky", 0.2))
        return gathered


def _exchange(levels: Sequence[int], source: int, target: int) -> nn.Module:
    """What brings the source's planes to the target's: a projection upward, strided convolutions downward."""
    if source == target:
        return nn.Identity()
    if source > target:
        return ConvNorm(levels[source], levels[target], kernel=1, activation="none")
    width = levels[source]
    steps = [ConvNorm(width, width, stride=2, slope=0.2) for _ in range(target - source - 1)]
    return nn.Sequential(*steps, ConvNorm(width, levels[target], stride=2, activation="none"))


class Refinement(nn.Module):
    """A residual of the upsampled disparity, from it, the image, and the error of warping by it."""

    def __init__(self, plus: bool) -> None:
        super().__init__()
        self.embed_error = ConvNorm(6, 16, slope=0.2)
        self.embed_disparity = ConvNorm(1, 16, slope=0.2)
        self.body = (
            HourglassBody() if plus else nn.Sequential(*(DilatedResidual(32, d) for d in (1, 2, 4, 8, 1, 1)))
        )
        self.project = nn.Conv2d(32, 1, 3, padding=1)

    def forward(
        self,
        coarse: Float[Tensor, "b hc wc"],
        left: Float[Tensor, "b 3 h w"],
        right: Float[Tensor, "b 3 h w"],
    ) -> Float[Tensor, "b h w"]:
        """The coarse disparity, in its own pixels, to the images' size and pixels."""
        ratio = left.shape[-1] / coarse.shape[-1]
        disparity = ratio * _resized(coarse.unsqueeze(1), left.shape[-2:])
        error = _warped(right, disparity) - left
        features = [self.embed_error(torch.cat([error, left], 1)), self.embed_disparity(disparity)]
        return F.relu(disparity + self.project(self.body(torch.cat(features, 1)))).squeeze(1)


class HourglassBody(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.start = DeformableConv(32, 32)
        self.hourglass = _hourglass()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self.hourglass(self.start(x))[1]


def _warped(image: Float[Tensor, "b c h w"], disparity: Float[Tensor, "b 1 h w"]) -> Tensor:
    """The image at x - disparity, borders repeated; positions are normalised from corner to corner and
    sampled from edge to edge, as the release does."""
    height, width = image.shape[-2:]
    y = torch.linspace(-1, 1, height, device=image.device).view(1, -1, 1).expand_as(disparity[:, 0])
    x = torch.arange(width, device=image.device) - disparity[:, 0].float()
    grid = torch.stack([2 * x / (width - 1) - 1, y], -1)
    return F.grid_sample(image.float(), grid, padding_mode="border", align_corners=False)


def _resized(x: Float[Tensor, "b c h w"], size: torch.Size | tuple[int, ...]) -> Tensor:
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, tuple(size), mode="bilinear")


def _regressed(scores: Float[Tensor, "b d h w"], scale: int) -> Float[Tensor, "b h w"]:
    """The mean disparity in image pixels."""
    levels = torch.arange(scores.shape[1], device=scores.device, dtype=torch.float32)
    return scale * soft_argmax(scores, levels)
