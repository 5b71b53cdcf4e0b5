"""SyDE-Net: a monocular prior and recurrent stereo matching that exchange their flaws in the last iterations.

Official repository: lingshijiang/SyDE-Net, which states no licence and publishes no weights; the design
descends from MonSter, RAFT-Stereo and IGEV. The monocular part is Depth Anything V2 (code and small weights:
Apache-2.0; base and large weights: CC-BY-NC-4.0).

Kept quirks of the release:
- the monocular encoder sees images in [-1, 1], not normalised as ImageNet's;
- warping normalises positions for aligned corners and samples without: a slight zoom;
- the refinement's result, which holds the stereo disparity, is added to that disparity once more
  (`doubled=False` lets it take that disparity's place, which networks learn sooner);
- with under 7 iterations both branches mix from the start, and the monocular map is never aligned.

Deviations: the release hard-codes the channel attention's width, which only its large encoder fits; here it
is the decoder's, so that base and small work. The spatial attention on the stereo branch, which the paper
draws and the release leaves out, is an option, in CBAM's form. The affine alignment is defined for every
input. The norm after the hourglass's last layer, which checkpoints hold and nothing uses, is left out.

Published defects are listed in the card, and not repeated.

Recipe (SceneFlow): 200k steps, batch 12, crop 320x736, 22 iterations, AdamW 2e-4 (the monocular neck at half,
encoder and depth head frozen), weight decay 1e-5, one-cycle linear with 1 % warm-up, gradient norm clipped
to 1, 2-D batch norm frozen. Loss: smooth L1 of the initial disparity + g^(n-1-i) * mean |d_i - target| over
the n predictions of both branches in order, g = 0.9^(15/(n-1)), over valid targets below the maximum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.correlation import Storage
from stereopsis.layers.dpt import SIZES, SizeName, enlarge, head_rules, neck_rules, size_of, vit_rules
from stereopsis.layers.geometry_encoder import GeometryEncoder, GeometryEncoding, geometry_encoder_rules
from stereopsis.layers.geometry_volume import CombinedGeometry
from stereopsis.layers.iteration import KEPT, enlarged
from stereopsis.layers.recurrent import join_gates
from stereopsis.layers.stemmed_features import StemmedMaps
from stereopsis.layers.superpixels import (
    ImageSuperpixels,
    SuperpixelWeights,
    image_superpixel_rules,
    superpixel_rules,
)
from stereopsis.layers.upsampling import superpixel_upsample
from stereopsis.layers.vit import PATCH
from stereopsis.models.base import MonoModel, RecurrentModel, StateDict, StereoModel, load_strictly, rename
from stereopsis.models.registry import Card, register
from stereopsis.models.sydenet.alignment import aligned
from stereopsis.models.sydenet.attention import FrequencyChannelAttention
from stereopsis.models.sydenet.features import (
    ContextTransfer,
    FeatureTransfer,
    PlainPyramid,
    Stems,
    feature_rules,
)
from stereopsis.models.sydenet.refinement import Refinement, flaw, refinement_rules
from stereopsis.models.sydenet.updates import (
    MixedMotionEncoder,
    Seen,
    UpdateBlock,
    motion_encoder,
    update_rules,
)
from stereopsis.structures import FusedOutput

Disparity = Float[Tensor, "b h w"]

_LOOKUP_LEVELS, _LOOKUP_RADIUS = 2, 4
_VALUES = _LOOKUP_LEVELS * (8 + 1) * (2 * _LOOKUP_RADIUS + 1)  # of the volume's channels and the correlation
_FEATURES = 96


@dataclass(frozen=True, kw_only=True)
class SyDENetConfig:
    """encoder: of the monocular branch; iterations: all updates, of which the last mixed_iterations exchange
    flaws (0: stereo alone, without refinement); max_disparity: of the volume, in pixels, a multiple of 32.

    channel_attention: on the monocular features; spatial_attention: on the stereo branch, not released.
    frozen_monocular: encoder and depth head are not trained; frozen_norms: 2-D batch norm keeps its
    statistics in training. volume: the correlations are "stored", or "recomputed" in every lookup.
    hidden: channels of the recurrent states, even, of published checkpoints 128. monocular: without it the
    stereo branch is alone, on convolutions of the images, and nothing is mixed, attended or refined.
    doubled: the refined disparity is added to the one that it refines, as released; else it takes its place.
    """

    encoder: SizeName = "large"
    iterations: int = 32
    mixed_iterations: int = 7
    max_disparity: int = 192
    channel_attention: bool = True
    spatial_attention: bool = False
    frozen_monocular: bool = True
    frozen_norms: bool = True
    volume: Storage = "stored"
    hidden: int = 128
    monocular: bool = True
    doubled: bool = True

    @property
    def mixed(self) -> int:
        """How many iterations at the end exchange flaws."""
        return self.mixed_iterations if self.monocular else 0

    def __post_init__(self) -> None:
        if self.max_disparity < 32 or self.max_disparity % 32:
            raise ValueError(f"max_disparity must be a positive multiple of 32, it is {self.max_disparity}")
        if self.iterations < 1 or self.mixed_iterations < 0:
            raise ValueError("sydenet needs at least one iteration, and no fewer than none of them mixed")
        if self.hidden < 4 or self.hidden % 2:
            raise ValueError(
                f"sydenet's recurrent states need an even number of channels from 4 on, not {self.hidden}"
            )


_CARD = Card(
    title="SyDE-Net",
    paper="SyDE-Net, as its repository describes it",
    repository="https://github.com/lingshijiang/SyDE-Net",
    code_licence="none stated: all rights reserved by default (implemented here from a description)",
    weights_licence="none published; the encoder's: small Apache-2.0, base and large CC-BY-NC-4.0",
    notes=(
        "the monocular encoder sees images in [-1, 1], as released",
        "the refinement's result is added to the disparity that it already holds, as released",
        "base and small do not run as released; here the channel attention is as wide as their decoder",
        "the spatial attention that the paper draws is not released: an option here, off by default",
        "not repeated: SceneFlow's lists name FlyingThings three times, and nothing else",
        "not repeated: SCARED's depth is taken for disparity, its crop's sides are swapped",
        "not repeated: validation leaves images without an error out of the sum, but counts them",
        "not repeated: undefined names keep the released scripts and the SCARED reader from running",
    ),
)


@register(
    {
        "sydenet": SyDENetConfig(),
        "sydenet-base": SyDENetConfig(encoder="base"),
        "sydenet-small": SyDENetConfig(encoder="small"),
    },
    card=_CARD,
    tiny={"encoder": "tiny", "iterations": 8, "max_disparity": 64},
)
class SyDENet(RecurrentModel[SyDENetConfig, FusedOutput]):
    """In evaluation the iterates of both branches are their last fields, cell by cell."""

    def __init__(self, config: SyDENetConfig) -> None:
        super().__init__(config)
        features, hidden = SIZES[config.encoder].features, config.hidden
        if config.monocular:
            self._add_monocular(config)
        else:
            self.plain = PlainPyramid(features)
        self.transfer = FeatureTransfer(features)
        self.stems = Stems()
        self.geometry = GeometryEncoder(stem=True, features=False)
        self.context = ContextTransfer(features, hidden=hidden, spatial_attention=config.spatial_attention)
        self.context_gates = nn.ModuleList(nn.Conv2d(hidden, 3 * hidden, 3, padding=1) for _ in range(3))
        motion = motion_encoder(_VALUES, outputs=hidden, width=hidden // 2)
        self.update = UpdateBlock(motion, hidden=hidden)
        self.superpixels = SuperpixelWeights(32, norm="batch")
        self.initial_superpixels = ImageSuperpixels(24, norm="instance")

    def _add_monocular(self, config: SyDENetConfig) -> None:
        """The monocular branch, and what mixes it with the stereo branch."""
        size, hidden = SIZES[config.encoder], config.hidden
        self.monocular_encoder = size.encoder()
        self.monocular_head = size.head()
        self.neck = size.neck()
        if config.channel_attention:
            self.channel_attention = FrequencyChannelAttention(size.features)
        seen = _VALUES + _FEATURES
        self.mix_stereo = UpdateBlock(MixedMotionEncoder(seen, hidden=hidden), hidden=hidden)
        self.mix_monocular = UpdateBlock(MixedMotionEncoder(seen, hidden=hidden), hidden=hidden)
        self.refinement = Refinement()
        if config.frozen_monocular:
            self.monocular_encoder.requires_grad_(False)
            self.monocular_head.requires_grad_(False)

    def forward(self, left: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"]) -> FusedOutput:
        left, right = 2 * left - 1, 2 * right - 1
        see = self.see_apart if self.config.monocular else self.see_plainly
        monocular, pyramid = see(left, right)
        left_pyramid = [maps.chunk(2)[0] for maps in pyramid]
        left_stems, right_stems = self.stems(left), self.stems(right, coarsest="4")
        transferred = self.transfer(pyramid)
        features = torch.cat([transferred[0], torch.cat([left_stems[1], right_stems[1]])], 1)
        left_maps = StemmedMaps(
            left_stems[0], features.chunk(2)[0], *(maps.chunk(2)[0] for maps in transferred[1:])
        )
        levels = self.config.max_disparity // 4
        encoding = self.geometry.encode(left_maps, features, levels=levels)
        if self.config.monocular and self.config.channel_attention:
            left_pyramid = [self.channel_attention(maps) for maps in left_pyramid[:3]]
        contexts = self.context(left_pyramid[:3], left_stems[1:])
        hidden = [torch.tanh(context) for context in contexts]
        gates = [gate(torch.relu(x)) for gate, x in zip(self.context_gates, contexts, strict=True)]
        scene = Scene(encoding, features.chunk(2)[1], gates, self._lookup(encoding))
        stereo, mixed = self.iterate(scene, hidden, encoding.disparity, monocular)
        return self._output(stereo, mixed, encoding, left, right)

    def _lookup(self, encoding: GeometryEncoding) -> CombinedGeometry:
        return CombinedGeometry(
            encoding.volume,
            encoding.left,
            encoding.right,
            levels=_LOOKUP_LEVELS,
            radius=_LOOKUP_RADIUS,
            storage=self.config.volume,
        )

    def adopt(self, prior: StereoModel[Any, Any] | MonoModel[Any]) -> None:
        """Encoder, depth head and, as a start, neck from Depth Anything V2, as published training begins."""
        if not self.config.monocular:
            raise ValueError("this SyDE-Net has no monocular branch that could start from another network's")
        wanted = ("monocular_encoder.", "monocular_head.", "neck.")
        adopted: StateDict = {}
        for key, tensor in prior.state_dict().items():
            adopted[f"monocular_{key}"] = tensor
            if key.startswith("head.neck."):
                adopted[key.removeprefix("head.")] = tensor
        own = {key: tensor for key, tensor in self.state_dict().items() if not key.startswith(wanted)}
        load_strictly(self, own | adopted, f"the monocular part of SyDE-Net ({self.config.encoder})")

    def iterate(
        self, scene: Scene, hidden: Sequence[Tensor], field: Disparity, monocular: Disparity
    ) -> tuple[list[Update], list[Update]]:
        """The updates of the stereo branch, and those of the monocular one, which starts late."""
        states, other_states = list(hidden), list(hidden)
        stereo: list[Update] = []
        mixed: list[Update] = []
        alone = self.config.iterations - self.config.mixed
        for k in range(self.config.iterations):
            field = field.detach()
            monocular = monocular.detach() if k > 0 else monocular
            wanted = self.training or k == self.config.iterations - 1
            if k < alone:
                states, delta = self.update(states, scene.gates, scene.lookup(field), field[:, None])
                block = self.update
            else:
                if k == alone:
                    monocular = aligned(monocular, field)
                seen, other = scene.seen(field), scene.seen(monocular)
                states, delta = self.mix_stereo(states, scene.gates, seen, other)
                other_states, other_delta = self.mix_monocular(other_states, scene.gates, other, seen)
                block = self.mix_stereo
                monocular = monocular + other_delta
                mixed.append(self._updated(monocular, other_states, self.mix_monocular, scene, wanted))
            field = field + delta
            stereo.append(self._updated(field, states, block, scene, wanted))
        return stereo, mixed

    def _updated(
        self, field: Disparity, states: Sequence[Tensor], block: UpdateBlock, scene: Scene, wanted: bool
    ) -> Update:
        if not wanted:
            return Update(field, None)
        weights = self.superpixels(block.mask_features(states[0]), scene.encoding.maps.stem2)
        return Update(field, superpixel_upsample(4 * field[:, None], weights)[:, 0])

    def see_apart(
        self, left: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b h4 w4"], tuple[Tensor, ...]]:
        """The left image's relative inverse depth at 1/4; the neck's pyramid of both images, finest first.

        In float32, as published, also where the caller's autocast asks for less.
        """
        kind = left.device.type
        if torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):
                return self.see_apart(left, right)
        height, width = left.shape[-2:]
        if height % 32 or width % 32:
            raise ValueError(f"SyDE-Net's images must be padded to multiples of 32, not {width}x{height}")
        both = enlarge(torch.cat([left, right]), (height // 16 * PATCH, width // 16 * PATCH))
        with torch.no_grad() if self.config.frozen_monocular else nullcontext():
            tapped = self.monocular_encoder(both)
            depth = self.monocular_head([maps.chunk(2)[0] for maps in tapped])
            depth = F.interpolate(depth, (height, width), mode="bilinear", align_corners=False)
            depth = F.interpolate(depth, scale_factor=0.25, mode="bilinear", align_corners=False)
        return depth[:, 0], self.neck(tapped)

    def see_plainly(
        self, left: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b h4 w4"], tuple[Tensor, ...]]:
        """Nothing of relative depth, and a pyramid for both images by convolutions alone, finest first."""
        pyramid = self.plain(torch.cat([left, right]))
        return torch.zeros_like(pyramid[0][: len(left), 0]), pyramid

    def _output(
        self,
        stereo: list[Update],
        mixed: list[Update],
        encoding: GeometryEncoding,
        left: Float[Tensor, "b 3 h w"],
        right: Float[Tensor, "b 3 h w"],
    ) -> FusedOutput:
        iterates, monocular_iterates = _upsampled(stereo), _upsampled(mixed)
        if mixed:
            refined = self.refinement(monocular_iterates[-1], iterates[-1], left, right)
            iterates[-1] = iterates[-1] + refined if self.config.doubled else refined
        monocular = monocular_iterates[-1] if mixed else None
        if not self.training:
            return FusedOutput(
                iterates[-1],
                iterates=enlarged([update.field for update in stereo[-KEPT:]], 4),
                monocular=monocular,
                monocular_iterates=enlarged([update.field for update in mixed[-KEPT:]], 4),
            )
        weights = self.initial_superpixels(encoding.maps.scale4, encoding.maps.stem2)
        return FusedOutput(
            iterates[-1],
            iterates=tuple(iterates),
            initial=superpixel_upsample(4 * encoding.disparity[:, None], weights)[:, 0],
            monocular=monocular,
            monocular_iterates=tuple(monocular_iterates),
        )

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> SyDENetConfig | None:
        marks = ("mono_encoder.cls_token", "mono_decoder.scratch.layer1_rn.weight", "REMP.final_conv.weight")
        if not all(mark in state for mark in marks):
            return None
        encoder = size_of(state[marks[0]], state[marks[1]])
        return SyDENetConfig(encoder=encoder) if encoder is not None else None

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> StateDict:
        rules = [
            *vit_rules("mono_encoder.", "monocular_encoder."),
            *head_rules("mono_decoder.", "monocular_head."),
            *neck_rules("feat_decoder.", "neck."),
            *feature_rules(),
            *_ATTENTION_NAMES,
            (r"^context_zqr_convs\.", "context_gates."),
            *update_rules("update_block", "update"),
            *update_rules("update_block_mix_stereo", "mix_stereo"),
            *update_rules("update_block_mix_mono", "mix_monocular"),
            *refinement_rules(r"REMP\.", "refinement."),
            *superpixel_rules("_gru", "superpixels"),
            *image_superpixel_rules("initial_superpixels"),
            *geometry_encoder_rules("geometry."),
            (r"\.bn\.", ".norm."),
        ]
        return rename(join_gates(state), rules, drop=(r"^cost_agg\.conv1_up\.bn\.",))


_ATTENTION_NAMES = [
    (r"^se_mono\.spatial_pre\.net\.", "channel_attention.smooth."),
    (r"^se_mono\.amp_mlp\.", "channel_attention.amplitude."),
    (r"^se_mono\.pha_mlp\.", "channel_attention.phase."),
    (r"^se_mono\.eca\.conv1d\.", "channel_attention.neighbours."),
    (r"^se_mono\.post\.dwconv\.", "channel_attention.spread."),
    (r"^se_mono\.post\.gn\.", "channel_attention.norm."),
    (r"^se_mono\.freq_t$", "channel_attention.cutoff"),
    (r"^se_mono\.freq_s$", "channel_attention.steepness"),
    (r"^se_mono\.hi_gain$", "channel_attention.high_gain"),
    (r"^se_mono\.lo_gain$", "channel_attention.low_gain"),
    (r"^se_mono\.phs_scale$", "channel_attention.phase_scale"),
    (r"^se_mono\.mix_alpha$", "channel_attention.mixture"),
    (r"^se_mono\.mix_beta$", "channel_attention.strength"),
]


class Update(NamedTuple):
    """A branch's field after an update, and its full-resolution disparity where it is wanted."""

    field: Disparity
    upsampled: Float[Tensor, "b hf wf"] | None


def _upsampled(updates: list[Update]) -> list[Tensor]:
    return [update.upsampled for update in updates if update.upsampled is not None]


class Scene(NamedTuple):
    """What stays the same over the updates."""

    encoding: GeometryEncoding
    right: Float[Tensor, "b 96 h w"]
    gates: list[Tensor]
    lookup: CombinedGeometry

    def seen(self, field: Disparity) -> Seen:
        """What a branch sees at its disparity: matching values, and how views differ there."""
        difference = flaw(self.encoding.maps.scale4, self.right, field)
        return Seen(torch.cat([self.lookup(field), difference], 1), field[:, None])
