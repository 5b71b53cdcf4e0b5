"""RAFT-Stereo: recurrent refinement of a disparity field by lookups into an all-pairs correlation of rows.

Paper: Lipson, Teed, Deng, "RAFT-Stereo: Multilevel Recurrent Field Transforms for Stereo Matching", 3DV 2021.
Official repository: princeton-vl/RAFT-Stereo (MIT; the published weights come with it).

Kept quirks: the field is a flow, minus the disparity; it has a vertical component that is always zero;
convex upsampling draws values at the image border towards zero.
Deviations: the real-time variant's third GRU level, which its checkpoints hold and its authors never
evaluate, is left out. The correlation pyramid is formed from pooled features (equal up to rounding).

Recipe: Scene Flow (clean x4, final x4; disparities below 512 are valid), 200k steps, batch 8, crop 320x720,
22 iterations, AdamW 2e-4, weight decay 1e-5, eps 1e-8, one-cycle over steps + 100 with 1 % warm-up and linear
annealing, gradient norm clipped to 1, batch norm frozen. Loss: sum over N iterations of
g^(N-1-i) * mean |d_i - target| with g = 0.9^(15/(N-1)) over valid pixels below 700. Middlebury fine-tuning:
4000 steps, crop 384x1000, 2e-5, batch 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.correlation import RowCorrelation, Storage, columns
from stereopsis.layers.encoders import (
    ContextEncoder,
    ContextMaps,
    FeatureEncoder,
    ResidualBlock,
    encoder_rules,
    residual_rules,
    without_shortcut_aliases,
)
from stereopsis.layers.iteration import States, as_map, normalised, refine, starting_field
from stereopsis.layers.recurrent import ConvGRU, DeltaHead, MotionEncoder, MultilevelGRU, join_gates
from stereopsis.layers.upsampling import convex_upsample
from stereopsis.models.base import Padding, StartableModel, StateDict, rename
from stereopsis.models.registry import Card, register
from stereopsis.structures import IterativeOutput


@dataclass(frozen=True, kw_only=True)
class RaftStereoConfig:
    """iterations: of the update; downsample: the field lies at 1/2^downsample; levels: of GRUs;
    slow_fast: coarse GRUs are updated more often than fine ones; shared_backbone: matching features come
    from the context encoder's trunk; context_norm: of the context encoder.

    volume: "stored", or "recomputed" in every lookup (little memory, same values). stop_below: iterations
    end once the mean update falls below so many full-resolution pixels. frozen_norms: batch norm keeps
    its statistics in training.
    """

    iterations: int = 32
    downsample: int = 2
    levels: int = 3
    slow_fast: bool = False
    shared_backbone: bool = False
    context_norm: Literal["batch", "instance"] = "batch"
    correlation_levels: int = 4
    correlation_radius: int = 4
    volume: Storage = "stored"
    stop_below: float | None = None
    frozen_norms: bool = True

    @property
    def factor(self) -> int:
        """Full-resolution pixels per pixel of the field."""
        return 2**self.downsample


DEFAULT = RaftStereoConfig()
REALTIME = RaftStereoConfig(iterations=7, downsample=3, levels=2, slow_fast=True, shared_backbone=True)
RVC = RaftStereoConfig(context_norm="instance")


@register(
    {"raft-stereo": DEFAULT, "raft-stereo-realtime": REALTIME, "raft-stereo-rvc": RVC},
    card=Card(
        title="RAFT-Stereo",
        paper="Lipson, Teed, Deng: Multilevel Recurrent Field Transforms for Stereo Matching. 3DV 2021",
        repository="https://github.com/princeton-vl/RAFT-Stereo",
        code_licence="MIT",
        weights_licence="MIT (published with the code)",
        published=(
            "trained on Scene Flow only, from the paper, not verified here: KITTI 2015 5.74 % (> 3 px), "
            "Middlebury full / half / quarter 18.33 / 12.59 / 9.36 % (> 2 px), ETH3D 3.28 % (> 1 px)",
            "KITTI benchmark, as listed by IGEV's authors, not verified here: 2012 3-noc 1.30 %, "
            "2015 D1-all 1.82 %",
        ),
        notes=("the real-time variant's unused third GRU level is left out",),
    ),
    tiny={"iterations": 2},
)
class RaftStereo(StartableModel[RaftStereoConfig, IterativeOutput]):
    """RAFT-Stereo. In evaluation `iterates` are the last fields before upsampling, cell by cell."""

    def __init__(self, config: RaftStereoConfig) -> None:
        super().__init__(config)
        if config.shared_backbone:
            block = ResidualBlock(128, 128, norm="instance")
            self.project = nn.Sequential(block, nn.Conv2d(128, 256, 3, padding=1))
        else:
            self.features = FeatureEncoder(downsample=config.downsample)
        self.context = ContextEncoder(
            norm=config.context_norm, downsample=config.downsample, levels=config.levels
        )
        self.context_gates = nn.ModuleList(nn.Conv2d(128, 384, 3, padding=1) for _ in range(config.levels))
        window = 2 * config.correlation_radius + 1
        self.motion = MotionEncoder(config.correlation_levels * window, field=2)
        self.update = MultilevelGRU[Tensor](config.levels, ConvGRU)
        self.flow_head = DeltaHead(outputs=2)
        self.mask_head = nn.Sequential(
            nn.Conv2d(128, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 9 * config.factor**2, 1)
        )

    @property
    def padding(self) -> Padding:
        return Padding(multiple=(32, 32), minimum=(32, 16 * self.config.factor))

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
        left_features, right_features, (hidden, context) = self.encode(left, right)
        lookup = RowCorrelation(
            left_features,
            right_features,
            levels=c.correlation_levels,
            radius=c.correlation_radius,
            scale=left_features.shape[1] ** -0.5,
            storage=c.volume,
        )
        contexts = [gates(x) for gates, x in zip(self.context_gates, context, strict=True)]
        x = columns(left_features)
        nothing = torch.zeros_like(x).expand(len(left), left_features.shape[-2], -1)
        del left, right, left_features, right_features, context

        def step(states: States, disparity: Tensor) -> tuple[States, Tensor]:
            if c.slow_fast:
                for finest in reversed(range(1, c.levels)):
                    states = self.update(states, contexts, finest=finest)
            states = self.update(
                states,
                contexts,
                self.motion(lookup(x - disparity), as_map(-disparity, torch.zeros_like(disparity))),
            )
            return states, -self.flow_head(states[0])[:, 0]

        return refine(
            starting_field(initial, nothing),
            hidden,
            step,
            self.upsample,
            factor=c.factor,
            iterations=c.iterations,
            stop_below=c.stop_below,
            training=self.training,
        )

    def encode(
        self, left: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"]
    ) -> tuple[Tensor, Tensor, ContextMaps]:
        """Matching features of both images, hidden states and contexts of the left one."""
        if not self.config.shared_backbone:
            return self.features(left), self.features(right), self.context(left)
        if self.training:
            trunk = self.context.trunk(torch.cat([left, right]))
            left_features, right_features = self.project(trunk).chunk(2)
            return left_features, right_features, self.context.heads(trunk[: len(left)])
        left, right = self.context.trunk(left), self.context.trunk(right)
        return self.project(left), self.project(right), self.context.heads(left)

    def upsample(
        self, disparity: Float[Tensor, "b h w"], hidden: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, "b hf wf"]:
        """The full-resolution disparity."""
        factor = self.config.factor
        return convex_upsample(factor * disparity[:, None], 0.25 * self.mask_head(hidden), factor)[:, 0]

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> RaftStereoConfig | None:
        mask = state.get("update_block.mask.2.weight")
        coarse = state.get("update_block.gru16.convz.weight")
        if mask is None or coarse is None or "context_zqr_convs.0.weight" not in state:
            return None
        shared = "conv2.0.conv1.weight" in state
        base = REALTIME if shared else DEFAULT
        return RaftStereoConfig(
            iterations=base.iterations,
            downsample=((mask.shape[0] // 9).bit_length() - 1) // 2,
            levels=3 if coarse.shape[1] == 384 else 2,
            slow_fast=base.slow_fast,
            shared_backbone=shared,
            context_norm="batch" if "cnet.norm1.weight" in state else "instance",
        )

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> StateDict:
        config = cls.recognise(state)
        unused = (r"^cnet\.layer5\.", r"^cnet\.outputs32\.", r"^update_block\.gru32\.")
        two_levels = config is not None and config.levels == 2
        rules = encoder_rules("fnet", "features")
        rules += encoder_rules("cnet", "context", heads=("outputs08", "outputs16", "outputs32"))
        rules += [
            (r"^conv2\.", "project."),
            (r"^context_zqr_convs\.", "context_gates."),
            (r"^update_block\.gru08\.", "update.grus.0."),
            (r"^update_block\.gru16\.", "update.grus.1."),
            (r"^update_block\.gru32\.", "update.grus.2."),
            (r"^update_block\.encoder\.convc", "motion.value"),
            (r"^update_block\.encoder\.convf", "motion.field"),
            (r"^update_block\.encoder\.conv\.", "motion.merge."),
            (r"^update_block\.flow_head\.", "flow_head."),
            (r"^update_block\.mask\.", "mask_head."),
        ]
        rules += residual_rules(r"^(project\.0)")
        return rename(join_gates(without_shortcut_aliases(state)), rules, drop=unused if two_levels else ())
