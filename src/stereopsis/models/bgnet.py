"""BGNet: a coarse 3-D volume as a bilateral grid, read at half resolution where the image guides.

Xu et al., "Bilateral Grid Learning for Stereo Matching Networks", CVPR 2021 (arXiv 2101.01601), as released
in 3DCVdeveloper/BGNet (no licence stated for code or weights; written here from the paper and a
description). BGNet+ adds a residual refinement at half resolution.

Kept quirks of the release:
- images are gray, rounded to 8 bits, 0..255, neither scaled nor normalised, and padded by reflection at
  the top and the right;
- the last of the 97 candidates always scores zero: both its interpolation weights are zero;
- fine pixels count from corner to corner of the grid, whose cells do not (see `layers.bilateral`);
- the refinement warps by whole pixels.

Left out: the batch norms of the features' hourglass, which checkpoints hold and nothing uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.bilateral import slice_grid
from stereopsis.layers.convolution import ConvNorm
from stereopsis.layers.cost_volume import groupwise_correlation_volume
from stereopsis.layers.double_hourglass import DoubleHourglass, double_hourglass_rules
from stereopsis.layers.initialisation import he_by_output
from stereopsis.layers.regression import expected_disparity
from stereopsis.layers.residual import LinearResidual
from stereopsis.models.base import Padding, StateDict, StereoModel, rename
from stereopsis.models.registry import Card, register
from stereopsis.structures import VolumeOutput, luma

_LEVELS = 25
"""Planes of the volume, at 1/8: 0 to 192 pixels."""
_CANDIDATES = 97
"""Disparities of half-resolution pixels, 0 to 96."""


@dataclass(frozen=True)
class BGNetConfig:
    refinement: bool = False
    """BGNet+."""


_CARD = Card(
    title="BGNet and BGNet+",
    paper="Xu et al., Bilateral Grid Learning for Stereo Matching Networks, CVPR 2021, arXiv 2101.01601",
    repository="https://github.com/3DCVdeveloper/BGNet",
    code_licence="none stated",
    weights_licence="none stated",
    notes=(
        "gray images, 0..255; disparities from 0 to 192 pixels, not changeable",
        "the candidate of 96 half-resolution pixels always scores zero",
        "no recipe of its training is published with the code",
    ),
)


@register({"bgnet": BGNetConfig(), "bgnet-plus": BGNetConfig(refinement=True)}, card=_CARD)
class BGNet(StereoModel[BGNetConfig, VolumeOutput]):
    """`stages` holds BGNet+'s disparity before its refinement, at full size."""

    def __init__(self, config: BGNetConfig) -> None:
        super().__init__(config)
        self.features = FeatureExtraction()
        self.filter = nn.Sequential(_conv3d(44, 32), _conv3d(32, 16))
        self.coefficients = CoefficientPredictor()
        self.guide = nn.Sequential(
            ConvNorm(32, 16, kernel=1, slope=0.1), ConvNorm(16, 1, kernel=1, activation="none"), nn.Tanh()
        )
        self.refinement = Refinement() if config.refinement else None
        he_by_output(self)

    @property
    def padding(self) -> Padding:
        return Padding((64, 64), vertical="top", horizontal="right", fill="mirror")

    def forward(self, left: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"]) -> VolumeOutput:
        images = (luma(torch.cat([left, right])) * 255).round()
        features, low_level = self.features(images)
        left_features, right_features = features.chunk(2)
        volume = groupwise_correlation_volume(left_features, right_features, _LEVELS, groups=44)
        grid = self.coefficients(self.filter(volume)).transpose(1, 2)
        scores = _between(slice_grid(grid, self.guide(low_level[: left.shape[0]])))
        probabilities = scores.softmax(1)
        levels = torch.arange(_CANDIDATES, device=left.device, dtype=torch.float32)
        half = expected_disparity(probabilities, levels)
        disparity, stages = _doubled(half), ()
        if self.refinement is not None:
            stages = (disparity,)
            disparity = _doubled(self.refinement(half, *images.chunk(2)))
        return VolumeOutput(disparity, probabilities=probabilities, levels=2 * levels, stages=stages)

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> BGNetConfig | None:
        if "coeffs_disparity_predictor.last_for_guidance.0.weight" not in state:
            return None
        return BGNetConfig(refinement=any(name.startswith("refinement_net.") for name in state))

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> StateDict:
        return rename(state, _RULES, drop=(r"^feature_extraction\..*\.bn\.",))


_PREDICTOR = "coeffs_disparity_predictor"
_RULES = [
    (r"^feature_extraction\.firstconv\.", "features.stem."),
    (r"^feature_extraction\.layer1\.0\.", "features.scale2."),
    (r"^feature_extraction\.layer2\.0\.", "features.scale4."),
    (r"^feature_extraction\.layer3\.0\.", "features.scale8.0."),
    (r"^feature_extraction\.layer4\.0\.", "features.scale8.1."),
    (r"^feature_extraction\.reduce\.", "features.reduce."),
    *double_hourglass_rules(r"feature_extraction\.", "features.hourglass.", depth=3),
    (r"^dres0\.", "filter."),
    (rf"^{_PREDICTOR}\.conv1\.", "coefficients.scale16.down."),
    (rf"^{_PREDICTOR}\.conv2\.", "coefficients.scale16.same."),
    (rf"^{_PREDICTOR}\.conv1_1\.", "coefficients.scale32.down."),
    (rf"^{_PREDICTOR}\.conv2_1\.", "coefficients.scale32.same."),
    (rf"^{_PREDICTOR}\.conv3\.", "coefficients.scale64.down."),
    (rf"^{_PREDICTOR}\.conv4\.", "coefficients.scale64.same."),
    (rf"^{_PREDICTOR}\.conv5\.", "coefficients.up32."),
    (rf"^{_PREDICTOR}\.conv6\.", "coefficients.up16."),
    (rf"^{_PREDICTOR}\.conv7\.", "coefficients.up8."),
    (rf"^{_PREDICTOR}\.last_for_guidance\.", "coefficients.bins."),
    (r"^guide\.conv1\.", "guide.0."),
    (r"^guide\.conv2\.", "guide.1."),
    (r"^refinement_net\.conv1\.", "refinement.embed_error."),
    (r"^refinement_net\.conv2\.", "refinement.embed_disparity."),
    (r"^refinement_net\.conv_start\.", "refinement.start."),
    (r"^refinement_net\.final_conv\.", "refinement.project."),
    *double_hourglass_rules(r"refinement_net\.", "refinement.hourglass.", depth=4),
    (r"^(features\.\w+(?:\.\d)?)\.downsample\.", r"\1.shortcut."),
    (r"\.0\.(weight)$", r".conv.\1"),
    (r"\.1\.(weight|bias|running_mean|running_var|num_batches_tracked)$", r".norm.\1"),
]


class FeatureExtraction(nn.Module):
    """A gray image to matching features at 1/8 and a low-level map at 1/2."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            ConvNorm(1, 32, stride=2, activation="relu"),
            ConvNorm(32, 32, activation="relu"),
            ConvNorm(32, 32, activation="relu"),
        )
        self.scale2 = LinearResidual(32, 32)
        self.scale4 = LinearResidual(32, 64, stride=2)
        self.scale8 = nn.ModuleList([LinearResidual(64, 128, stride=2), LinearResidual(128, 128)])
        self.reduce = ConvNorm(128, 32, activation="relu")
        self.hourglass = DoubleHourglass((32, 48, 64, 96), norm="none")

    def forward(
        self, image: Float[Tensor, "b 1 h w"]
    ) -> tuple[Float[Tensor, "b 352 h8 w8"], Float[Tensor, "b 32 h2 w2"]]:
        low_level = self.scale2(self.stem(image))
        shallow = self.scale8[0](self.scale4(low_level))
        deep = self.scale8[1](shallow)
        reduced = self.reduce(deep)
        return torch.cat([shallow, deep, reduced, *self.hourglass(reduced)], 1), low_level


class CoefficientPredictor(nn.Module):
    """A 3-D hourglass, never strided along disparity: [b 16 d h w] -> the 32 bins of the grid."""

    def __init__(self) -> None:
        super().__init__()
        self.scale16 = Halving(16, 32)
        self.scale32 = Halving(32, 64)
        self.scale64 = Halving(64, 128)
        self.up32 = _doubling(128, 64)
        self.up16 = _doubling(64, 32)
        self.up8 = _doubling(32, 16)
        self.bins = _conv3d(16, 32)

    def forward(self, volume: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b g d h w"]:
        scale16 = self.scale16(volume)
        scale32 = self.scale32(scale16)
        up32 = self.up32(self.scale64(scale32)) + scale32
        return self.bins(self.up8(self.up16(up32) + scale16))


class Halving(nn.Module):
    """A strided convolution, and a second one beside a skip."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.down = _conv3d(inputs, outputs, stride=(1, 2, 2))
        self.same = _conv3d(outputs, outputs)

    def forward(self, volume: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b o d ho wo"]:
        down = self.down(volume)
        return self.same(down) + down


class Refinement(nn.Module):
    """BGNet+: a residual of the half-resolution disparity, from it and the error of warping by it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_error = ConvNorm(2, 16, slope=0.1)
        self.embed_disparity = ConvNorm(1, 16, slope=0.1)
        self.start = ConvNorm(32, 32, slope=0.1)
        self.hourglass = DoubleHourglass((32, 48, 64, 96, 128), norm="batch")
        self.project = nn.Conv2d(32, 1, 3, padding=1)

    def forward(
        self,
        half: Float[Tensor, "b h2 w2"],
        left: Float[Tensor, "b 1 h w"],
        right: Float[Tensor, "b 1 h w"],
    ) -> Float[Tensor, "b h2 w2"]:
        left, right = F.avg_pool2d(left, 2), F.avg_pool2d(right, 2)
        error = warp_by_whole_pixels(right, half) - left
        disparity = half.unsqueeze(1)
        features = [self.embed_error(torch.cat([error, left], 1)), self.embed_disparity(disparity)]
        _, refined = self.hourglass(self.start(torch.cat(features, 1)))
        return F.relu(disparity + self.project(refined)).squeeze(1)


def warp_by_whole_pixels(
    image: Float[Tensor, "b c h w"], disparity: Float[Tensor, "b h w"]
) -> Float[Tensor, "b c h w"]:
    """The image at column x - disparity, truncated to a whole one; zero where that lies outside."""
    width = image.shape[-1]
    columns = torch.arange(width, device=image.device) - disparity.float()
    inside = (columns >= 0) & (columns <= width - 1)
    index = columns.clamp(0, width - 1).long().unsqueeze(1).expand_as(image)
    return image.gather(-1, index) * inside.unsqueeze(1)


def _between(levels: Float[Tensor, "b d h w"]) -> Float[Tensor, "b k h w"]:
    """Scores of the 97 candidates: linear between levels four apart, and zero for the last; float32."""
    k = torch.arange(_CANDIDATES, device=levels.device)
    below = k // 4
    above = (below + 1).clamp(max=_LEVELS - 1)
    weights = torch.zeros(_CANDIDATES, _LEVELS, device=levels.device)
    weights[k, below] += above - k / 4
    weights[k, above] += k / 4 - below
    with torch.autocast(levels.device.type, enabled=False):
        return torch.einsum("kd,bdhw->bkhw", weights, levels.float())


def _doubled(half: Float[Tensor, "b h2 w2"]) -> Float[Tensor, "b h w"]:
    """Pixels of half the size to pixels of the full size."""
    return F.interpolate(2 * half.unsqueeze(1), scale_factor=2, mode="bilinear").squeeze(1)


def _conv3d(inputs: int, outputs: int, *, stride: tuple[int, ...] = (1, 1, 1)) -> ConvNorm:
    return ConvNorm(inputs, outputs, stride=stride, dimensions=3, slope=0.1)


def _doubling(inputs: int, outputs: int) -> ConvNorm:
    """Twice the rows and columns, as many levels."""
    return ConvNorm(
        inputs,
        outputs,
        stride=(1, 2, 2),
        output_padding=(0, 1, 1),
        dimensions=3,
        transposed=True,
        activation="none",
    )
