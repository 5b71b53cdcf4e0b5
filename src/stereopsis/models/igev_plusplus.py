"""IGEV++ and RT-IGEV++: geometry encoding over several disparity ranges, and its real-time relative.

Paper: Xu et al., "IGEV++: Iterative Multi-range Geometry Encoding Volumes for Stereo Matching", TPAMI 2025.
Official repository: gangweiX/IGEV-plusplus, folders core and core_rt (MIT, the weights too).

Kept quirks: images are not normalised as ImageNet's, although the backbone was trained there; the selective
weights of IGEV++'s three ranges do not sum to one; upsampling draws values at the border towards zero.
Deviations: the norm after RT-IGEV++'s last hourglass layer, which checkpoints hold and nothing uses, is left
out. IGEV++'s full volume is never held: its ranges are formed from parts of it.

Recipe: Scene Flow final pass, 200k steps, batch 8, 22 iterations, crop 256x768 (RT-IGEV++ 320x768), no random
rescaling, AdamW 2e-4, weight decay 1e-5, eps 1e-8, one-cycle over steps + 100 with 1 % warm-up and linear
annealing, gradient norm clipped to 1, 2-D batch norm frozen, backbone from ImageNet. Loss: sum over N
iterations of g^(N-1-i) * mean |d_i - target|, g = 0.9^(15/(N-1)), plus smooth L1 of the initial disparities:
RT-IGEV++ weight 1, targets below 192; IGEV++ 1.0, 0.5, 0.2 for its ranges, targets below 192, 384, 700 (the
iterations 700; all 192 on KITTI and ETH3D). KITTI: 2012 and 2015 together from Scene Flow's weights,
rescaled by 2^U(-0.4, 0.8). Middlebury: 200k steps at 384x512 on a mixture, then 100k at 384x768; ETH3D:
300k, then 100k.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.convolution import ConvNorm, channels_innermost
from stereopsis.layers.correlation import RowCorrelation, Storage, columns
from stereopsis.layers.cost_volume import groupwise_correlation_volume
from stereopsis.layers.encoders import ContextEncoder, encoder_rules, without_shortcut_aliases
from stereopsis.layers.geometry_encoder import (
    GeometryEncoder,
    MatchingFeatures,
    geometry_encoder_rules,
    match_views,
    regress,
)
from stereopsis.layers.geometry_volume import GeometryPyramid
from stereopsis.layers.hourglass import AttendedStem, GuidedHourglass, attention_rules, hourglass_rules
from stereopsis.layers.iteration import States, as_map, normalised
from stereopsis.layers.mobilenet import Rules
from stereopsis.layers.recurrent import ConvGRU, DeltaHead, MotionEncoder, MultilevelGRU, join_gates
from stereopsis.layers.stemmed_features import StemmedFeatures, StemmedMaps, stemmed_rules
from stereopsis.layers.superpixels import SuperpixelUpsampling, superpixel_upsampling_rules
from stereopsis.models.base import StartableModel, StateDict, rename
from stereopsis.models.registry import Card, register
from stereopsis.structures import IterativeOutput


@dataclass(frozen=True, kw_only=True)
class RtIgevPlusPlusConfig:
    """iterations: of the update; max_disparity: of the geometry volume, in pixels, a multiple of 32.

    stop_below: iterations end once the mean update falls below so many full-resolution pixels.
    frozen_norms: 2-D batch norm keeps its statistics in training.
    """

    iterations: int = 8
    max_disparity: int = 192
    lookup_levels: int = 2
    lookup_radius: int = 4
    stop_below: float | None = None
    frozen_norms: bool = True

    def __post_init__(self) -> None:
        if self.max_disparity < 32 or self.max_disparity % 32:
            raise ValueError(f"max_disparity must be a positive multiple of 32, it is {self.max_disparity}")


@dataclass(frozen=True, kw_only=True)
class IgevPlusPlusConfig:
    """max_disparity: of the widest range, in pixels, a multiple of 128; the others reach 1/4 and 1/2 of it.

    volume: the correlations are "stored", or "recomputed" in every lookup (little memory, same values);
    the rest as RtIgevPlusPlusConfig.
    """

    iterations: int = 32
    max_disparity: int = 768
    lookup_levels: int = 2
    lookup_radius: int = 4
    volume: Storage = "stored"
    stop_below: float | None = None
    frozen_norms: bool = True

    def __post_init__(self) -> None:
        if self.max_disparity < 128 or self.max_disparity % 128:
            raise ValueError(f"max_disparity must be a positive multiple of 128, it is {self.max_disparity}")

    @property
    def samples(self) -> int:
        """Levels of each range's volume: 1, 2 and 4 pixels at 1/4 apart."""
        return self.max_disparity // 16


def _card(title: str, published: str, note: str) -> Card:
    return Card(
        title=title,
        paper="Xu et al.: IGEV++: Iterative Multi-range Geometry Encoding Volumes for Stereo Matching. "
        "TPAMI 2025",
        repository="https://github.com/gangweiX/IGEV-plusplus",
        code_licence="MIT",
        weights_licence="MIT (published with the code)",
        published=(published,),
        notes=(note,),
    )


@register(
    {"igev-plusplus-rt": RtIgevPlusPlusConfig()},
    card=_card(
        "RT-IGEV++",
        "KITTI 2012 3-noc 1.29 %, KITTI 2015 D1-all 1.79 %, 48 ms on an RTX 3090 (paper, not verified here)",
        "the unused norm of the hourglass's last layer is left out",
    ),
    tiny={"iterations": 2, "max_disparity": 64},
)
class RtIgevPlusPlus(StartableModel[RtIgevPlusPlusConfig, IterativeOutput]):
    """RT-IGEV++. In evaluation `iterates` are the last fields before upsampling, cell by cell."""

    def __init__(self, config: RtIgevPlusPlusConfig) -> None:
        super().__init__(config)
        self.geometry = GeometryEncoder(stem=False)
        self.hidden = nn.Sequential(ConvNorm(96, 96), nn.Conv2d(96, 96, 3, padding=1, bias=False))
        self.context = ConvNorm(96, 96)
        self.context_gates = nn.Conv2d(96, 3 * 96, 3, padding=1)
        window = 2 * config.lookup_radius + 1
        self.motion = MotionEncoder(config.lookup_levels * 8 * window, outputs=96)
        self.update = ConvGRU(96, 96)
        self.delta_head = DeltaHead(96, 128)
        self.upsampling = SuperpixelUpsampling(96)

    def forward(
        self,
        left: Float[Tensor, "b 3 h w"],
        right: Float[Tensor, "b 3 h w"],
        *,
        initial: Float[Tensor, "b h w"] | None = None,
    ) -> IterativeOutput:
        """initial: a disparity to start from, in pixels, not finite where unknown; else the regressed one."""
        c = self.config
        left, right = (normalised(image, training=self.training) for image in (left, right))
        maps, *features, volume, first = self.geometry(left, right, levels=c.max_disparity // 4)
        lookup = GeometryPyramid(volume, levels=c.lookup_levels, radius=c.lookup_radius)
        del left, right, features, volume
        hidden = torch.tanh(self.hidden(maps.scale4))
        context = self.context_gates(self.context(maps.scale4))

        def step(states: States, field: Tensor) -> tuple[States, Tensor]:
            motion = self.motion(lookup(field), as_map(field))
            state = self.update(states[0], context, [motion])
            return [state], self.delta_head(state)[:, 0]

        return self.upsampling.refine(
            [first], [hidden], step, maps, initial=initial, iterations=c.iterations, stop_below=c.stop_below
        )

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> RtIgevPlusPlusConfig | None:
        marks = ("hnet.0.conv.weight", "context_zqr_conv.weight", "cost_agg.conv1_up.conv.weight")
        return RtIgevPlusPlusConfig() if all(mark in state for mark in marks) else None

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> StateDict:
        rules = [
            *geometry_encoder_rules("geometry."),
            (r"^hnet\.", "hidden."),
            (r"^cnet\.", "context."),
            (r"^context_zqr_conv\.", "context_gates."),
            (r"^update_block\.gru\.", "update."),
            *_update_rules(),
        ]
        return rename(join_gates(state), rules, drop=(r"^cost_agg\.conv1_up\.bn\.",))


class Range(NamedTuple):
    """One range of IGEV++: its aggregated volume and the disparity regressed from it, in pixels at 1/4."""

    volume: Float[Tensor, "b 8 d h w"]
    disparity: Float[Tensor, "b h w"]


class RangeEncoder(nn.Module):
    """Three volumes of equal size over ranges of 1, 2 and 4 times the length, aggregated and regressed."""

    intervals = (1, 2, 4)

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.ModuleList(
            nn.Conv3d(8, 8, (interval, 1, 1), stride=(interval, 1, 1), bias=False)
            for interval in self.intervals[1:]
        )
        self.stems = nn.ModuleList(AttendedStem(8, 8, norm="instance") for _ in self.intervals)
        self.aggregate = nn.ModuleList(
            GuidedHourglass(8, 8, bottom=64, norm="instance") for _ in self.intervals
        )
        self.classify = nn.Conv3d(8, 1, 3, padding=1, bias=False)

    def forward(
        self,
        left: Float[Tensor, "b 96 h w"],
        right: Float[Tensor, "b 96 h w"],
        maps: StemmedMaps,
        *,
        samples: int,
    ) -> list[Range]:
        """samples: levels of each volume, a multiple of 8. Ranges from short to long."""
        ranges = []
        for index, interval in enumerate(self.intervals):
            volume = self.volume(left, right, index, samples)
            if not self.training:
                volume = channels_innermost(volume)
            volume = self.stems[index](volume, maps.scale4)
            volume = self.aggregate[index](volume, maps)
            ranges.append(Range(volume, regress(self.classify(volume), interval=interval)))
        return ranges

    def volume(self, left: Tensor, right: Tensor, index: int, samples: int) -> Float[Tensor, "b 8 d h w"]:
        """The range's correlations, `interval` neighbouring levels merged, `samples` levels at a time."""
        parts = []
        for start in range(0, samples * self.intervals[index], samples):
            shifted = F.pad(right, (start, 0))[..., : right.shape[-1]]
            part = groupwise_correlation_volume(left, shifted, samples, groups=8)
            parts.append(part if index == 0 else self.patches[index - 1](part))
        return torch.cat(parts, 2)


@register(
    {"igev-plusplus": IgevPlusPlusConfig()},
    card=_card(
        "IGEV++",
        "Scene Flow EPE 0.67 px over 768 px (paper, not verified here)",
        "the full volume is never held: its ranges are formed from parts of it",
    ),
    tiny={"iterations": 2, "max_disparity": 128},
)
class IgevPlusPlus(StartableModel[IgevPlusPlusConfig, IterativeOutput]):
    """IGEV++. In evaluation `iterates` are the last fields before upsampling, cell by cell."""

    def __init__(self, config: IgevPlusPlusConfig) -> None:
        super().__init__(config)
        self.features = StemmedFeatures(norm="instance")
        self.match = MatchingFeatures()
        self.ranges = RangeEncoder()
        self.disparity_features = nn.Sequential(
            ConvNorm(3, 64, kernel=1, norm="instance"), ConvNorm(64, 64, norm="instance")
        )
        self.select = nn.Sequential(
            ConvNorm(160, 128, kernel=1, norm="instance"),
            ConvNorm(128, 128, norm="instance"),
            nn.Conv2d(128, 3, 3, padding=1, bias=False),
        )
        self.context = ContextEncoder(norm="batch", downsample=2, levels=3)
        self.context_gates = nn.ModuleList(nn.Conv2d(128, 384, 3, padding=1) for _ in range(3))
        window = 2 * config.lookup_radius + 1
        levels = (config.lookup_levels, 1, 1)
        self.geometry_features = nn.ModuleList(_geometry_features(count * 8 * window) for count in levels)
        self.motion = MotionEncoder(
            96 + config.lookup_levels * window, value_widths=(128, 96), field_widths=(32, 32)
        )
        self.update = MultilevelGRU[Tensor](3, ConvGRU)
        self.delta_head = DeltaHead()
        self.upsampling = SuperpixelUpsampling(128, features=64, norm="instance", width=64)

    def forward(
        self,
        left: Float[Tensor, "b 3 h w"],
        right: Float[Tensor, "b 3 h w"],
        *,
        initial: Float[Tensor, "b h w"] | None = None,
    ) -> IterativeOutput:
        """initial: a disparity to start from, in pixels, not finite where unknown; else the short range's."""
        c = self.config
        left, right = (normalised(image, training=self.training) for image in (left, right))
        hidden, context = self.context(left)
        contexts = [gates(x) for gates, x in zip(self.context_gates, context, strict=True)]
        maps, left_features, right_features = match_views(self.features, self.match, left, right)
        ranges = self.ranges(left_features, right_features, maps, samples=c.samples)
        disparities = [found.disparity for found in ranges]
        lookup = _RangeLookup(ranges, left_features, right_features, c)
        weights = self.weigh_ranges(maps.scale4, disparities)
        del left, right, ranges, left_features, right_features, context

        def step(states: States, field: Tensor) -> tuple[States, Tensor]:
            geometry, correlation = lookup(field)
            encoded = [encode(g) for encode, g in zip(self.geometry_features, geometry, strict=True)]
            short, middle, long = (w * e for w, e in zip(weights.split(1, 1), encoded, strict=True))
            motion = self.motion(torch.cat([short + middle + long, correlation], 1), as_map(field))
            states = self.update(states, contexts, motion)
            return states, self.delta_head(states[0])[:, 0]

        return self.upsampling.refine(
            disparities, hidden, step, maps, initial=initial, iterations=c.iterations, stop_below=c.stop_below
        )

    def weigh_ranges(
        self, features: Float[Tensor, "b 96 h w"], disparities: list[Tensor]
    ) -> Float[Tensor, "b 3 h w"]:
        """How far each range is trusted at each pixel, 0 to 1; they do not sum to one."""
        seen = self.disparity_features(torch.stack(disparities, 1))
        return torch.sigmoid(self.select(torch.cat([features, seen], 1)))

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> IgevPlusPlusConfig | None:
        marks = ("patch0.weight", "selective_conv.2.weight", "cost_agg2.conv1_up.conv.weight")
        return IgevPlusPlusConfig() if all(mark in state for mark in marks) else None

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> StateDict:
        rules = [
            *stemmed_rules("features."),
            (r"^conv\.", "match.0."),
            (r"^desc\.", "match.1."),
            (r"^patch([01])\.", r"ranges.patches.\1."),
            (r"^classifier\.", "ranges.classify."),
        ]
        for index in range(3):
            old, new = rf"cost_agg{index}", f"ranges.aggregate.{index}"
            rules.append((rf"^{old}\.conv0\.", f"ranges.stems.{index}.conv."))
            rules += attention_rules(rf"{old}\.feature_att_4", f"ranges.stems.{index}.attention")
            rules += hourglass_rules(old, new)
        rules += [
            (r"^disp_conv\.", "disparity_features."),
            (r"^selective_conv\.", "select."),
            *encoder_rules("cnet", "context", heads=("outputs04", "outputs08", "outputs16")),
            (r"^context_zqr_convs\.", "context_gates."),
            (r"^update_block\.gru04\.", "update.grus.0."),
            (r"^update_block\.gru08\.", "update.grus.1."),
            (r"^update_block\.gru16\.", "update.grus.2."),
            (r"^update_block\.geo_encoder([012])\.convg1\.", r"geometry_features.\1.0."),
            (r"^update_block\.geo_encoder([012])\.convg2\.", r"geometry_features.\1.2."),
            *_update_rules(),
        ]
        return rename(join_gates(without_shortcut_aliases(state)), rules)


def _geometry_features(values: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(values, 128, 1), nn.ReLU(), nn.Conv2d(128, 96, 3, padding=1))


class _RangeLookup:
    """Lookups into the three ranges' volumes and the correlations' pyramid."""

    def __init__(self, ranges: list[Range], left: Tensor, right: Tensor, config: IgevPlusPlusConfig) -> None:
        levels, radius = config.lookup_levels, config.lookup_radius
        self._short = GeometryPyramid(ranges[0].volume, levels=levels, radius=radius)
        self._longer = [GeometryPyramid(found.volume, levels=1, radius=radius) for found in ranges[1:]]
        self._correlation = RowCorrelation(left, right, levels=levels, radius=radius, storage=config.volume)
        self._columns = columns(left)

    def __call__(self, disparity: Float[Tensor, "b h w"]) -> tuple[list[Tensor], Tensor]:
        """(per range the volume's values, the correlations), channels as published."""
        geometry = [self._short(disparity)]
        for volume, interval in zip(self._longer, RangeEncoder.intervals[1:], strict=True):
            geometry.append(volume(disparity / interval))
        return geometry, self._correlation(self._columns - disparity)


def _update_rules() -> Rules:
    return [
        (r"^update_block\.encoder\.convc", "motion.value"),
        (r"^update_block\.encoder\.convd", "motion.field"),
        (r"^update_block\.encoder\.conv\.", "motion.merge."),
        (r"^update_block\.disp_head\.", "delta_head."),
        *superpixel_upsampling_rules("upsampling"),
        (r"\.bn\.", ".norm."),
    ]
