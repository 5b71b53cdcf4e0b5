"""IGEV-Stereo: recurrent refinement that looks up an aggregated cost volume beside raw correlations.

Paper: Xu, Wang, Ding, Yang, "Iterative Geometry Encoding Volume for Stereo Matching", CVPR 2023.
Official repository: gangweiX/IGEV, folder IGEV-Stereo (MIT; the published weights come with it).

Kept quirks: images are not normalised as ImageNet's, although the backbone was trained there; feature
attention has batch norm where the feature path has instance norm; upsampling draws values at the image
border towards zero.
Deviations: the norm after the hourglass's last layer, which checkpoints hold and nothing uses, is left out.

Recipe: Scene Flow final pass (FlyingThings3D, Monkaa, Driving), 200k steps, batch 8, crop 320x736,
22 iterations, AdamW 2e-4, weight decay 1e-5, eps 1e-8, one-cycle over steps + 100 with 1 % warm-up and linear
annealing, gradient norm clipped to 1, 2-D batch norm frozen, backbone from ImageNet. Loss: smooth L1 of the
initial disparity + sum over N iterations of g^(N-1-i) * mean |d_i - target|, g = 0.9^(15/(N-1)), over valid
targets below 192. KITTI: 2012 and 2015 together, from Scene Flow's weights, the same settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.correlation import Storage
from stereopsis.layers.encoders import ContextEncoder, encoder_rules, without_shortcut_aliases
from stereopsis.layers.geometry_encoder import GeometryEncoder, geometry_encoder_rules
from stereopsis.layers.geometry_volume import CombinedGeometry
from stereopsis.layers.iteration import States, as_map, normalised
from stereopsis.layers.recurrent import ConvGRU, DeltaHead, MotionEncoder, MultilevelGRU, join_gates
from stereopsis.layers.superpixels import SuperpixelUpsampling, superpixel_upsampling_rules
from stereopsis.models.base import StartableModel, StateDict, rename
from stereopsis.models.registry import Card, register
from stereopsis.structures import IterativeOutput


@dataclass(frozen=True, kw_only=True)
class IgevStereoConfig:
    """iterations: of the update; max_disparity: of the geometry volume, in pixels, a multiple of 32.

    volume: the correlations are "stored", or "recomputed" in every lookup (little memory, same values).
    stop_below: iterations end once the mean update falls below so many full-resolution pixels.
    frozen_norms: 2-D batch norm keeps its statistics in training.
    """

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


@register(
    {"igev-stereo": IgevStereoConfig()},
    card=Card(
        title="IGEV-Stereo",
        paper="Xu, Wang, Ding, Yang: Iterative Geometry Encoding Volume for Stereo Matching. CVPR 2023",
        repository="https://github.com/gangweiX/IGEV",
        code_licence="MIT",
        weights_licence="MIT (published with the code)",
        published=(
            "KITTI 2012 3-noc 1.12 %, KITTI 2015 D1-all 1.59 %, 0.18 s, 0.66 GB (repository's README)",
            "Scene Flow EPE 0.47 px (paper, not verified here)",
        ),
        notes=("the unused norm of the hourglass's last layer is left out",),
    ),
    tiny={"iterations": 2, "max_disparity": 64},
)
class IgevStereo(StartableModel[IgevStereoConfig, IterativeOutput]):
    """IGEV-Stereo. In evaluation `iterates` are the last fields before upsampling, cell by cell."""

    def __init__(self, config: IgevStereoConfig) -> None:
        super().__init__(config)
        self.geometry = GeometryEncoder(stem=True)
        self.context = ContextEncoder(norm="batch", downsample=2, levels=3)
        self.context_gates = nn.ModuleList(nn.Conv2d(128, 384, 3, padding=1) for _ in range(3))
        window = 2 * config.lookup_radius + 1
        self.motion = MotionEncoder(config.lookup_levels * (8 + 1) * window)
        self.update = MultilevelGRU[Tensor](3, ConvGRU)
        self.delta_head = DeltaHead()
        self.upsampling = SuperpixelUpsampling(128)

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
        contexts = [gates(x) for gates, x in zip(self.context_gates, context, strict=True)]
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
    def recognise(cls, state: Mapping[str, Tensor]) -> IgevStereoConfig | None:
        marks = ("corr_stem.conv.weight", "cnet.conv1.weight", "update_block.gru04.convz.weight")
        return IgevStereoConfig() if all(mark in state for mark in marks) else None

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> StateDict:
        rules = [
            *geometry_encoder_rules("geometry."),
            *encoder_rules("cnet", "context", heads=("outputs04", "outputs08", "outputs16")),
            (r"^context_zqr_convs\.", "context_gates."),
            (r"^update_block\.gru04\.", "update.grus.0."),
            (r"^update_block\.gru08\.", "update.grus.1."),
            (r"^update_block\.gru16\.", "update.grus.2."),
            (r"^update_block\.encoder\.convc", "motion.value"),
            (r"^update_block\.encoder\.convd", "motion.field"),
            (r"^update_block\.encoder\.conv\.", "motion.merge."),
            (r"^update_block\.disp_head\.", "delta_head."),
            *superpixel_upsampling_rules("upsampling"),
            (r"\.bn\.", ".norm."),
        ]
        state = join_gates(without_shortcut_aliases(state))
        return rename(state, rules, drop=(r"^cost_agg\.conv1_up\.bn\.",))
