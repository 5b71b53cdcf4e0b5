"""STTR: stereo as matching the pixels of two rows, by alternating attention and optimal transport.

Li et al., "Revisiting Stereo Depth Estimation From a Sequence-to-Sequence Perspective with Transformers",
ICCV 2021 (arXiv 2011.02910), as released in mli0603/stereo-transformer (main branch; code and weights:
Apache-2.0). It has no largest disparity, and says which pixels have no match.

Kept quirks of the release:
- batch norm uses the statistics of the pair in evaluation too (`norm_statistics="pair"`; published files
  of the first releases hold running means as well, which are dropped). The release takes one pair at a
  time; in a batch each pair has its own statistics here, so that its neighbours do not change it;
- a pixel whose best match has a mass under 0.1 counts as matched (occlusion 0) before the adjustment;
- the occlusion and the adjusted disparity are not clamped; the transformer's last norm is never used.

Deviations: images under 121 pixels a side, on which the release stops, are padded to 121. In training the
release sets the mass of truly occluded pixels to 1, which needs the truth in the network: not done here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.relative_attention import Distances, RelativeAttention, Rows, relative_positions
from stereopsis.layers.transport import transport, with_dustbins
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
from stereopsis.structures import MatchingOutput

Statistics = Literal["pair", "running"]

_SMALLEST = 121  # the 1/8 map must hold one window of the pyramid's largest pooling
_POOLING = (16, 8, 4, 2)
_SCORES_AT_ONCE = 2**19  # rows are matched in blocks of this many scores, which stay in a CPU's cache


@dataclass(frozen=True)
class STTRConfig:
    downsample: int = 3
    """Every how many rows and columns are matched."""
    layers: int = 6
    heads: int = 8
    channels: int = 128
    sinkhorn_iterations: int = 10
    adjustment_blocks: int = 8
    norm_statistics: Statistics = "pair"
    """Batch norm by the statistics of each pair (published) or by running means."""


_CARD = Card(
    title="STTR",
    paper="Li et al., Revisiting Stereo Depth Estimation From a Sequence-to-Sequence Perspective with "
    "Transformers, ICCV 2021, arXiv 2011.02910",
    repository="https://github.com/mli0603/stereo-transformer",
    code_licence="Apache-2.0",
    weights_licence="Apache-2.0",
    published=(
        "SceneFlow: 3 px error 1.26 %, EPE 0.45 px, occlusion IoU 0.92, non-occluded (repository's README)",
        "KITTI 2015 without fine-tuning: 3 px error 6.74 %, EPE 1.50 px, IoU 0.98 (repository's README)",
        "Middlebury-Q without fine-tuning: 6.19 %, 2.33 px, IoU 0.95 (repository's README)",
        "SCARED without fine-tuning: 3.69 %, 1.57 px, IoU 0.96 (repository's README)",
        "KITTI 2015 fine-tuned, test: D1 2.01 % (repository's README)",
    ),
    notes=(
        "batch norm uses the statistics of each pair, in evaluation too, as published",
        "images under 121 pixels a side are padded, where the release stops",
        "STTR-light is another network and is not covered",
    ),
)


@register({"sttr": STTRConfig()}, card=_CARD, tiny={"layers": 2, "adjustment_blocks": 2, "downsample": 6})
class STTR(StereoModel[STTRConfig, MatchingOutput]):
    def __init__(self, config: STTRConfig) -> None:
        super().__init__(config)
        self.backbone = Backbone(config.norm_statistics)
        self.tokenizer = Tokenizer(config.channels, config.norm_statistics)
        self.transformer = Transformer(config.channels, config.layers, config.heads)
        self.dustbin = nn.Parameter(torch.zeros(()))
        self.context_adjustment = ContextAdjustment(config.adjustment_blocks)

    @property
    def padding(self) -> Padding:
        return Padding(minimum=(_SMALLEST, _SMALLEST))

    def forward(self, left: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"]) -> MatchingOutput:
        images = normalise(torch.cat([left, right]), IMAGENET_MEAN, IMAGENET_STD)
        stride, offset = self.config.downsample, self.config.downsample // 2
        tokens = self.tokenizer(images, *self.backbone(images))[..., offset::stride, offset::stride]
        scale = images.shape[-1] / tokens.shape[-1]
        attention = self.transformer(*tokens.float().chunk(2), scale=scale)
        plan = transport(with_dustbins(attention, self.dustbin), iterations=self.config.sinkhorn_iterations)
        matched, occlusion = expected_match(plan)
        matched = matched * scale
        disparity, occlusion = self.context_adjustment(matched, occlusion, images.chunk(2)[0])
        return MatchingOutput(
            disparity=disparity,
            confidence=1 - occlusion,
            occluded=occlusion > 0.5,
            occlusion=occlusion,
            matched=matched if self.training else None,
            transport=plan if self.training else None,
            grid=(offset, stride),
        )

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> STTRConfig | None:
        if "regression_head.phi" not in state or "tokenizer.up.2.convTrans.0.weight" not in state:
            return None

        def count(prefix: str) -> int:
            return len({name.split(".")[2] for name in state if name.startswith(prefix)})

        return STTRConfig(
            layers=count("transformer.self_attn_layers."),
            channels=state["tokenizer.up.2.convTrans.0.weight"].shape[1],
            adjustment_blocks=len(
                {name.split(".")[3] for name in state if name.startswith("regression_head.cal.layers.")}
            ),
        )

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> StateDict:
        return rename(state, _OFFICIAL_NAMES, drop=(r"running_(mean|var)$", r"num_batches_tracked$"))


_OFFICIAL_NAMES = (
    (r"^backbone\.in_conv\.(\d)\.", lambda m: f"backbone.stem.{int(m[1]) // 3}.{int(m[1]) % 3}."),
    (r"^backbone\.resblock_1\.", "backbone.quarter."),
    (r"^backbone\.resblock_2\.", "backbone.eighth."),
    (r"^(backbone\..*)\.bn(\d)\.", r"\1.norm\2."),
    (r"^(backbone\..*)\.downsample\.", r"\1.shortcut."),
    (r"^backbone\.branch(\d)\.(\d)\.", lambda m: f"backbone.pyramid.{int(m[1]) - 1}.{int(m[2]) - 1}."),
    (r"denselayer(\d)\.", lambda m: f"{int(m[1]) - 1}."),
    (r"^tokenizer\.bottle_neck\.", "tokenizer.bottleneck."),
    (
        r"^tokenizer\.dense_block\.2\.double_conv\.(\d)\.",
        lambda m: f"tokenizer.head.{int(m[1]) // 3}.{int(m[1]) % 3}.",
    ),
    (r"^tokenizer\.dense_block\.", "tokenizer.dense_blocks."),
    (r"^tokenizer\.up\.(\d)\.convTrans\.", r"tokenizer.upsamplings.\1."),
    (r"^transformer\.self_attn_layers\.(\d+)\.self_attn\.", r"transformer.self_layers.\1.attention."),
    (r"^transformer\.cross_attn_layers\.(\d+)\.cross_attn\.", r"transformer.cross_layers.\1.attention."),
    (r"^transformer\.(self|cross)_attn_layers\.", r"transformer.\1_layers."),
    (r"in_proj_(weight|bias)$", r"in_projection.\1"),
    (r"out_proj\.", "out_projection."),
    (r"^regression_head\.phi$", "dustbin"),
    (r"^regression_head\.cal\.(in|out)_conv\.", r"context_adjustment.\1_convolution."),
    (r"^regression_head\.cal\.layers\.(\d)\.module\.0\.", r"context_adjustment.blocks.\1.expand."),
    (r"^regression_head\.cal\.layers\.(\d)\.module\.2\.", r"context_adjustment.blocks.\1.reduce."),
    (r"^regression_head\.cal\.occ_head\.", "context_adjustment.occlusion_head."),
    (r"weight_g$", "gain"),
    (r"weight_v$", "direction"),
)


class PairNorm(nn.BatchNorm2d):
    """Batch norm of [left; right] by the statistics of each pair, also in evaluation."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, track_running_stats=False)

    def forward(self, input: Float[Tensor, "b2 c h w"]) -> Float[Tensor, "b2 c h w"]:  # noqa: A002
        pairs = input.shape[0] // 2
        grouped = input.unflatten(0, (2, pairs)).flatten(1, 2)
        weight, bias = self.weight.repeat(pairs), self.bias.repeat(pairs)
        normed = F.batch_norm(grouped, None, None, weight, bias, training=True, eps=self.eps)
        return normed.view_as(input)


def _norm(channels: int, statistics: Statistics) -> nn.Module:
    return PairNorm(channels) if statistics == "pair" else nn.BatchNorm2d(channels)


def _conv_norm_relu(
    inputs: int, outputs: int, statistics: Statistics, *, kernel: int = 3, stride: int = 1
) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, _norm(outputs, statistics), nn.ReLU(inplace=True))


class ResidualBlock(nn.Module):
    """The basic block of ResNet."""

    def __init__(self, inputs: int, outputs: int, statistics: Statistics, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = _norm(outputs, statistics)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = _norm(outputs, statistics)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, _norm(outputs, statistics))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b co ho wo"]:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)), inplace=True)))
        return F.relu(y + self.shortcut(x), inplace=True)


class Backbone(nn.Module):
    """Maps at 1/4 (64), 1/8 (128) and, pooled in four window sizes, 1/16 (128)."""

    def __init__(self, statistics: Statistics) -> None:
        super().__init__()
        widths = ((3, 16, 2), (16, 16, 1), (16, 32, 1))
        self.stem = nn.Sequential(
            *(_conv_norm_relu(i, o, statistics, stride=stride) for i, o, stride in widths)
        )

        def stage(inputs: int, outputs: int) -> nn.Sequential:
            rest = (ResidualBlock(outputs, outputs, statistics) for _ in range(2))
            return nn.Sequential(ResidualBlock(inputs, outputs, statistics, stride=2), *rest)

        self.quarter = stage(32, 64)
        self.eighth = stage(64, 128)
        self.pyramid = nn.ModuleList(_conv_norm_relu(128, 32, statistics, kernel=1) for _ in _POOLING)

    def forward(
        self, images: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b 64 h4 w4"], Float[Tensor, "b 128 h8 w8"], Float[Tensor, "b 128 h16 w16"]]:
        height, width = images.shape[-2:]
        if min(height, width) < _SMALLEST:
            raise ValueError(
                f"STTR needs images of at least {_SMALLEST} pixels a side, not {width}x{height}: pad them"
            )
        quarter = self.quarter(self.stem(images))
        eighth = self.eighth(quarter)
        size = (math.ceil(height / 16), math.ceil(width / 16))
        pooled = [
            F.interpolate(branch(F.avg_pool2d(eighth, window)), size, mode="bilinear", align_corners=False)
            for window, branch in zip(_POOLING, self.pyramid, strict=True)
        ]
        return quarter, eighth, torch.cat(pooled, 1)


class DenseLayer(nn.Module):
    """Four new channels from all that came before, through a bottleneck of 16."""

    def __init__(self, inputs: int, statistics: Statistics) -> None:
        super().__init__()
        self.norm1 = _norm(inputs, statistics)
        self.conv1 = nn.Conv2d(inputs, 16, 1, bias=False)
        self.norm2 = _norm(16, statistics)
        self.conv2 = nn.Conv2d(16, 4, 3, padding=1, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 4 h w"]:
        x = self.conv1(F.relu(self.norm1(x), inplace=True))
        return self.conv2(F.relu(self.norm2(x), inplace=True))


class DenseBlock(nn.ModuleList):
    """Four dense layers; only their 16 new channels go on."""

    def __init__(self, inputs: int, statistics: Statistics) -> None:
        super().__init__(DenseLayer(inputs + 4 * k, statistics) for k in range(4))
        self.inputs = inputs

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 16 h w"]:
        for layer in self:
            x = torch.cat([x, layer(x)], 1)
        return x[:, self.inputs :]


class Tokenizer(nn.Module):
    """The way back up to full resolution, by dense blocks on upsampled and skipped maps."""

    def __init__(self, channels: int, statistics: Statistics) -> None:
        super().__init__()
        self.bottleneck = DenseBlock(128, statistics)
        self.upsamplings = nn.ModuleList(
            (
                nn.ConvTranspose2d(16, 16, 3, 2),
                nn.ConvTranspose2d(16, 16, 3, 2),
                nn.Sequential(
                    nn.ConvTranspose2d(16, channels, 3, 2, bias=False),
                    _norm(channels, statistics),
                    nn.ConvTranspose2d(channels, channels, 3, 2),
                ),
            )
        )
        self.dense_blocks = nn.ModuleList((DenseBlock(144, statistics), DenseBlock(80, statistics)))
        self.head = nn.Sequential(
            _conv_norm_relu(channels + 3, channels, statistics),
            _conv_norm_relu(channels, channels, statistics),
        )

    def forward(
        self,
        images: Float[Tensor, "b 3 h w"],
        quarter: Float[Tensor, "b 64 h4 w4"],
        eighth: Float[Tensor, "b 128 h8 w8"],
        sixteenth: Float[Tensor, "b 128 h16 w16"],
    ) -> Float[Tensor, "b c h w"]:
        x = self.bottleneck(sixteenth)
        x = self.dense_blocks[0](torch.cat([_centre(self.upsamplings[0](x), eighth), eighth], 1))
        x = self.dense_blocks[1](torch.cat([_centre(self.upsamplings[1](x), quarter), quarter], 1))
        return self.head(torch.cat([_centre(self.upsamplings[2](x), images), images], 1))


def _centre(x: Float[Tensor, "b c h w"], like: Tensor) -> Float[Tensor, "b c hc wc"]:
    """The middle of a map, at the size of another."""
    height, width = like.shape[-2:]
    top, left = (x.shape[-2] - height) // 2, (x.shape[-1] - width) // 2
    return x[..., top : top + height, left : left + width]


class SelfLayer(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.attention = RelativeAttention(channels, heads)
        self.norm1 = nn.LayerNorm(channels)

    def forward(self, tokens: Rows, position: Distances) -> Rows:
        normed = self.norm1(tokens)
        return tokens + self.attention(normed, normed, position)


class CrossLayer(nn.Module):
    """First the right view looks at the left, then the left at the updated right."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.attention = RelativeAttention(channels, heads)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)

    def forward(self, left: Rows, right: Rows, position: Distances) -> tuple[Rows, Rows]:
        right = self._updated_right(left, right, position)
        left = left + self.attention(self.norm1(left), self.norm2(right), position)
        return left, right

    def match(self, left: Rows, right: Rows, position: Distances) -> Float[Tensor, "rows w w"]:
        """The scores of left columns with right ones, summed over heads, in float32; -inf where disparity is
        negative.
        """
        right = self._updated_right(left, right, position)
        with torch.autocast(left.device.type, enabled=False):
            scores = self.attention.scores(self.norm1(left), self.norm2(right), position).sum(0)
        negative = torch.ones_like(scores[0], dtype=torch.bool).triu(1)
        return scores.masked_fill(negative, -math.inf)

    def _updated_right(self, left: Rows, right: Rows, position: Distances) -> Rows:
        return right + self.attention(self.norm1(right), self.norm1(left), position.flip(0))


class Transformer(nn.Module):
    """Alternating self and cross attention, each row by itself, to the scores of matching left with right."""

    def __init__(self, channels: int, layers: int, heads: int) -> None:
        super().__init__()
        self.self_layers = nn.ModuleList(SelfLayer(channels, heads) for _ in range(layers))
        self.cross_layers = nn.ModuleList(CrossLayer(channels, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(channels)  # published files hold it; nothing reads it
        self.heads = heads

    def forward(
        self, left: Float[Tensor, "b c h w"], right: Float[Tensor, "b c h w"], *, scale: float
    ) -> Float[Tensor, "b h w w"]:
        batch, channels, height, columns = left.shape
        position = relative_positions(columns, channels, scale=scale, like=left)
        rows = [view.permute(0, 2, 3, 1).flatten(0, 1) for view in (left, right)]
        size = max(1, _SCORES_AT_ONCE // (self.heads * columns**2))
        if torch.compiler.is_compiling():
            size = len(rows[0])  # or the graph would hold the layers once for every block
        blocks = zip(rows[0].split(size), rows[1].split(size), strict=True)
        scores = torch.cat([self._match_rows(*block, position) for block in blocks])
        return scores.unflatten(0, (batch, height))

    def _match_rows(self, left: Rows, right: Rows, position: Distances) -> Float[Tensor, "rows w w"]:
        *layers, (last_self, last_cross) = zip(self.self_layers, self.cross_layers, strict=True)
        for self_layer, cross_layer in layers:
            left, right = self_layer(torch.cat([left, right]), position).chunk(2)
            left, right = cross_layer(left, right, position)
        left, right = last_self(torch.cat([left, right]), position).chunk(2)
        return cast(CrossLayer, last_cross).match(left, right, position)


def expected_match(
    plan: Float[Tensor, "b h w1 w1"],
) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b h w"]]:
    """Disparity (in columns) and occlusion from a transport plan: the mean over the best match and its two
    neighbours, and one minus their mass.
    """
    plan = plan[..., :-1, :-1]
    columns = torch.arange(plan.shape[-1], device=plan.device)
    best = plan.argmax(-1, keepdim=True)
    window = F.pad(plan, (1, 1)).gather(-1, torch.cat([best, best + 1, best + 2], -1))
    matches = torch.cat([best - 1, best, best + 1], -1)
    shifts = (columns[:, None] - matches).clamp(min=0).to(plan.dtype)
    mass = window.sum(-1)
    mass = torch.where(mass < 0.1, torch.ones_like(mass), mass)
    return (window / mass[..., None] * shifts).sum(-1), 1 - mass


class WeightNormConvolution(nn.Module):
    """A 3x3 convolution whose kernels are `gain` times a unit `direction`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        plain = nn.Conv2d(inputs, outputs, 3, padding=1)
        weight, bias = plain.weight.detach(), plain.bias
        self.gain = nn.Parameter(weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1))
        self.direction = nn.Parameter(weight)
        self.bias = bias

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b co h w"]:
        length = self.direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        return F.conv2d(x, self.gain * self.direction / length, self.bias, padding=1)


class AdjustmentBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.expand = WeightNormConvolution(17, 64)
        self.reduce = WeightNormConvolution(64, 16)

    def forward(
        self, disparity: Float[Tensor, "b 1 h w"], features: Float[Tensor, "b 16 h w"]
    ) -> Float[Tensor, "b 16 h w"]:
        hidden = F.relu(self.expand(torch.cat([disparity, features], 1)), inplace=True)
        return features + self.reduce(hidden)


class ContextAdjustment(nn.Module):
    """Full-resolution disparity and occlusion from the matched ones, guided by the left image."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.in_convolution = nn.Conv2d(4, 16, 3, padding=1)
        self.blocks = nn.ModuleList(AdjustmentBlock() for _ in range(blocks))
        self.out_convolution = nn.Conv2d(16, 1, 3, padding=1)
        self.occlusion_head = nn.Sequential(
            WeightNormConvolution(4, 16),
            WeightNormConvolution(16, 16),
            nn.ReLU(inplace=True),
            WeightNormConvolution(16, 16),
            WeightNormConvolution(16, 16),
            nn.ReLU(inplace=True),
            nn.Conv2d(16, 1, 3, padding=1),
            nn.Sigmoid(),
        )

    def forward(
        self,
        disparity: Float[Tensor, "b hm wm"],
        occlusion: Float[Tensor, "b hm wm"],
        image: Float[Tensor, "b 3 h w"],
    ) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b h w"]]:
        size = image.shape[-2:]
        disparity, occlusion = (
            F.interpolate(x[:, None], size, mode="nearest") for x in (disparity, occlusion)
        )
        mean = disparity.mean((1, 2, 3), keepdim=True)
        spread = disparity.std((1, 2, 3), keepdim=True) + 1e-6
        normed = (disparity - mean) / spread
        features = self.in_convolution(torch.cat([normed, image], 1))
        for block in self.blocks:
            features = block(normed, features)
        adjusted = (normed + self.out_convolution(features)) * spread + mean
        occlusion = self.occlusion_head(torch.cat([(occlusion - 0.5) / 0.5, image], 1))
        return adjusted[:, 0], occlusion[:, 0]
