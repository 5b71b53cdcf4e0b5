"""CoEx: a cosine volume excited by image features, regressed from its two best planes.

Bangunharcana et al., "Correlate-and-Excite: Real-Time Stereo Matching via Guided Cost Volume Excitation",
IROS 2021 (arXiv 2108.05773), as released in antabangun/coex (code and weights: GPL-3.0; written here from
the paper and a description, without its code).

Kept quirks of the release:
- images are read in OpenCV's channel order and normalised with ImageNet's RGB statistics: the released
  weights expect BGR;
- cosines are divided by the features' lengths without an epsilon;
- disparity is padded with zeros before it is upsampled, so that it falls towards the border.

Left out: excitation, skip and aggregation of the volume at 1/4 (index 0 of `channelAtt`, `conv_skip`,
`conv_agg`) and the norm of the last upsampling, which checkpoints hold and nothing uses; the release's
demonstration, which pads images of fitting size by another 32 pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.convolution import ConvNorm
from stereopsis.layers.cost_volume import correlation_volume
from stereopsis.layers.hourglass import AttendedStem, GuidedHourglass
from stereopsis.layers.regression import top_k_regression
from stereopsis.layers.stemmed_features import StemmedFeatures, stemmed_rules
from stereopsis.layers.superpixels import ImageSuperpixels, image_superpixel_rules
from stereopsis.layers.upsampling import superpixel_upsample
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


@dataclass(frozen=True)
class CoExConfig:
    max_disparity: int = 192
    """Pixels, a multiple of 32."""
    top_k: int = 2
    """Planes that take part in the regression."""

    def __post_init__(self) -> None:
        if self.max_disparity < 32 or self.max_disparity % 32:
            raise ValueError(f"CoEx's max_disparity must be a multiple of 32, it is {self.max_disparity}")
        if not 2 <= self.top_k <= self.levels:
            raise ValueError(f"CoEx's top_k must be 2 to {self.levels}, it is {self.top_k}")

    @property
    def levels(self) -> int:
        """Planes of the volume, 4 pixels apart."""
        return self.max_disparity // 4


_CARD = Card(
    title="CoEx",
    paper="Bangunharcana et al., Correlate-and-Excite: Real-Time Stereo Matching via Guided Cost Volume "
    "Excitation, IROS 2021, arXiv 2108.05773",
    repository="https://github.com/antabangun/coex",
    code_licence="GPL-3.0",
    weights_licence="GPL-3.0",
    published=(
        "SceneFlow test: EPE 0.69 px, 0 < disparity <= 192 (paper)",
        "SceneFlow test: EPE 0.596 px with later weights, same mask (repository)",
    ),
    notes=(
        "the released weights expect BGR with ImageNet's RGB statistics: kept",
        "the demonstration's extra 32 pixels of padding are left out",
    ),
)


@register({"coex": CoExConfig()}, card=_CARD, tiny={"max_disparity": 64})
class CoEx(StereoModel[CoExConfig, VolumeOutput]):
    """`stages` holds the disparity at 1/4 before it is upsampled, in pixels of the image."""

    official_prefixes = ("stereo.",)

    def __init__(self, config: CoExConfig) -> None:
        super().__init__(config)
        self.features = StemmedFeatures(norm="batch")
        self.descriptor = nn.Sequential(ConvNorm(96, 48), nn.Conv2d(48, 48, 1))
        self.stem = AttendedStem(1, 8, norm="batch")
        self.aggregate = GuidedHourglass(8, 1, bottom=48, norm="batch")
        self.superpixels = ImageSuperpixels(24, norm="batch")

    @property
    def padding(self) -> Padding:
        blue, green, red = IMAGENET_MEAN
        return Padding((32, 32), vertical="bottom", horizontal="right", fill=(red, green, blue))

    def forward(self, left: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"]) -> VolumeOutput:
        images = torch.cat([left, right]).flip(1)
        both = self.features(normalise(images, IMAGENET_MEAN, IMAGENET_STD))
        maps = both.first(left.shape[0])
        volume = self._correlate(both.scale4).unsqueeze(1)
        scores = self.aggregate(self.stem(volume, maps.scale4), maps).squeeze(1).float()
        levels = 4 * torch.arange(self.config.levels, device=left.device, dtype=torch.float32)
        quarter = top_k_regression(scores, levels, k=self.config.top_k)
        full = superpixel_upsample(quarter.unsqueeze(1), self.superpixels(maps.scale4, maps.stem2)).squeeze(1)
        return VolumeOutput(full, probabilities=scores.softmax(1), levels=levels, stages=(quarter,))

    def _correlate(self, features: Float[Tensor, "b2 c h w"]) -> Float[Tensor, "b d h w"]:
        """Cosines of left with shifted right descriptors; the batch holds the left images, then the right."""
        descriptors = self.descriptor(features).float()
        left, right = (descriptors / descriptors.norm(dim=1, keepdim=True)).chunk(2)
        return correlation_volume(left, right, self.config.levels) * left.shape[1]

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> CoExConfig | None:
        own = {"cost_agg.channelAttStem.im_att.0.conv.weight", "cost_volume.desc.weight", "spx.0.weight"}
        return CoExConfig() if own <= state.keys() else None

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> StateDict:
        rules = [
            (r"^cost_volume\.conv\.", "descriptor.0."),
            (r"^cost_volume\.desc\.", "descriptor.1."),
            (r"^cost_agg\.conv_stem\.", "stem.conv."),
            (r"^cost_agg\.channelAttStem\.", "stem.attention."),
            (r"^cost_agg\.channelAtt\.1\.", "aggregate.attend_up8."),
            (r"^cost_agg\.channelAtt\.2\.", "aggregate.attend_up16."),
            (r"^cost_agg\.conv_up\.0\.conv\.", "aggregate.up4."),
        ]
        for index, scale in enumerate((8, 16, 32)):
            rules += [
                (rf"^cost_agg\.conv_down\.{index}\.", f"aggregate.down{scale}."),
                (rf"^cost_agg\.channelAttDown\.{index}\.", f"aggregate.attend{scale}."),
            ]
        for index, scale in ((1, 8), (2, 16)):
            rules += [
                (rf"^cost_agg\.conv_up\.{index}\.", f"aggregate.up{scale}."),
                (rf"^cost_agg\.conv_skip\.{index}\.", f"aggregate.merge{scale}.0."),
                (rf"^cost_agg\.conv_agg\.{index}\.0\.", f"aggregate.merge{scale}.1."),
                (rf"^cost_agg\.conv_agg\.{index}\.1\.", f"aggregate.merge{scale}.2."),
            ]
        rules += [(r"\.im_att\.0\.", ".squeeze."), (r"\.im_att\.1\.", ".weigh.")]
        rules += [(r"^up\.", "feature."), *stemmed_rules("features."), *image_superpixel_rules("superpixels")]
        rules += [(r"\.bn\.", ".norm.")]
        unused = (r"^cost_agg\.(channelAtt|conv_skip|conv_agg)\.0\.", r"^cost_agg\.conv_up\.0\.bn\.")
        return rename(state, rules, drop=unused)
