"""HSMNet: four feature volumes from coarse to fine, each decoder fed by the one before; on-demand levels.

Yang et al., "Hierarchical Deep Stereo Matching on High-Resolution Images", CVPR 2019 (arXiv 1912.06704),
as released in gengshan-y/high-res-stereo (code and weights: MIT, Carnegie Mellon University). One
checkpoint serves all levels: 1 reads the finest scores, 2 and 3 stop earlier and are for inference only.

Kept quirks of the release:
- scores of 1/8 resolution have levels of 16 pixels, as many as those of 1/16;
- the feature pyramid pools from the smallest kernel to the largest, the volumes' the other way round;
- the shortcut of a volume's block is a 2-D convolution over (disparity, flattened rows and columns).

Deviations: scores are read out in slabs of rows, never as a volume of full resolution.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.convolution import ConvNorm, channels_innermost
from stereopsis.layers.cost_volume import difference_volume
from stereopsis.layers.initialisation import he_by_output
from stereopsis.layers.regression import entropy, upsampled_distribution, upsampled_soft_argmax
from stereopsis.layers.upsampling import doubled
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

_SLOPE = 0.1
_SCALES = (6, 5, 4, 3)
"""Halvings of the image at which there are features and volumes, coarse to fine."""


@dataclass(frozen=True)
class HSMNetConfig:
    max_disparity: int = 384
    """In pixels of the images given to the network; a multiple of 64, at least 128."""
    level: Literal[1, 2, 3] = 1
    """1: scores of 1/8 resolution; 2: of 1/16; 3: of 1/32, the fastest."""
    clean: float | None = None
    """Disparity becomes infinite where the entropy of its distribution (nats) exceeds this."""
    width: int = 16
    """Half the channels of the volumes' filters; the released network has 16."""

    def __post_init__(self) -> None:
        if self.max_disparity < 128 or self.max_disparity % 64:
            raise ValueError(
                f"max_disparity must be a multiple of 64 and at least 128, it is {self.max_disparity}"
            )


_CARD = Card(
    title="HSMNet",
    paper="Yang et al., Hierarchical Deep Stereo Matching on High-Resolution Images, CVPR 2019, "
    "arXiv 1912.06704",
    repository="https://github.com/gengshan-y/high-res-stereo",
    code_licence="MIT",
    weights_licence="MIT",
    published=(
        "hsmnet: average error about 5.7 px on 24 additional Middlebury pairs, half resolution, after "
        "40 000 iterations (repository's README)",
    ),
    notes=(
        "the published program halves the images (testres 0.5) and takes the maximum disparity of each "
        "image from its calibration",
    ),
)


@register({"hsmnet": HSMNetConfig()}, card=_CARD, tiny={"max_disparity": 128, "width": 4})
class HSMNet(StereoModel[HSMNetConfig, VolumeOutput]):
    def __init__(self, config: HSMNetConfig) -> None:
        super().__init__(config)
        width = config.width
        self.feature_extraction = FeatureExtraction(width, scales=_SCALES[: 5 - config.level])
        self.decoder6 = Decoder(2 * width, width, blocks=6, pooled=True, upsampled=True)
        self.decoder5 = Decoder(2 * width, width, blocks=6, pooled=True, upsampled=config.level < 3)
        if config.level <= 2:
            self.decoder4 = Decoder(2 * width, width, blocks=6, upsampled=config.level < 2)
        if config.level == 1:
            self.decoder3 = Decoder(2 * width, width, blocks=5, halved=True)
        he_by_output(self)

    @property
    def padding(self) -> Padding:
        return Padding(
            multiple=(64, 64), vertical="top", horizontal="right", fill=IMAGENET_MEAN, minimum=(128, 128)
        )

    def forward(self, left: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"]) -> VolumeOutput:
        """In training `stages` are the disparities of the three coarser decoders, coarse to fine.

        In evaluation `confidence` is one minus the entropy of the distribution read at each pixel, as a
        share of the largest.
        """
        if self.training and self.config.level != 1:
            raise ValueError(f"HSMNet is trained at level 1, not {self.config.level}")
        scores = self.match(left, right)
        size = (left.shape[-2], left.shape[-1])
        step = 32 if self.config.level == 3 else 16
        levels = step * torch.arange(float(self.config.max_disparity // step), device=left.device)
        if self.training:
            stages = [upsampled_soft_argmax(s, levels, size) for s in scores]
            return VolumeOutput(disparity=stages[-1], stages=tuple(stages[:-1]))
        disparity, uncertainty = _read(scores[-1], levels, size)
        if self.config.clean is not None:
            disparity = torch.where(uncertainty > self.config.clean, torch.inf, disparity)
        return VolumeOutput(
            disparity=disparity,
            confidence=(1 - uncertainty / math.log(len(levels))).clamp(0, 1),
            probabilities=scores[-1].softmax(1),
            levels=levels,
        )

    def match(
        self, left: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"]
    ) -> list[Float[Tensor, "b _ _ _"]]:
        """Scores of each decoder over its levels, coarse to fine; in evaluation only of the last."""
        left, right = (normalise(image, IMAGENET_MEAN, IMAGENET_STD) for image in (left, right))
        maps = self.feature_extraction.encode(channels_innermost(torch.cat([left, right])))
        volumes = self._volumes(self.feature_extraction.project(maps))
        decoded = self.decoder6(next(volumes))
        scores = [decoded.scores]
        for decoder in self.finer_decoders:
            assert decoded.finer is not None
            decoded = decoder(channels_innermost(torch.cat([decoded.finer, next(volumes)], 1)))
            scores.append(decoded.scores)
        return [s for s in scores if s is not None]

    @property
    def finer_decoders(self) -> list[Decoder]:
        names = ("decoder5", "decoder4", "decoder3")[: 4 - self.config.level]
        return [cast(Decoder, self.get_submodule(name)) for name in names]

    def _volumes(self, features: list[Float[Tensor, "b2 _ _ _"]]) -> Iterator[Float[Tensor, "b _ _ _ _"]]:
        """Absolute differences at 1/64, 1/32, 1/16, 1/8, made as they are asked for."""
        for scale, both in zip((64, 32, 16, 8), features, strict=False):
            yield _absolute_differences(both, self.config.max_disparity // scale)

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> HSMNetConfig | None:
        if "feature_extraction.convbnrelu1_1.cbr_unit.0.weight" not in state:
            return None
        if "decoder6.convs.0.conv1.0.weight" not in state:
            return None
        level: Literal[1, 2, 3] = 3
        if any(name.startswith("decoder4.") for name in state):
            level = 2
        if any(name.startswith("decoder3.") for name in state):
            level = 1
        return HSMNetConfig(level=level)

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> StateDict:
        """Buffers named after `disp` only hold the levels of the maximum disparity of their training."""
        return rename(state, _OFFICIAL_NAMES, drop=[r"disp"])

    def without_unused(self, state: StateDict) -> StateDict:
        """A checkpoint of level 1 serves levels 2 and 3, which lack its finer parts."""
        with torch.device("meta"):
            whole = HSMNet(dataclasses.replace(self.config, level=1)).state_dict().keys()
        lacking = whole - self.state_dict().keys()
        return {name: tensor for name, tensor in state.items() if name not in lacking}


_OFFICIAL_NAMES = [
    (r"\.cbr?_unit\.0\.", ".conv."),
    (r"\.cbr?_unit\.1\.", ".norm."),
    (r"\.downsample\.(0|conv1)\.", ".shortcut.conv."),
    (r"\.downsample\.(1|bn)\.", ".shortcut.norm."),
    (r"\.(conv1|conv2|pool_convs\.\d)\.0\.weight", r".\1.conv.weight"),
    (r"\.(conv1|conv2|pool_convs\.\d)\.1\.", r".\1.norm."),
    (r"\.up\.1\.0\.", ".up.conv."),
    (r"\.up\.1\.1\.", ".up.norm."),
    (r"\.classify\.0\.0\.", ".classifier.0.conv."),
    (r"\.classify\.0\.1\.", ".classifier.0.norm."),
    (r"\.classify\.2\.0\.", ".classifier.1."),
    (r"\.convbnrelu1_(\d)\.", lambda m: f".stem.{int(m[1]) - 1}."),
    (r"\.res_block(\d)\.0\.", r".residual\1."),
    (r"\.convbnrelu1\.", ".conv1."),
    (r"\.convbn2\.", ".conv2."),
    (r"\.pyramid_pooling\.path_module_list\.", ".pooling."),
    (r"\.upconv(\d)\.1\.", r".up\1."),
    (r"\.iconv(\d)\.", r".merge\1."),
    (r"\.proj(\d)\.", r".projection\1."),
    (r"\.pool_convs\.", ".pooling."),
    (r"\.convs\.", ".blocks."),
]
"""Published names of HSMNet -> ours; also SMD-Nets' of their HSMNet."""


class Maps(NamedTuple):
    """What the feature network computes on its way: at 1/2, and (after merging) at 1/8 .. 1/64."""

    stem: Tensor
    c3: Tensor | None
    c4: Tensor | None
    c5: Tensor
    c6: Tensor


class FeatureExtraction(nn.Module):
    """A residual network down to 1/64, pooling there, and back up with skips.

    scales: halvings (6 .. 3) at which features are projected for volumes; the way up ends at the finest.
    """

    def __init__(self, width: int, *, scales: Sequence[int]) -> None:
        super().__init__()
        self.scales = tuple(scales)
        self.stem = nn.Sequential(_unit(3, width, stride=2), _unit(width, width), _unit(width, 2 * width))
        self.residual3 = ResidualBlock(2 * width, 4 * width)
        self.residual5 = ResidualBlock(4 * width, 8 * width)
        self.residual6 = ResidualBlock(8 * width, 8 * width)
        self.residual7 = ResidualBlock(8 * width, 8 * width)
        self.pooling = nn.ModuleList(_unit(8 * width, 8 * width, kernel=1) for _ in range(4))
        self.up6 = _unit(8 * width, 4 * width)
        self.merge5 = _unit(12 * width, 8 * width)
        if min(scales) <= 4:
            self.up5 = _unit(8 * width, 4 * width)
            self.merge4 = _unit(12 * width, 8 * width)
        if min(scales) <= 3:
            self.up4 = _unit(8 * width, 4 * width)
            self.merge3 = _unit(8 * width, 4 * width)
        inputs = {6: 8 * width, 5: 8 * width, 4: 8 * width, 3: 4 * width}
        for scale in scales:
            outputs = 2 * width if scale == 6 else width
            self.add_module(f"projection{scale}", _unit(inputs[scale], outputs, kernel=1))

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Maps:
        stem = self.stem(images)
        eighth = self.residual3(F.max_pool2d(stem, 3, stride=2, padding=1))
        sixteenth = self.residual5(eighth)
        half = self.residual6(sixteenth)
        c6 = self._pooled(self.residual7(half))
        c5 = self.merge5(torch.cat([half, self.up6(doubled(c6))], 1))
        c4 = c3 = None
        if min(self.scales) <= 4:
            c4 = self.merge4(torch.cat([sixteenth, self.up5(doubled(c5))], 1))
        if min(self.scales) <= 3:
            assert c4 is not None
            c3 = self.merge3(torch.cat([eighth, self.up4(doubled(c4))], 1))
        return Maps(stem, c3, c4, c5, c6)

    def project(self, maps: Maps) -> list[Float[Tensor, "b _ _ _"]]:
        """Features for matching at each of the scales."""
        sources = {6: maps.c6, 5: maps.c5, 4: maps.c4, 3: maps.c3}
        return [self.get_submodule(f"projection{scale}")(sources[scale]) for scale in self.scales]

    def _pooled(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Means over boxes of four sizes, the smallest box first."""
        height, width = x.shape[-2:]
        total = torch.zeros_like(x)
        for path, parts in zip(self.pooling, reversed(_parts(x)), strict=True):
            box = (height // parts, width // parts)
            total += F.interpolate(path(F.avg_pool2d(x, box, box)), (height, width), mode="bilinear")
        return F.relu((x + 0.25 * total) / 2)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions that halve the size, and a skip, whose sum has no activation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = _unit(inputs, outputs, stride=2)
        self.conv2 = ConvNorm(outputs, outputs, activation="none")
        self.shortcut = ConvNorm(inputs, outputs, kernel=1, stride=2, activation="none")

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o hh wh"]:
        return self.conv2(self.conv1(x)).add_(self.shortcut(x))


class Decoded(NamedTuple):
    scores: Tensor | None
    """[b d h w]; None in evaluation where the decoder goes on to a finer one."""
    finer: Tensor | None
    """[b c 2d 2h 2w] for the next decoder."""


class Decoder(nn.Module):
    """Filters of a volume [b c d h w]: residual blocks, pooling, then scores, or features of twice its size.

    halved: the first block halves the number of levels.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        *,
        blocks: int,
        pooled: bool = False,
        upsampled: bool = False,
        halved: bool = False,
    ) -> None:
        super().__init__()
        filters = 2 * width
        first = VolumeBlock(inputs, filters, halved=halved)
        rest = (VolumeBlock(filters, filters, halved=False) for _ in range(blocks - 1))
        self.blocks = nn.Sequential(first, *rest)
        self.pooling = nn.ModuleList(
            ConvNorm(filters, filters, kernel=1, dimensions=3, activation="none")
            for _ in range(4 if pooled else 0)
        )
        self.up = ConvNorm(filters, width, dimensions=3, activation="relu") if upsampled else None
        self.classifier = nn.Sequential(
            ConvNorm(filters, filters, dimensions=3, activation="relu"), nn.Conv3d(filters, 1, 3, padding=1)
        )

    def forward(self, volume: Float[Tensor, "b c d h w"]) -> Decoded:
        filtered = self.blocks(volume)
        if len(self.pooling):
            filtered = self._pooled(filtered)
        if self.up is None:
            return Decoded(self.classifier(filtered).squeeze(1), None)
        scores = self.classifier(filtered).squeeze(1) if self.training else None
        return Decoded(scores, self.up(F.interpolate(filtered, scale_factor=2, mode="trilinear")))

    def _pooled(self, x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b c d h w"]:
        """Means over boxes of four sizes, the largest box first."""
        size = x.shape[-3:]
        total = torch.zeros_like(x)
        for path, parts in zip(self.pooling, _parts(x), strict=True):
            box = (size[0] // parts, size[1] // parts, size[2] // parts)
            total += F.interpolate(path(F.avg_pool3d(x, box, box)), size, mode="trilinear")
        return F.relu_((x + 0.25 * total) / 2)


class VolumeBlock(nn.Module):
    """Two 3-D convolutions and a skip, rectified."""

    def __init__(self, inputs: int, outputs: int, *, halved: bool) -> None:
        super().__init__()
        stride = (2, 1, 1) if halved else (1, 1, 1)
        self.conv1 = ConvNorm(inputs, outputs, dimensions=3, stride=stride, activation="relu")
        self.conv2 = ConvNorm(outputs, outputs, dimensions=3, activation="none")
        self.shortcut = (
            None
            if inputs == outputs and not halved
            else ConvNorm(inputs, outputs, kernel=1, stride=stride[:2], activation="none")
        )

    def forward(self, x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b o do h w"]:
        skip = x
        if self.shortcut is not None:
            skip = self.shortcut(x.flatten(3)).unflatten(3, x.shape[-2:])
        return F.relu_(self.conv2(self.conv1(x)).add_(skip))


def _unit(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> ConvNorm:
    return ConvNorm(inputs, outputs, kernel=kernel, stride=stride, slope=_SLOPE)


def _parts(x: Tensor) -> list[int]:
    """Into how many parts each of four poolings cuts a map or volume: 1 to half the shortest side."""
    sides = x.shape[2:]
    return [int(parts) for parts in np.linspace(1, min(sides) // 2, 4)]


def _absolute_differences(both: Float[Tensor, "b2 c h w"], levels: int) -> Float[Tensor, "b c d h w"]:
    left, right = both.chunk(2)
    return channels_innermost(difference_volume(left, right, levels)).abs_()


def _read(
    scores: Float[Tensor, "b d h w"], levels: Float[Tensor, " d"], size: tuple[int, int]
) -> tuple[Float[Tensor, "b hu wu"], Float[Tensor, "b hu wu"]]:
    """The mean disparity, and the entropy (nats), of the softmax of scores resized to the image."""
    disparities, entropies = [], []
    for probabilities in upsampled_distribution(scores, len(levels), size):
        disparities.append(torch.matmul(probabilities, levels))
        entropies.append(entropy(probabilities.permute(0, 3, 1, 2)))
    return torch.cat(disparities, 1), torch.cat(entropies, 1)


@register_backbone("hsmnet")
class HSMNetBackbone(Backbone):
    """HSMNet's features and its finest decoder alone, for a head.

    Maps: scores (1/8), then the left image's maps at 1/2, 1/8, 1/16 and 1/32.
    """

    def __init__(self, *, max_disparity: int, in_channels: int = 3, width: int = 16) -> None:
        super().__init__()
        if in_channels != 3:
            raise ValueError(f"HSMNet takes 3 channels an image, not {in_channels}")
        self.levels = max_disparity // 8
        self.feature_extraction = FeatureExtraction(width, scales=(3,))
        self.decoder3 = Decoder(width, width, blocks=5, halved=True)
        self.channels = (max_disparity // 16, 2 * width, 4 * width, 8 * width, 8 * width)
        self.smallest = 128
        he_by_output(self)

    def forward(self, left: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        maps = self.feature_extraction.encode(channels_innermost(torch.cat([left, right])))
        volume = _absolute_differences(self.feature_extraction.project(maps)[0], self.levels)
        scores = self.decoder3(volume).scores
        assert maps.c3 is not None
        assert maps.c4 is not None
        batch = left.shape[0]
        return [scores, *(m[:batch] for m in (maps.stem, maps.c3, maps.c4, maps.c5))]

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> StateDict:
        """The release also holds the coarser decoders and projections, which it does not use."""
        unused = [r"disp_reg", r"^decoder[456]\.", r"^feature_extraction\.proj[456]\."]
        return rename(state, _OFFICIAL_NAMES, drop=unused)
