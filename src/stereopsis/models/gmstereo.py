"""GMStereo: matching by a transformer's features, globally along rows, then locally at twice the resolution.

Xu et al., "Unifying Flow, Stereo and Depth Estimation", TPAMI 2023 (arXiv 2211.05783), the stereo task of
autonomousvision/unimatch (code and weights: MIT).

Kept quirks of the release:
- global propagation projects its keys from the projected queries, not from the features;
- local propagation lets zero-padded neighbours take part in the softmax;
- the refinement starts every iteration from the same hidden state, and correlates the backbone's features.

Deviation: the release takes cross-attention between feature maps that agree to 1e-6 for self-attention;
since one of the two has passed a self-attention more, this does not happen, and it is left out.

Recipe (SceneFlow): AdamW, weight decay 1e-4, one-cycle with cosine (5 % warm-up) over 100k steps, crop
384x768, gradient norm clipped to 1: scale1 1e-3 at batch 64, scale2 1e-3 at 32, with refinement 4e-4 at 16
from scale2's weights. Loss: smooth L1 over 0 < disparity < 400 of every prediction, weights 0.9^(n-1-i).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.correlation import RowCorrelation, Storage, columns
from stereopsis.layers.encoders import FeatureEncoder, encoder_rules
from stereopsis.layers.feature_transformer import (
    FeatureTransformerLayer,
    attention,
    shifted_window_mask,
    transformer_layer_rules,
    window_attention,
)
from stereopsis.layers.iteration import KEPT, enlarged
from stereopsis.layers.local_correlation import pixel_positions, sample, windowed_correlation
from stereopsis.layers.raft_update import SeparableUpdate, separable_update_rules
from stereopsis.layers.recurrent import join_gates, split_contexts
from stereopsis.layers.upsampling import convex_upsample
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
from stereopsis.structures import IterativeOutput

Features = Float[Tensor, "b c h w"]
Disparity = Float[Tensor, "b 1 h w"]

_CHANNELS = 128
_BLOCKS = 6
_LOOKUP_RADIUS = 4
_OUTSIDE = -1e9


@dataclass(frozen=True, kw_only=True)
class GMStereoConfig:
    """Per scale, coarse to fine (1/8, or 1/8 and 1/4): splits: rows and columns of attention windows;
    matching_radii, propagation_radii: pixels of the scale, -1 for all. row_windows: cross-attention splits
    rows, too. refinements: recurrent updates after the last scale. volume: whether the refinement's
    correlation is "stored" or "recomputed" in every update (little memory, same values).
    """

    splits: tuple[int, ...] = (2, 8)
    matching_radii: tuple[int, ...] = (-1, 4)
    propagation_radii: tuple[int, ...] = (-1, 1)
    row_windows: bool = True
    refinements: int = 3
    volume: Storage = "recomputed"

    @property
    def scales(self) -> int:
        return len(self.splits)

    @property
    def factor(self) -> int:
        """Image pixels per pixel of the finest scale."""
        return 8 if self.scales == 1 else 4


REFINED = GMStereoConfig()
SCALE2 = GMStereoConfig(refinements=0)
SCALE1 = GMStereoConfig(
    splits=(2,), matching_radii=(-1,), propagation_radii=(-1,), row_windows=False, refinements=0
)

_CARD = Card(
    title="GMStereo",
    paper="Xu et al., Unifying Flow, Stereo and Depth Estimation, TPAMI 2023, arXiv 2211.05783",
    repository="https://github.com/autonomousvision/unimatch",
    code_licence="MIT",
    weights_licence="MIT",
    published=("23, 58 and 86 ms for the three variants at 1248x384 (repository, on its GPU)",),
    notes=(
        "global propagation projects its keys from the projected queries, as published",
        "images are padded as in the release's validation; its submission scripts resize them",
        "checkpoints of the release's optical flow models differ in the refinement only: do not mix them up",
    ),
)


@register({"gmstereo": REFINED, "gmstereo-scale2": SCALE2, "gmstereo-scale1": SCALE1}, card=_CARD, tiny={})
class GMStereo(StereoModel[GMStereoConfig, IterativeOutput]):
    """In evaluation `iterates` are the last disparities of the refinement, cell by cell."""

    def __init__(self, config: GMStereoConfig) -> None:
        super().__init__(config)
        strides = (2, 2, 2) if config.scales == 1 else (2, 2, 1)
        self.features = FeatureEncoder(strides=strides, outputs=_CHANNELS, bias=False)
        if config.scales == 2:
            self.trident = nn.Parameter(nn.Conv2d(_CHANNELS, _CHANNELS, 3).weight.detach())
        self.transformer = Transformer()
        self.propagation = Propagation()
        if config.refinements:
            self.refinement_context = nn.Conv2d(_CHANNELS, 2 * _CHANNELS, 1)
            self.refinement = SeparableUpdate((2 * _LOOKUP_RADIUS + 1) ** 2, field=1, factor=config.factor)
        else:
            self.mask_head = nn.Sequential(
                nn.Conv2d(2 + _CHANNELS, 256, 3, padding=1),
                nn.ReLU(inplace=True),
                nn.Conv2d(256, 9 * config.factor**2, 1),
            )

    @property
    def padding(self) -> Padding:
        multiple = 16 if self.config.scales == 1 else 32
        return Padding(multiple=(multiple, multiple))

    def forward(self, left: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"]) -> IterativeOutput:
        size = (left.shape[-2], left.shape[-1])
        pyramid = self.extract(normalise(torch.cat([left, right]), IMAGENET_MEAN, IMAGENET_STD))
        predictions: list[Tensor] = []
        disparity = torch.zeros_like(pyramid[0].chunk(2)[0][:, :1])
        transformed = pyramid[0].chunk(2)[0]
        for scale, features in enumerate(pyramid):
            disparity = _enlarged(disparity.detach(), (features.shape[-2], features.shape[-1]))
            transformed, matched = self.match(features, disparity, scale)
            disparity = self.propagation(transformed, matched.detach(), self.config.propagation_radii[scale])
            predictions += [_enlarged(matched, size), _enlarged(disparity, size)]
        if not self.config.refinements:
            predictions[-1] = self._upsampled(disparity, transformed)
            return self._output(predictions, [])
        fields, refined = self.refine(pyramid[-1], transformed, disparity)
        return self._output(predictions + refined, fields)

    def _output(self, predictions: list[Tensor], fields: list[Tensor]) -> IterativeOutput:
        last = predictions[-1][:, 0]
        if self.training:
            return IterativeOutput(last, iterates=tuple(p[:, 0] for p in predictions))
        kept = [field[:, 0] for field in fields[-KEPT:]]
        return IterativeOutput(last, iterates=enlarged(kept, self.config.factor))

    def extract(self, images: Float[Tensor, "b2 3 h w"]) -> list[Tensor]:
        """Features of both views, at 1/8 and, with two scales, at 1/4."""
        features = self.features(images)
        if self.config.scales == 1:
            return [features]
        return [F.conv2d(features, self.trident, stride=stride, padding=1) for stride in (2, 1)]

    def match(
        self, features: Float[Tensor, "b2 c h w"], disparity: Disparity, scale: int
    ) -> tuple[Features, Disparity]:
        """The left view's transformed features, and the disparity after matching around the given one."""
        left, right = features.chunk(2)
        if scale > 0:
            right = warped(right, disparity)
        splits = self.config.splits[scale]
        code = _positions(left, splits)
        left, right = self.transformer(
            left + code, right + code, splits=splits, row_windows=self.config.row_windows
        )
        radius = self.config.matching_radii[scale]
        found = match_rows(left, right) if radius < 0 else match_locally(left, right, radius)
        return left, (disparity + found).clamp(min=0)

    def refine(
        self, features: Float[Tensor, "b2 c h w"], transformed: Features, disparity: Disparity
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The disparities after each update, and those at full resolution: in evaluation only the last."""
        lookup = WindowLookup(*features.chunk(2), radius=_LOOKUP_RADIUS, storage=self.config.volume)
        hidden, context = self.refinement_context(transformed).split(_CHANNELS, 1)
        hidden, context = torch.tanh(hidden), self.refinement.gru.prepare(torch.relu(context))
        fields, refined = [], []
        for k in range(1, self.config.refinements + 1):
            disparity = disparity.detach()
            updated, delta = self.refinement(hidden, context, lookup(disparity), disparity)
            disparity = (disparity + delta).clamp(min=0)
            fields.append(disparity)
            if self.training or k == self.config.refinements:
                logits = self.refinement.mask_head(updated)
                refined.append(convex_upsample(self.config.factor * disparity, logits, self.config.factor))
        return fields, refined

    def _upsampled(self, disparity: Disparity, transformed: Features) -> Float[Tensor, "b 1 hf wf"]:
        field = torch.cat([-disparity, torch.zeros_like(disparity)], 1)
        logits = self.mask_head(torch.cat([field, transformed], 1))
        return convex_upsample(self.config.factor * disparity, logits, self.config.factor)

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> GMStereoConfig | None:
        if "feature_flow_attn.q_proj.weight" not in state or "backbone.conv1.weight" not in state:
            return None
        if "refine_proj.weight" in state:
            return REFINED
        return SCALE2 if "backbone.trident_conv.weight" in state else SCALE1

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> StateDict:
        block = r"transformer\.layers\.(\d+)"
        rules = [
            (r"^backbone\.trident_conv\.weight$", "trident"),
            *encoder_rules("backbone", "features"),
            *transformer_layer_rules(rf"{block}\.self_attn", r"transformer.blocks.\1.self_layer"),
            *transformer_layer_rules(rf"{block}\.cross_attn_ffn", r"transformer.blocks.\1.cross_layer"),
            (r"^feature_flow_attn\.q_proj\.", "propagation.query."),
            (r"^feature_flow_attn\.k_proj\.", "propagation.key."),
            (r"^upsampler\.", "mask_head."),
            (r"^refine_proj\.", "refinement_context."),
            *separable_update_rules("refine", "refinement"),
        ]
        return split_contexts(join_gates(rename(state, rules)))


class TransformerBlock(nn.Module):
    """Self-attention in windows, then cross-attention along rows with what the other view was before."""

    def __init__(self) -> None:
        super().__init__()
        self.self_layer = FeatureTransformerLayer(_CHANNELS, hidden=None)
        self.cross_layer = FeatureTransformerLayer(_CHANNELS, hidden=8 * _CHANNELS, activation="gelu")

    def forward(
        self,
        views: Float[Tensor, "b2 h w c"],
        *,
        splits: int,
        row_splits: int,
        mask: Float[Tensor, "windows n n"] | None,
        row_mask: Float[Tensor, "row_windows m m"] | None,
    ) -> Float[Tensor, "b2 h w c"]:
        """views: [left; right]; masks: of the shifted windows, where the block shifts them."""
        others = torch.cat(views.chunk(2)[::-1])
        attend = partial(window_attention, splits=(splits, splits), mask=mask)
        views = self.self_layer(views, views, attend)
        attend = partial(_attend_rows, splits=row_splits, mask=row_mask)
        return self.cross_layer(views, others, attend)


def _attend_rows(query: Tensor, key: Tensor, value: Tensor, *, splits: int, mask: Tensor | None) -> Tensor:
    """Attention along each row by itself, in windows: [b h w c]."""
    q, k, v = (x.flatten(0, 1).unsqueeze(1) for x in (query, key, value))
    return window_attention(q, k, v, splits=(1, splits), mask=mask).view_as(query)


class Transformer(nn.Module):
    """Six blocks for both views; every second one shifts its windows by half their size."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(TransformerBlock() for _ in range(_BLOCKS))

    def forward(
        self, left: Features, right: Features, *, splits: int, row_windows: bool
    ) -> tuple[Features, Features]:
        height, width = left.shape[-2:]
        row_splits = splits if row_windows else 1
        mask, row_mask = None, None
        if splits > 1:
            mask = shifted_window_mask(height, width, (splits, splits), device=left.device).to(left.dtype)
        if row_splits > 1:
            row_mask = shifted_window_mask(1, width, (1, row_splits), device=left.device).to(left.dtype)
        views = torch.cat([left, right]).permute(0, 2, 3, 1)
        for k, block in enumerate(self.blocks):
            shifted = k % 2 == 1
            views = block(
                views,
                splits=splits,
                row_splits=row_splits,
                mask=mask if shifted else None,
                row_mask=row_mask if shifted else None,
            )
        left, right = views.permute(0, 3, 1, 2).chunk(2)
        return left, right


class Propagation(nn.Module):
    """Every pixel's disparity from those of pixels that look alike."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(_CHANNELS, _CHANNELS)
        self.key = nn.Linear(_CHANNELS, _CHANNELS)

    def forward(self, features: Features, disparity: Disparity, radius: int) -> Disparity:
        tokens = features.permute(0, 2, 3, 1)
        query = self.query(tokens)
        if radius < 0:
            key = self.key(query)
            spread = attention(query.flatten(1, 2), key.flatten(1, 2), disparity.flatten(1)[..., None])
            return spread.transpose(1, 2).view_as(disparity)
        side = 2 * radius + 1
        query, key = (x.permute(0, 3, 1, 2) for x in (query, self.key(tokens)))
        scores = windowed_correlation(query, key, rows=side, columns=side) * math.sqrt(_CHANNELS)
        neighbours = F.unfold(disparity, side, padding=radius).unflatten(-1, disparity.shape[-2:])
        return (scores.softmax(1) * neighbours).sum(1, keepdim=True)


class WindowLookup:
    """Correlation of left features with the right ones in a window around x - disparity: 81 at radius 4.

    By linearity a window's rows are lookups into the correlation with right features moved up or down.
    """

    def __init__(self, left: Features, right: Features, *, radius: int, storage: Storage) -> None:
        height, side = left.shape[-2], 2 * radius + 1
        padded = F.pad(right, (0, 0, radius, radius))
        moved = torch.stack([padded[..., y : y + height, :] for y in range(side)], 1)
        self._correlation = RowCorrelation(
            left.repeat_interleave(side, 0),
            moved.flatten(0, 1),
            levels=1,
            radius=radius,
            scale=left.shape[1] ** -0.5,
            storage=storage,
        )
        self._columns, self._side = columns(left), side

    def __call__(self, disparity: Disparity) -> Float[Tensor, "b taps h w"]:
        position = (self._columns - disparity[:, 0]).repeat_interleave(self._side, 0)
        return self._correlation(position).unflatten(0, (-1, self._side)).flatten(1, 2)


def match_rows(left: Features, right: Features) -> Disparity:
    """The expected disparity over all columns to the left of each pixel's own, in float32."""
    x = columns(left)[0, 0]
    with torch.autocast(left.device.type, enabled=False):
        scores = left.float().permute(0, 2, 3, 1) @ right.float().permute(0, 2, 1, 3)
        scores = (scores / math.sqrt(left.shape[1])).masked_fill(x > x[:, None], _OUTSIDE)
        return (x - scores.softmax(-1) @ x)[:, None]


def match_locally(left: Features, right: Features, radius: int) -> Disparity:
    """The expected change of disparity over the columns within `radius` of each pixel's own."""
    scores = windowed_correlation(left, right, rows=1, columns=2 * radius + 1) * math.sqrt(left.shape[1])
    steps = torch.arange(-radius, radius + 1, device=left.device, dtype=torch.float32)[:, None, None]
    target = columns(left) + steps
    outside = (target < 0) | (target > left.shape[-1] - 1)
    probabilities = scores.masked_fill(outside, _OUTSIDE).softmax(1)
    return -(probabilities * steps).sum(1, keepdim=True)


def warped(right: Features, disparity: Disparity) -> Features:
    """Right features as the left view sees them, zero outside."""
    shift = torch.cat([disparity, torch.zeros_like(disparity)], 1)
    return sample(right, pixel_positions(right) - shift)


def _positions(like: Features, splits: int) -> Float[Tensor, "c h w"]:
    """DETR's sine code of each attention window, y before x."""
    channels = like.shape[1] // 2
    height, width = like.shape[-2] // splits, like.shape[-1] // splits
    period = 10000 ** (torch.arange(0, channels, 2, device=like.device, dtype=torch.float32) / channels)

    def code(length: int) -> Float[Tensor, "c n"]:
        place = torch.arange(1, length + 1, device=like.device, dtype=torch.float32)
        angle = place / (length + 1e-6) * 2 * math.pi / period[:, None]
        return torch.stack([angle.sin(), angle.cos()], 1).flatten(0, 1)

    y = code(height)[:, :, None].expand(-1, -1, width)
    x = code(width)[:, None].expand(-1, height, -1)
    return torch.cat([y, x]).repeat(1, splits, splits).to(like.dtype)


def _enlarged(disparity: Disparity, size: tuple[int, int]) -> Float[Tensor, "b 1 ho wo"]:
    """Bilinear, corners on corners, in pixels of the new size."""
    if (disparity.shape[-2], disparity.shape[-1]) == size:
        return disparity
    factor = size[1] / disparity.shape[-1]
    return F.interpolate(disparity, size, mode="bilinear", align_corners=True) * factor
