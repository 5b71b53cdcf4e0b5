"""CREStereo: a cascade of recurrent updates whose correlation looks a little beside the epipolar line.

Li et al., "Practical Stereo Matching via Cascaded Recurrent Network with Adaptive Correlation", CVPR 2022
(arXiv 2203.11483). Official repository: megvii-research/CREStereo (MegEngine; code and weights: Apache-2.0).
Published tensors are read under the names of the PyTorch conversion ibaiGorordo/CREStereo-Pytorch, which
states no licence of its own.

Kept quirks of the release:
- the position code's frequencies are exp(-2 j), from a floor division that was meant to be a division;
- the field changes its sign where it is handed from one stage to the next;
- the local correlation sends no gradient to the right features (`detach_right`), and correlates with
  replicated borders, the sampled one with zeros;
- released weights were trained on BGR images.

Images are resized, not padded: to `evaluation_size`, or to the next multiple of 32 (16 for one pass).
Recipe: 600 epochs of 500 steps, batch 4 on each of 8 GPUs, crop 384x512, 10 iterations in one pass, Adam
4e-4 (warm-up from 5 % over 2 % of the epochs, constant to 60 %, linear to 5 %). Loss: sum over N iterations
of 0.8^(N-1-i) times the mean of |prediction - (disparity, 0)| over all pixels, the invalid counting as 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.encoders import FeatureEncoder, encoder_rules
from stereopsis.layers.feature_transformer import (
    FeatureTransformerLayer,
    linear_attention,
    transformer_layer_rules,
)
from stereopsis.layers.iteration import KEPT, enlarged
from stereopsis.layers.local_correlation import (
    pixel_positions,
    sample,
    sampled_correlation,
    window_steps,
    windowed_correlation,
)
from stereopsis.layers.raft_update import SeparableUpdate, separable_update_rules
from stereopsis.layers.recurrent import SeparableContext, join_gates, split_contexts
from stereopsis.layers.upsampling import convex_upsample
from stereopsis.models.base import StateDict, StereoModel, rename
from stereopsis.models.registry import Card, register
from stereopsis.structures import IterativeOutput

Image = Float[Tensor, "b 3 h w"]
Features = Float[Tensor, "b c h w"]
Field = Float[Tensor, "b 2 h w"]
Update = tuple[Field, Features]

_GROUPS = 4
_WINDOWS = ((1, 9), (3, 3))  # rows and columns searched in even and in odd iterations
_TAPS = 9


@dataclass(frozen=True)
class CREStereoConfig:
    iterations: int = 20
    """Of the finest stage; the coarse ones take half as many. 10 in training."""
    passes: Literal[1, 2] = 2
    """2: evaluation starts from the result at half the resolution."""
    evaluation_size: tuple[int, int] | None = None
    """(height, width) to which images are resized, else the next that the stages accept."""
    detach_right: bool = True
    """The published training sends no gradient to the right features through the finest stage."""


class Stage(NamedTuple):
    """One resolution of the cascade; correlate: (field, window) -> matching values there."""

    hidden: Features
    context: SeparableContext
    correlate: Callable[[Tensor, tuple[int, int]], Tensor]


class Matched(NamedTuple):
    """predictions: (disparity, vertical) at full resolution; fields: the last ones before upsampling."""

    predictions: list[Tensor]
    fields: list[Tensor]


_CARD = Card(
    title="CREStereo",
    paper="Li et al., Practical Stereo Matching via Cascaded Recurrent Network with Adaptive Correlation, "
    "CVPR 2022, arXiv 2203.11483",
    repository="https://github.com/megvii-research/CREStereo",
    code_licence="Apache-2.0",
    weights_licence="Apache-2.0 (the conversion to PyTorch states none of its own)",
    published=(
        "Middlebury bad 2.0 3.71 %, ETH3D bad 1.0 0.98 %, KITTI 2015 D1-all 1.69 % (paper, test sets, "
        "not verified here)",
    ),
    notes=(
        "the position code's frequencies come from a floor division that was meant to be a division",
        "the field changes its sign between stages, as published",
        "images are resized, not padded; released weights expect BGR, which is done inside",
    ),
)


@register({"crestereo": CREStereoConfig()}, card=_CARD, tiny={"iterations": 4})
class CREStereo(StereoModel[CREStereoConfig, IterativeOutput]):
    """In evaluation `iterates` are the last fields before upsampling, cell by cell."""

    def __init__(self, config: CREStereoConfig) -> None:
        super().__init__(config)
        if config.iterations < 2:
            raise ValueError(f"crestereo needs at least 2 iterations, not {config.iterations}")
        self.features = FeatureEncoder(strides=(2, 2, 1), project=True)
        self.self_attention = FeatureTransformerLayer(256, hidden=512)
        self.cross_attention = FeatureTransformerLayer(256, hidden=512)
        self.search_offsets = nn.ModuleList(nn.Conv2d(256, 2 * _TAPS, 3, padding=1) for _ in range(2))
        self.update = SeparableUpdate(_GROUPS * _TAPS, field=2)

    def forward(self, left: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"]) -> IterativeOutput:
        size = (left.shape[-2], left.shape[-1])
        passes = 1 if self.training else self.config.passes
        worked = self.config.evaluation_size or _next_size(size, multiple=16 * passes)
        resize = _resized if self.training else _resized_8bit
        left, right = (resize(image.flip(1), worked) * 2 - 1 for image in (left, right))
        start = None
        if passes == 2:
            half = (worked[0] // 2, worked[1] // 2)
            start = self.match(_aligned(left, half), _aligned(right, half)).predictions[-1]
        matched = self.match(left, right, start)
        scale = size[1] / worked[1]
        iterates = tuple(_resized(p[:, :1], size)[:, 0] * scale for p in matched.predictions)
        if self.training:
            vertical = tuple(_resized(p[:, 1:], size)[:, 0] for p in matched.predictions)
            return IterativeOutput(iterates[-1], iterates=iterates, vertical=vertical)
        kept = enlarged([-field[:, 0] for field in matched.fields], 4)
        coarse = tuple(_resized(field[:, None], size)[:, 0] * scale for field in kept)
        return IterativeOutput(iterates[-1], iterates=coarse)

    def match(self, left: Image, right: Image, start: Float[Tensor, "b 2 hs ws"] | None = None) -> Matched:
        """left, right: BGR in [-1, 1]; start: the prediction of an earlier pass, whose size it keeps.

        In evaluation only the last prediction is made, else one for every iteration.
        """
        sixteenth, eighth, quarter = self.encode(left, right)
        predictions = []
        half = self.config.iterations // 2
        if start is None:
            start = torch.zeros_like(sixteenth.hidden[:, :2], dtype=torch.float32)
            for stage, following, factor in ((sixteenth, eighth, 4), (eighth, quarter, 2)):
                updates = self.iterate(stage, start, half)
                upsampled = [self.upsample(*update) for update in self._supervised(updates)]
                predictions += [_enlarged_prediction(field, factor) for field in upsampled]
                start = _handed_over(upsampled[-1], following.hidden)
        else:
            start = _handed_over(start, quarter.hidden)
        updates = self.iterate(quarter, start, self.config.iterations)
        predictions += [-self.upsample(*update) for update in self._supervised(updates)]
        return Matched(predictions, [field for field, _ in updates])

    def _supervised(self, updates: list[Update]) -> list[Update]:
        return updates if self.training else updates[-1:]

    def encode(self, left: Image, right: Image) -> tuple[Stage, Stage, Stage]:
        """The stages at 1/16, 1/8 and 1/4: initial states, contexts, and how they correlate."""
        features = self.features(torch.cat([left, right]))
        pooled = [F.avg_pool2d(features, 2), F.avg_pool2d(features, 4)]
        offsets = [
            (torch.sigmoid(convolution(maps.chunk(2)[0])) - 0.5) * 2
            for convolution, maps in zip(self.search_offsets, reversed(pooled), strict=True)
        ]
        hidden, context = features.chunk(2)[0].split(128, 1)
        hidden, context = torch.tanh(hidden), torch.relu(context)
        searches = (
            partial(_correlated_beside, *self.attend(pooled[1]), offsets[0]),
            partial(_correlated_beside, *pooled[0].chunk(2), offsets[1]),
            partial(_correlated_here, *features.chunk(2), detach=self.config.detach_right),
        )
        stages = [
            Stage(_pooled(hidden, n), self.update.gru.prepare(_pooled(context, n)), search)
            for n, search in zip((4, 2, 1), searches, strict=True)
        ]
        return stages[0], stages[1], stages[2]

    def attend(self, features: Float[Tensor, "b2 c h w"]) -> tuple[Features, Features]:
        """Both views' features after self- and cross-attention; the right looks at the updated left."""
        height = features.shape[-2]
        tokens = (features + _positions(features)).flatten(2).transpose(1, 2)
        attend = partial(linear_attention, heads=8)
        left, right = self.self_attention(tokens, tokens, attend).chunk(2)
        left = self.cross_attention(left, right, attend)
        right = self.cross_attention(right, left, attend)
        left, right = (x.transpose(1, 2).unflatten(2, (height, -1)) for x in (left, right))
        return left, right

    def iterate(self, stage: Stage, field: Field, iterations: int) -> list[Update]:
        """The field and the hidden state after each update; in evaluation only the last few."""
        hidden, updates = stage.hidden, []
        for k in range(iterations):
            field = field.detach()
            correlation = stage.correlate(field, _WINDOWS[k % 2])
            hidden, delta = self.update(hidden, stage.context, correlation, field)
            field = field + delta
            updates.append((field, hidden))
            if not self.training:
                del updates[:-KEPT]
        return updates

    def upsample(self, field: Field, hidden: Features) -> Float[Tensor, "b 2 h4 w4"]:
        return convex_upsample(4 * field, 0.25 * self.update.mask_head(hidden), 4)

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> CREStereoConfig | None:
        names = ("conv_offset_16.weight", "self_att_fn.layers.0.q_proj.weight")
        return CREStereoConfig() if all(name in state for name in names) else None

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> StateDict:
        rules = [
            *encoder_rules("fnet", "features"),
            *transformer_layer_rules(r"(self|cross)_att_fn\.layers\.0", r"\1_attention"),
            *separable_update_rules("update_block", "update"),
            (r"^conv_offset_16\.", "search_offsets.0."),
            (r"^conv_offset_8\.", "search_offsets.1."),
        ]
        return split_contexts(join_gates(rename(state, rules)))


def _correlated_beside(
    left: Features, right: Features, offsets: Float[Tensor, "b 18 h w"], field: Field, window: tuple[int, int]
) -> Float[Tensor, "b 36 h w"]:
    """Correlation at the window's steps around the field's end, each moved by its learnt offset."""
    steps = window_steps(*window, device=field.device)[:, :, None, None]
    ends = pixel_positions(field) + field
    positions = ends[:, None] + steps + offsets.unflatten(1, (-1, 2))
    return sampled_correlation(left, right, positions.transpose(1, 2), groups=_GROUPS)


def _correlated_here(
    left: Features, right: Features, field: Field, window: tuple[int, int], *, detach: bool
) -> Float[Tensor, "b 36 h w"]:
    """Correlation with the right features, warped by the field, in the window."""
    warped = sample(right, pixel_positions(field) + field)
    warped = warped.detach() if detach else warped
    rows, columns = window
    return windowed_correlation(left, warped, rows=rows, columns=columns, groups=_GROUPS, replicate=True)


def _positions(like: Features) -> Float[Tensor, "c h w"]:
    """LoFTR's sine code, counted from 1; a floor division in the release makes its frequencies exp(-2 j)."""
    channels = like.shape[1]
    frequencies = torch.exp(-2 * torch.arange(channels // 4, device=like.device, dtype=torch.float32))
    x, y = ((position + 1) * frequencies[:, None, None] for position in pixel_positions(like))
    code = torch.stack([x.sin(), x.cos(), y.sin(), y.cos()], 1)
    return code.flatten(0, 1).to(like.dtype)


def _pooled(x: Features, size: int) -> Float[Tensor, "b c ho wo"]:
    return x if size == 1 else F.avg_pool2d(x, size)


def _handed_over(field: Field, following: Float[Tensor, "b c hn wn"]) -> Float[Tensor, "b 2 hn wn"]:
    """A stage's result as the next one's start: resized, in its pixels, and with the other sign."""
    size = (following.shape[-2], following.shape[-1])
    return -size[0] / field.shape[-2] * _aligned(field, size)


def _enlarged_prediction(field: Field, factor: int) -> Float[Tensor, "b 2 hf wf"]:
    return -factor * _aligned(field, (factor * field.shape[-2], factor * field.shape[-1]))


def _aligned(x: Features, size: tuple[int, int]) -> Float[Tensor, "b c ho wo"]:
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def _resized(x: Features, size: tuple[int, int]) -> Float[Tensor, "b c ho wo"]:
    """Bilinear, edges on edges, as OpenCV resizes."""
    if (x.shape[-2], x.shape[-1]) == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def _resized_8bit(image: Image, size: tuple[int, int]) -> Float[Tensor, "b 3 ho wo"]:
    """OpenCV's bilinear resize of 8-bit images to the last bit, as released evaluation has it.

    Weights have 11 bits, and what the vertical sums drop makes the image a quarter of a level darker.
    """
    if (image.shape[-2], image.shape[-1]) == size:
        return image
    levels = (image * 255).round().int()
    columns, following, share = _taps(image.shape[-1], size[1], image.device)
    share = torch.where((columns < 0) | (columns >= image.shape[-1] - 1), 0, share)
    last = image.shape[-1] - 1
    row_sums = (
        levels[..., columns.clamp(0, last)] * (2048 - share) + levels[..., following.clamp(0, last)] * share
    )
    rows, following, share = _taps(image.shape[-2], size[0], image.device)
    last, share = image.shape[-2] - 1, share[:, None]
    upper = ((row_sums[..., rows.clamp(0, last), :] >> 4) * (2048 - share)) >> 16
    lower = ((row_sums[..., following.clamp(0, last), :] >> 4) * share) >> 16
    return ((upper + lower + 2) >> 2).to(image.dtype) / 255


def _taps(length: int, target: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The two samples that each target lies between, and the second's weight of 2048."""
    position = (torch.arange(target, device=device, dtype=torch.float64) + 0.5) * (length / target) - 0.5
    first = position.floor()
    share = ((position - first).float() * 2048).round().int()
    return first.long(), first.long() + 1, share


def _next_size(size: tuple[int, int], *, multiple: int) -> tuple[int, int]:
    """The next that the stages accept: a multiple, and two cells at the coarsest, which a grid needs."""
    height, width = (max(2, -(-side // multiple)) * multiple for side in size)
    return height, width
