"""Selective-Stereo: RAFT-Stereo and IGEV-Stereo with recurrent units that choose their receptive field.

Paper: Wang, Xu, Jia, Yang, "Selective-Stereo: Adaptive Frequency Information Selection for Stereo Matching",
CVPR 2024. Official repository: Windsrain/Selective-Stereo (MIT; the published weights come with it).

Kept quirks: Selective-IGEV quarters its mask features before upsampling, IGEV-Stereo does not;
Selective-RAFT's field is a flow, minus the disparity; upsampling draws values at the border towards zero.
Deviation: the context's share of the units' convolutions is computed once instead of in every iteration.

Recipe: Scene Flow final pass, 200k steps, batch 8, 22 iterations, crop 320x736 (Selective-RAFT 320x720),
AdamW 2e-4, weight decay 1e-5, eps 1e-8, one-cycle over steps + 100 with 1 % warm-up and linear annealing,
gradient norm clipped to 1, 2-D batch norm frozen. Loss: as IGEV-Stereo, targets below `max_disparity`
(Selective-RAFT: without the initial term, targets below 192). KITTI: 50k steps from Scene Flow. ETH3D:
300k at 384x512 on a mixture, then 90k. Middlebury: 200k at 384x512 on a mixture, then 100k at 384x768
with `max_disparity` 768, evaluated with 80 iterations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.attention import ChannelAttention, SpatialAttention
from stereopsis.layers.correlation import RowCorrelation, Storage, columns
from stereopsis.layers.encoders import (
    ContextEncoder,
    FeatureEncoder,
    encoder_rules,
    without_shortcut_aliases,
)
from stereopsis.layers.geometry_encoder import GeometryEncoder, geometry_encoder_rules
from stereopsis.layers.geometry_volume import CombinedGeometry
from stereopsis.layers.iteration import States, as_map, normalised, refine, starting_field
from stereopsis.layers.mobilenet import Rules
from stereopsis.layers.recurrent import (
    DeltaHead,
    MotionEncoder,
    MultilevelGRU,
    SelectiveContext,
    SelectiveGRU,
    join_gates,
    split_contexts,
)
from stereopsis.layers.superpixels import SuperpixelUpsampling, superpixel_upsampling_rules
from stereopsis.layers.upsampling import convex_upsample
from stereopsis.models.base import StartableModel, StateDict, rename
from stereopsis.models.registry import Card, register
from stereopsis.structures import IterativeOutput


@dataclass(frozen=True, kw_only=True)
class SelectiveRaftConfig:
    """iterations: of the update.

    volume: the correlations are "stored", or "recomputed" in every lookup (little memory, same values).
    stop_below: iterations end once the mean update falls below so many full-resolution pixels.
    frozen_norms: 2-D batch norm keeps its statistics in training.
    """

    iterations: int = 32
    correlation_levels: int = 4
    correlation_radius: int = 4
    volume: Storage = "stored"
    stop_below: float | None = None
    frozen_norms: bool = True


@dataclass(frozen=True, kw_only=True)
class SelectiveIgevConfig:
    """max_disparity: of the geometry volume, in pixels, a multiple of 32; the rest as SelectiveRaftConfig."""

    iterations: int = 32
    max_disparity: int = 192
    lookup_levels: int = 2
    lookup_radius: int = 4
    volume: Storage = "stored"
    stop_below: float | None = None
    frozen_norms: bool = True

    def __post_init__(self) -> None:
        if self.max_disparity < 32 or self.max_disparity % 32:
            raise ValueError(f"max_disparity must be a positive multiple of 32, it is {self.max_disparity}")


def _card(title: str, published: tuple[str, ...]) -> Card:
    return Card(
        title=title,
        paper="Wang, Xu, Jia, Yang: Selective-Stereo: Adaptive Frequency Information Selection for Stereo "
        "Matching. CVPR 2024",
        repository="https://github.com/Windsrain/Selective-Stereo",
        code_licence="MIT",
        weights_licence="MIT (published with the code)",
        published=published,
        notes=("the context's share of the recurrent units is convolved once, not in every iteration",),
    )


class ContextualSpatialAttention(nn.Module):
    """Contexts weighted by channel, and a map of where each level needs a small receptive field."""

    def __init__(self) -> None:
        super().__init__()
        self.channel = ChannelAttention(128)
        self.spatial = SpatialAttention()

    def forward(self, contexts: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Per level the weighted context [b 128 h w] and the attention [b 1 h w]."""
        weighted = [self.channel(context) for context in contexts]
        return [(context, self.spatial(context)) for context in weighted]


class SelectiveUpdate(nn.Module):
    """Selective units at three levels, with their contexts' shares computed beforehand by `prepare`."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = ContextualSpatialAttention()
        self.units = MultilevelGRU[SelectiveContext](3, _selective_gru)

    def prepare(self, contexts: Sequence[Tensor]) -> list[SelectiveContext]:
        attended = self.attention(contexts)
        return [
            cast(SelectiveGRU, gru).prepare(context, attention)
            for gru, (context, attention) in zip(self.units.grus, attended, strict=True)
        ]

    def forward(
        self, states: Sequence[Tensor], contexts: Sequence[SelectiveContext], motion: Float[Tensor, "b c h w"]
    ) -> list[Tensor]:
        return self.units(states, contexts, motion)


def _selective_gru(hidden: int, inputs: int) -> SelectiveGRU:
    return SelectiveGRU(hidden, inputs, context=128)


@register(
    {"selective-raft": SelectiveRaftConfig()},
    card=_card("Selective-RAFT", ("Scene Flow EPE 0.47 px (paper, not verified here)",)),
    tiny={"iterations": 2},
)
class SelectiveRaft(StartableModel[SelectiveRaftConfig, IterativeOutput]):
    """Selective-RAFT. In evaluation `iterates` are the last fields before upsampling, cell by cell."""

    def __init__(self, config: SelectiveRaftConfig) -> None:
        super().__init__(config)
        self.features = FeatureEncoder(downsample=2)
        self.context = ContextEncoder(norm="batch", downsample=2, levels=3)
        self.motion = MotionEncoder(config.correlation_levels * (2 * config.correlation_radius + 1))
        self.update = SelectiveUpdate()
        self.delta_head = DeltaHead()
        self.mask_head = nn.Sequential(nn.Conv2d(128, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 144, 1))

    def forward(
        self,
        left: Float[Tensor, "b 3 h w"],
        right: Float[Tensor, "b 3 h w"],
        *,
        initial: Float[Tensor, "b h w"] | None = None,
    ) -> IterativeOutput:
        """initial: a disparity to start from, in pixels, not finite where unknown; else zero everywhere."""
        c = self.config
        left, right = (normalised(image, training=self.training) for image in (left, right))
        left_features, right_features = self.features(left), self.features(right)
        lookup = RowCorrelation(
            left_features,
            right_features,
            levels=c.correlation_levels,
            radius=c.correlation_radius,
            scale=left_features.shape[1] ** -0.5,
            storage=c.volume,
        )
        hidden, context = self.context(left)
        contexts = self.update.prepare(context)
        x = columns(left_features)
        nothing = x.new_zeros(len(left), *left_features.shape[-2:])
        del left, right, left_features, right_features, context

        def step(states: States, disparity: Tensor) -> tuple[States, Tensor]:
            motion = self.motion(lookup(x - disparity), as_map(-disparity))
            states = self.update(states, contexts, motion)
            return states, -self.delta_head(states[0])[:, 0]

        return refine(
            starting_field(initial, nothing),
            hidden,
            step,
            self.upsample,
            factor=4,
            iterations=c.iterations,
            stop_below=c.stop_below,
            training=self.training,
        )

    def upsample(
        self, disparity: Float[Tensor, "b h w"], hidden: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, "b hf wf"]:
        """The full-resolution disparity."""
        return convex_upsample(4 * disparity[:, None], 0.25 * self.mask_head(hidden), 4)[:, 0]

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> SelectiveRaftConfig | None:
        marks = ("cam.fc.0.weight", "fnet.conv1.weight")
        return SelectiveRaftConfig() if all(mark in state for mark in marks) else None

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> StateDict:
        rules = [
            *encoder_rules("fnet", "features"),
            *encoder_rules("cnet", "context", heads=("outputs08", "outputs16", "outputs32")),
            *_update_rules(),
            (r"^update_block\.encoder\.convf", "motion.field"),
            (r"^update_block\.mask\.", "mask_head."),
        ]
        return rename(split_contexts(join_gates(without_shortcut_aliases(state))), rules)


@register(
    {"selective-igev": SelectiveIgevConfig()},
    card=_card(
        "Selective-IGEV",
        ("Scene Flow EPE 0.44 px, KITTI 2015 D1-all 1.55 % (paper, not verified here)",),
    ),
    tiny={"iterations": 2, "max_disparity": 64},
)
class SelectiveIgev(StartableModel[SelectiveIgevConfig, IterativeOutput]):
    """Selective-IGEV. In evaluation `iterates` are the last fields before upsampling, cell by cell."""

    def __init__(self, config: SelectiveIgevConfig) -> None:
        super().__init__(config)
        self.geometry = GeometryEncoder(stem=True)
        self.context = ContextEncoder(norm="batch", downsample=2, levels=3)
        window = 2 * config.lookup_radius + 1
        self.motion = MotionEncoder(config.lookup_levels * (8 + 1) * window)
        self.update = SelectiveUpdate()
        self.delta_head = DeltaHead()
        self.upsampling = SuperpixelUpsampling(128, share=0.25)

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
        hidden, context = self.context(left)
        contexts = self.update.prepare(context)
        maps, left_features, right_features, volume, first = self.geometry(
            left, right, levels=c.max_disparity // 4
        )
        lookup = CombinedGeometry(
            volume,
            left_features,
            right_features,
            levels=c.lookup_levels,
            radius=c.lookup_radius,
            storage=c.volume,
        )
        del left, right, volume, left_features, right_features, context

        def step(states: States, field: Tensor) -> tuple[States, Tensor]:
            motion = self.motion(lookup(field), as_map(field))
            states = self.update(states, contexts, motion)
            return states, self.delta_head(states[0])[:, 0]

        return self.upsampling.refine(
            [first], hidden, step, maps, initial=initial, iterations=c.iterations, stop_below=c.stop_below
        )

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> SelectiveIgevConfig | None:
        marks = ("cam.fc.0.weight", "corr_stem.conv.weight")
        return SelectiveIgevConfig() if all(mark in state for mark in marks) else None

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> StateDict:
        rules = [
            *geometry_encoder_rules("geometry."),
            *encoder_rules("cnet", "context", heads=("outputs04", "outputs08", "outputs16")),
            *_update_rules(),
            (r"^update_block\.encoder\.convd", "motion.field"),
            *superpixel_upsampling_rules("upsampling"),
            (r"\.bn\.", ".norm."),
        ]
        state = split_contexts(join_gates(without_shortcut_aliases(state)))
        return rename(state, rules, drop=(r"^cost_agg\.conv1_up\.bn\.",))


def _update_rules() -> Rules:
    return [
        (r"^cam\.fc\.0\.", "update.attention.channel.squeeze."),
        (r"^cam\.fc\.2\.", "update.attention.channel.excite."),
        (r"^sam\.samconv\.", "update.attention.spatial.conv."),
        (r"^update_block\.gru04\.", "update.units.grus.0."),
        (r"^update_block\.gru08\.", "update.units.grus.1."),
        (r"^update_block\.gru16\.", "update.units.grus.2."),
        (r"\.(small|large)_gru(_context)?\.", r".\1\2."),
        (r"^update_block\.encoder\.convc", "motion.value"),
        (r"^update_block\.encoder\.conv\.", "motion.merge."),
        (r"^update_block\.disp_head\.", "delta_head."),
    ]
