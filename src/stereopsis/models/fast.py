"""`fast`: our own network, built for two CPU cores from the first line.

No paper: a light shared encoder, a normalised correlation volume at 1/8 of the image, 2-D aggregation
that treats disparities as channels and is guided by the left image, regression around the median
plane, one residual stage at 1/4 on a local volume around it, and learnt convex upsampling before and
after; confidence comes from the same pass. Only operators that ONNX Runtime and OpenVINO run fast:
plain convolutions, one batched product, one horizontal gather. Code and weights: Apache-2.0, trained on
nothing but our own rendered pairs.

The aggregation has a fixed number of planes, 192 pixels' worth at 1/8. A smaller `max_disparity` masks
the farther planes; a larger one runs the coarse stage on the pair reduced 2, 3 or 4 times, and the
residual stage, which has no range, at full resolution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.upsampling import convex_upsample, doubled
from stereopsis.models.base import Padding, StateDict, StereoModel
from stereopsis.models.registry import Card, register
from stereopsis.structures import VolumeOutput

PLANES = 24
"""Planes of the coarse volume, 8 pixels apart."""
_REACH = 4
"""The residual stage compares at -4 .. 4 pixels of 1/4 of the image."""
_SHARES = 2**16
"""Parts of a column that fetching tells apart: as fine as float32 within an image."""


@dataclass(frozen=True)
class FastConfig:
    width: int = 32
    """Channels at 1/4 of the image; 2x at 1/8, 3x at 1/16, 4x at 1/32."""
    groups: int = 4
    """Correlations a plane."""
    depth: int = 2
    """Residual blocks at each scale of the aggregation."""
    max_disparity: int = 192
    """In pixels, 64 to 768."""

    def __post_init__(self) -> None:
        if not 64 <= self.max_disparity <= 768:
            raise ValueError(f"fast takes a max_disparity from 64 to 768 pixels, not {self.max_disparity}")
        if self.groups < 1 or 2 * self.width % self.groups:
            raise ValueError(
                f"fast correlates equal groups of its {2 * self.width} channels at 1/8: they do not make "
                f"{self.groups} groups, choose another number or width"
            )

    @property
    def reduction(self) -> int:
        """How much smaller the pair is that the coarse stage sees."""
        return math.ceil(self.max_disparity / (8 * PLANES))


_CARD = Card(
    title="fast",
    paper="none: this project's own",
    repository="this one",
    code_licence="Apache-2.0",
    weights_licence="Apache-2.0",
    notes=("a max_disparity above 192 finds coarse disparity on a reduced pair",),
)


@register(
    {
        "fast": FastConfig(),
        "fast-tiny": FastConfig(width=16),
        "fast-large": FastConfig(width=48, groups=6),
    },
    card=_CARD,
    tiny={"width": 8, "groups": 4, "depth": 1},
)
class Fast(StereoModel[FastConfig, VolumeOutput]):
    """stages: the disparity at 1/4 before and after the residual, both in image pixels."""

    def __init__(self, config: FastConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(config.width)
        self.aggregation = Aggregation(config.width, config.groups, config.depth)
        self.refinement = Refinement(config.width)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        silence(self.encoder.rise_to_quarter, self.refinement.surroundings.rise)

    @property
    def padding(self) -> Padding:
        multiple = 32 * self.config.reduction
        return Padding(multiple=(multiple, multiple), vertical="bottom", horizontal="right")

    @property
    def least_pixels(self) -> int:
        """VGA: the planes are wider than what is thin in smaller images, and it is still quick.

        The range grows with them, in pixels of the image; where another one was asked for, it is kept.
        """
        return 480 * 640 if self.config.max_disparity == FastConfig.max_disparity else 0

    def forward(self, left: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"]) -> VolumeOutput:
        reduction = self.config.reduction
        images = torch.cat([left, right]) * 4 - 2
        quarter, eighth, sixteenth = self.encoder(images)
        if reduction == 1:
            coarse, probabilities, hidden = self._match(eighth, sixteenth)
        else:
            _, small_eighth, small_sixteenth = self.encoder(F.avg_pool2d(images, reduction))
            coarse, probabilities, hidden = self._match(small_eighth, small_sixteenth)
            size = (eighth.shape[-2], eighth.shape[-1])
            coarse = F.interpolate(coarse[:, None], size, mode="nearest")[:, 0] * reduction
            hidden = F.interpolate(hidden, size, mode="bilinear")
        initial = self.refinement.rise(coarse, hidden)
        at_quarter, features = self.refinement(quarter, initial, hidden)
        disparity, certainty = self.refinement.finish(at_quarter, features)
        return VolumeOutput(
            disparity=disparity,
            confidence=certainty,
            probabilities=probabilities,
            levels=torch.arange(PLANES, device=left.device) * (8.0 * reduction),
            stages=(initial, at_quarter),
        )

    def _match(
        self, eighth: Float[Tensor, "two c h w"], sixteenth: Float[Tensor, "two f hs ws"]
    ) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b d h w"], Float[Tensor, "b g h w"]]:
        """Coarse disparity (image pixels), its distribution, and what else the aggregation knows."""
        left, right = eighth.chunk(2)
        volume = correlation_planes(left, right, PLANES, groups=self.config.groups)
        logits, hidden = self.aggregation(volume, left, sixteenth.chunk(2)[0])
        planes = math.ceil(self.config.max_disparity / self.config.reduction / 8)
        if planes < PLANES:
            beyond = torch.arange(PLANES, device=logits.device)[:, None, None] >= planes
            logits = logits.masked_fill(beyond, -1e4)
        probabilities = logits.float().softmax(1)
        return around_the_median(probabilities) * 8.0, probabilities, hidden

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> FastConfig | None:  # noqa: ARG003
        """None: our weights carry their config in the file."""
        return None

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> StateDict:
        return dict(state)


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU6: folds to one operator in every runtime.

    Unbounded, features of what is not to be matched, such as a plain sky at the upper border, grew from scale
    to scale to hundreds; it was taken for something near, and eight bits had nothing left for the rest.
    """
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )


def silence(*layers: nn.Conv2d) -> None:
    """Zero: what the layers' outputs are added to begins as if they were not there."""
    for layer in layers:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(cast(Tensor, layer.bias))


class Residual(nn.Module):
    """Two 3x3 convolutions and a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv(channels, channels)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return F.relu6(x + self.second(self.first(x)))


class Encoder(nn.Module):
    """Features of both images at 1/4 (c) and 1/8 (2c), with context from below, and 1/16 (3c)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.stem = conv(3, c, 7, 4)
        self.quarter = Residual(c)
        self.eighth = nn.Sequential(conv(c, 2 * c, stride=2), Residual(2 * c))
        self.sixteenth = nn.Sequential(conv(2 * c, 3 * c, stride=2), Residual(3 * c))
        self.rise = conv(3 * c, 2 * c, 1)
        self.merge = Residual(2 * c)
        self.rise_to_quarter = nn.Conv2d(2 * c, 4 * c, 1)

    def forward(
        self, image: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b c4 h4 w4"], Float[Tensor, "b c8 h8 w8"], Float[Tensor, "b c16 h16 w16"]]:
        quarter = self.quarter(self.stem(image))
        eighth = self.eighth(quarter)
        sixteenth = self.sixteenth(eighth)
        risen = doubled(self.rise(sixteenth))
        eighth = self.merge(eighth + risen)
        return quarter + F.pixel_shuffle(self.rise_to_quarter(eighth), 2), eighth, sixteenth


def correlation_planes(
    left: Float[Tensor, "b c h w"], right: Float[Tensor, "b c h w"], planes: int, *, groups: int
) -> Float[Tensor, "b planes_of_groups h w"]:
    """Cosines of feature groups at every shift, [b groups*planes h w]; 0 where right has no column.

    All pairs of a row come from one product; the band of wanted shifts is cut from it by padding and
    reshaping alone (a row of the band starts one element after the row above).
    """
    b, c, h, w = left.shape
    grouped = [F.normalize(x.reshape(b, groups, c // groups, h, w), dim=2) for x in (left, right)]
    query = grouped[0].permute(0, 1, 3, 4, 2)
    key = F.pad(grouped[1], (planes - 1, 0)).permute(0, 1, 3, 2, 4)
    pairs = torch.matmul(query, key)  # [b g h w w+planes-1]
    length = w + planes - 1
    flat = F.pad(pairs.reshape(b, groups, h, w * length), (0, w))
    band = flat.reshape(b, groups, h, w, length + 1)[..., :planes]  # shift planes-1 .. 0
    return band.permute(0, 1, 4, 2, 3).reshape(b, groups * planes, h, w)


def around_the_median(probabilities: Float[Tensor, "b d h w"]) -> Float[Tensor, "b h w"]:
    """The mean plane over the distribution's median and its two neighbours.

    The mean over all planes would lie between foreground and background where both are likely. The
    median is one of them, and of all planes the one with the least expected error: where little is known,
    as on plain surfaces, the likeliest plane may lie far from most of the others.
    """
    planes = torch.arange(probabilities.shape[1], device=probabilities.device)[:, None, None]
    median = (probabilities.cumsum(1) < 0.5).sum(1, keepdim=True)
    kept = torch.where((planes - median).abs() <= 1, probabilities, 0.0)
    return (kept * planes).sum(1) / kept.sum(1)


class Aggregation(nn.Module):
    """A U-net over the planes at 1/8, 1/16, 1/32 and 1/64, guided by the left image's features.

    At 1/64 whole walls are in sight, which show their disparity at their borders only.
    """

    def __init__(self, c: int, groups: int, depth: int) -> None:
        super().__init__()
        self.guide = conv(2 * c, c, 1)
        self.enter = conv(groups * PLANES + c, 2 * c)
        self.down16 = conv(2 * c, 3 * c, stride=2)
        self.guide16 = conv(6 * c, 3 * c, 1)
        self.body16 = nn.Sequential(*(Residual(3 * c) for _ in range(depth)))
        self.body32 = nn.Sequential(
            conv(3 * c, 4 * c, stride=2), *(Residual(4 * c) for _ in range(depth)), conv(4 * c, 3 * c, 1)
        )
        self.body64 = nn.Sequential(
            conv(3 * c, 4 * c, stride=2), *(Residual(4 * c) for _ in range(2)), nn.Conv2d(4 * c, 3 * c, 1)
        )
        self.merge16 = Residual(3 * c)
        self.rise = conv(3 * c, 2 * c, 1)
        self.body8 = nn.Sequential(*(Residual(2 * c) for _ in range(depth)))
        self.logits = nn.Conv2d(2 * c, PLANES, 3, 1, 1)

    def forward(
        self,
        volume: Float[Tensor, "b v h w"],
        eighth: Float[Tensor, "b f h w"],
        sixteenth: Float[Tensor, "b g hs ws"],
    ) -> tuple[Float[Tensor, "b d h w"], Float[Tensor, "b f h w"]]:
        entered = self.enter(torch.cat([volume, self.guide(eighth)], 1))
        middle = self.body16(self.guide16(torch.cat([self.down16(entered), sixteenth], 1)))
        deep = self.body32(middle)
        height, width = deep.shape[-2:]
        far = doubled(self.body64(deep))[..., :height, :width]
        deep = doubled(deep + far)
        middle = self.merge16(middle + deep)
        risen = doubled(self.rise(middle))
        hidden = self.body8(entered + risen)
        return self.logits(hidden), hidden


class Surroundings(nn.Module):
    """What the costs around a pixel say over 1/8 and 1/16 of the image, at 1/4 again.

    Where there is little texture, one surface's disparity is decided over more pixels than the
    convolutions at 1/4 see.
    """

    def __init__(self, c: int) -> None:
        super().__init__()
        self.down8 = conv(c, 2 * c, stride=2)
        self.guide = conv(4 * c, 2 * c, 1)
        self.down16 = conv(2 * c, 3 * c, stride=2)
        self.body16 = nn.Sequential(Residual(3 * c), Residual(3 * c), conv(3 * c, 2 * c, 1))
        self.body8 = Residual(2 * c)
        self.rise = nn.Conv2d(2 * c, 4 * c, 1)

    def forward(
        self, features: Float[Tensor, "b c h w"], hidden: Float[Tensor, "b f h8 w8"]
    ) -> Float[Tensor, "b c h w"]:
        eighth = self.guide(torch.cat([self.down8(features), hidden], 1))
        risen = doubled(self.body16(self.down16(eighth)))
        return F.pixel_shuffle(self.rise(self.body8(eighth + risen)), 2)


class Refinement(nn.Module):
    """From coarse disparity at 1/8 to disparity and confidence of every pixel.

    The coarse disparity is upsampled to 1/4 convexly, which keeps its steps; there the right features
    are fetched by it once and compared at shifts around it; convolutions over these costs, the left
    features and the disparity, near and wide, give the residual.
    """

    def __init__(self, c: int) -> None:
        super().__init__()
        self.coarse_weights = nn.Conv2d(2 * c, 9 * 4, 1)
        self.spread = conv(2 * c, c, 1)
        self.describe = nn.Conv2d(c, c, 1)
        self.enter = conv(2 * c + 2 * _REACH + 2, c)
        self.surroundings = Surroundings(c)
        self.body = nn.Sequential(Residual(c), Residual(c))
        self.residual = nn.Conv2d(c, 1, 3, 1, 1)
        self.certainty = nn.Conv2d(c, 16, 3, 1, 1)
        self.weights = nn.Sequential(conv(c, 2 * c), nn.Conv2d(2 * c, 9 * 16, 1))

    def rise(
        self, coarse: Float[Tensor, "b hc wc"], hidden: Float[Tensor, "b f hc wc"]
    ) -> Float[Tensor, "b h w"]:
        """The coarse disparity at 1/4, in image pixels."""
        return convex_upsample(coarse[:, None], self.coarse_weights(hidden), 2, border="replicate")[:, 0]

    def forward(
        self,
        quarter: Float[Tensor, "two c h w"],
        initial: Float[Tensor, "b h w"],
        hidden: Float[Tensor, "b f hc wc"],
    ) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b c h w"]]:
        """The disparity at 1/4 with the residual, in image pixels, and the features that gave it."""
        left, right = self.describe(quarter).chunk(2)
        at_quarter = initial[:, None] / 4
        costs = self._local_costs(left, right, at_quarter)
        context = doubled(self.spread(hidden))
        features = self.enter(torch.cat([costs, at_quarter / 16, quarter.chunk(2)[0], context], 1))
        features = self.body(features + self.surroundings(features, hidden))
        return (F.relu(at_quarter + self.residual(features).float()) * 4)[:, 0], features

    def finish(
        self, disparity: Float[Tensor, "b h w"], features: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b hi wi"], Float[Tensor, "b hi wi"]]:
        """Disparity and confidence of the image."""
        full = convex_upsample(disparity[:, None], self.weights(features), 4, border="replicate")[:, 0]
        certainty = F.pixel_shuffle(self.certainty(features).float(), 4)
        return full, certainty[:, 0].sigmoid()

    def _local_costs(
        self,
        left: Float[Tensor, "b c h w"],
        right: Float[Tensor, "b c h w"],
        disparity: Float[Tensor, "b 1 h w"],
    ) -> Float[Tensor, "b k h w"]:
        """Cosines of the left features with the fetched right ones, shifted by -4 .. 4 columns."""
        left, fetched = F.normalize(left, dim=1), F.normalize(_fetch(right, disparity), dim=1)
        width = left.shape[-1]
        padded = F.pad(fetched, (_REACH, _REACH))
        shifts = [(left * padded[..., k : k + width]).sum(1) for k in range(2 * _REACH + 1)]
        return torch.stack(shifts, 1)


def _fetch(right: Float[Tensor, "b c h w"], disparity: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b c h w"]:
    """Right features at x - d, linear between columns; the border's outside."""
    width = right.shape[-1]
    column = torch.arange(width, device=right.device, dtype=torch.float32)
    position = (column - disparity.detach().float()).clamp(0, width - 1)
    first = position.floor()
    index = first.long()
    # By way of whole numbers, which no runtime computes in bfloat16: nothing would be left of the share.
    weight = ((position - first) * _SHARES).long().to(right.dtype) / _SHARES
    before = right.gather(-1, index.expand_as(right))
    after = right.gather(-1, (index + 1).clamp(max=width - 1).expand_as(right))
    return before + weight * (after - before)
