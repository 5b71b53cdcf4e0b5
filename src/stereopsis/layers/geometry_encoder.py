"""The non-iterative half of IGEV-Stereo (CVPR 2023): features, geometry encoding volume, first disparity."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.convolution import ConvNorm, channels_innermost
from stereopsis.layers.cost_volume import groupwise_correlation_volume
from stereopsis.layers.hourglass import AttendedStem, GuidedHourglass, attention_rules, hourglass_rules
from stereopsis.layers.mobilenet import Rules
from stereopsis.layers.regression import soft_argmax
from stereopsis.layers.stemmed_features import StemmedFeatures, StemmedMaps, stemmed_rules


class GeometryEncoding(NamedTuple):
    """What the iterations build on; maps are the left image's, disparity is in pixels at 1/4."""

    maps: StemmedMaps
    left: Float[Tensor, "b 96 h w"]
    right: Float[Tensor, "b 96 h w"]
    volume: Float[Tensor, "b 8 d h w"]
    disparity: Float[Tensor, "b h w"]


class MatchingFeatures(nn.Sequential):
    """The features at 1/4 to those that are correlated."""

    def __init__(self) -> None:
        super().__init__(ConvNorm(96, 96, norm="instance"), nn.Conv2d(96, 96, 1))


class GeometryEncoder(nn.Module):
    """Images in [-1, 1] to a group-wise correlation volume, aggregated, and the disparity regressed from it.

    stem: whether an attended convolution precedes the hourglass (IGEV-Stereo) or not (RT-IGEV++);
    features: whether it extracts them itself, else only `encode` serves.
    """

    def __init__(self, *, stem: bool, features: bool = True) -> None:
        super().__init__()
        self.features = StemmedFeatures(norm="instance") if features else None
        self.match = MatchingFeatures()
        self.stem = AttendedStem(8, 8, norm="batch") if stem else None
        self.aggregate = GuidedHourglass(8, 8, bottom=48, norm="batch")
        self.classify = nn.Conv3d(8, 1, 3, padding=1, bias=False)

    def forward(
        self, left: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"], *, levels: int
    ) -> GeometryEncoding:
        """levels: disparities at 1/4, a multiple of 8."""
        if self.features is None:
            raise ValueError("this geometry encoder has no features of its own: use encode")
        maps, *features = match_views(self.features, self.match, left, right)
        return self._encode(maps, *features, levels=levels)

    def encode(
        self, maps: StemmedMaps, features: Float[Tensor, "b2 96 h w"], *, levels: int
    ) -> GeometryEncoding:
        """maps: of the left images; features: those at 1/4 of the left, then of the right images."""
        left_features, right_features = self.match(features).chunk(2)
        return self._encode(maps, left_features, right_features, levels=levels)

    def _encode(self, maps: StemmedMaps, left: Tensor, right: Tensor, *, levels: int) -> GeometryEncoding:
        volume = groupwise_correlation_volume(left, right, levels, groups=8)
        if not self.training:
            volume = channels_innermost(volume)
        if self.stem is not None:
            volume = self.stem(volume, maps.scale4)
        volume = self.aggregate(volume, maps)
        return GeometryEncoding(maps, left, right, volume, regress(self.classify(volume)))


def match_views(
    features: StemmedFeatures,
    match: MatchingFeatures,
    left: Float[Tensor, "b 3 h w"],
    right: Float[Tensor, "b 3 h w"],
) -> tuple[StemmedMaps, Tensor, Tensor]:
    """The left image's maps and both images' matching features.

    CPUs take one image after the other, which is as quick as a batch and holds half as much.
    """
    if left.device.type == "cpu" and not features.training:
        maps = features(left)
        return maps, match(maps.scale4), match(features(right).scale4)
    both = features(torch.cat([left, right]))
    left_features, right_features = match(both.scale4).chunk(2)
    return both.first(len(left)), left_features, right_features


def regress(scores: Float[Tensor, "b 1 d h w"], *, interval: int = 1) -> Float[Tensor, "b h w"]:
    """The expected disparity, levels `interval` pixels apart, in float32."""
    levels = interval * torch.arange(scores.shape[2], device=scores.device, dtype=torch.float32)
    return soft_argmax(scores[:, 0].float(), levels)


def geometry_encoder_rules(ours: str) -> Rules:
    """Renaming rules from the IGEV family's names; ours ends with a dot."""
    return [
        *stemmed_rules(f"{ours}features."),
        (r"^conv\.", f"{ours}match.0."),
        (r"^desc\.", f"{ours}match.1."),
        (r"^corr_stem\.", f"{ours}stem.conv."),
        *attention_rules("corr_feature_att", f"{ours}stem.attention"),
        *hourglass_rules("cost_agg", f"{ours}aggregate"),
        (r"^classifier\.", f"{ours}classify."),
    ]
