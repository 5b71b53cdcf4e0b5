"""The dense prediction transformer's neck and head (Ranftl et al., ICCV 2021) in Depth Anything V2's form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.vit import PATCH, VisionTransformer

SizeName = Literal["tiny", "small", "base", "large"]


@dataclass(frozen=True)
class MonocularSize:
    """How wide and deep a vision transformer and the neck on it are.

    channels, blocks, heads, taps: of the transformer; widths: of its four tapped maps, fine to coarse;
    features: of the fused maps.
    """

    channels: int
    blocks: int
    heads: int
    taps: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]
    features: int

    def encoder(self, *, position_offset: float = 0.1) -> VisionTransformer:
        return VisionTransformer(
            channels=self.channels,
            blocks=self.blocks,
            heads=self.heads,
            taps=self.taps,
            position_offset=position_offset,
        )

    def neck(self) -> DPTNeck:
        return DPTNeck(self.channels, self.widths, self.features)

    def head(self) -> DPTHead:
        return DPTHead(self.channels, self.widths, self.features)


SIZES: Mapping[SizeName, MonocularSize] = {
    "tiny": MonocularSize(32, 4, 2, (0, 1, 2, 3), (8, 12, 16, 24), 16),
    "small": MonocularSize(384, 12, 6, (2, 5, 8, 11), (48, 96, 192, 384), 64),
    "base": MonocularSize(768, 12, 12, (2, 5, 8, 11), (96, 192, 384, 768), 128),
    "large": MonocularSize(1024, 24, 16, (4, 11, 17, 23), (256, 512, 1024, 1024), 256),
}
"""The published sizes, and one for tests and small experiments."""


class ResidualUnit(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self.conv2(F.relu(self.conv1(F.relu(x)), inplace=True)) + x


class Fusion(nn.Module):
    """A coarser map, already enlarged, with its level's own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.skip_unit = ResidualUnit(channels)
        self.unit = ResidualUnit(channels)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(
        self, coarse: Float[Tensor, "b c h w"], level: Float[Tensor, "b c h w"] | None = None
    ) -> Float[Tensor, "b c h w"]:
        fused = coarse if level is None else coarse + self.skip_unit(level)
        return self.project(self.unit(fused))


class DPTNeck(nn.Module):
    """The tapped maps of a transformer to a pyramid of `features` channels at 4, 2, 1 and 1/2 cells a patch.

    The projection of a fused map and its enlargement commute; it is projected first, at a quarter of the
    cost, where the published network enlarges first.
    """

    def __init__(self, channels: int, widths: Sequence[int], features: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Conv2d(channels, width, 1) for width in widths)
        self.resizings = nn.ModuleList(
            (
                nn.ConvTranspose2d(widths[0], widths[0], 4, 4),
                nn.ConvTranspose2d(widths[1], widths[1], 2, 2),
                nn.Identity(),
                nn.Conv2d(widths[3], widths[3], 3, 2, 1),
            )
        )
        self.levels = nn.ModuleList(nn.Conv2d(width, features, 3, padding=1, bias=False) for width in widths)
        self.fusions = nn.ModuleList(Fusion(features) for _ in widths)

    def forward(self, tapped: Sequence[Float[Tensor, "b c hp wp"]]) -> tuple[Tensor, ...]:
        """The fused maps, finest first."""
        parts = zip(self.projections, self.resizings, self.levels, tapped, strict=True)
        levels = [level(resize(project(x))) for project, resize, level, x in parts]
        fused = [self.fusions[3](levels[3])]
        for k in (2, 1, 0):
            fused.insert(0, self.fusions[k](enlarge(fused[0], levels[k].shape[-2:]), levels[k]))
        return tuple(fused)


class DPTHead(nn.Module):
    """The neck and three convolutions to one non-negative map of 14 x 14 values a patch."""

    def __init__(self, channels: int, widths: Sequence[int], features: int) -> None:
        super().__init__()
        self.neck = DPTNeck(channels, widths, features)
        self.conv1 = nn.Conv2d(features, features // 2, 3, padding=1)
        self.conv2 = nn.Conv2d(features // 2, 32, 3, padding=1)
        self.conv3 = nn.Conv2d(32, 1, 1)

    def forward(self, tapped: Sequence[Float[Tensor, "b c hp wp"]]) -> Float[Tensor, "b 1 h w"]:
        height, width = tapped[0].shape[-2:]
        finest = enlarge(self.neck(tapped)[0], (8 * height, 8 * width))
        full = enlarge(self.conv1(finest), (PATCH * height, PATCH * width))
        return F.relu(self.conv3(F.relu(self.conv2(full), inplace=True)))


def enlarge(x: Float[Tensor, "b c h w"], size: Sequence[int]) -> Float[Tensor, "b c ho wo"]:
    """Bilinear, corners on corners."""
    return F.interpolate(x, (size[0], size[1]), mode="bilinear", align_corners=True)


def size_of(class_token: Tensor, finest_level: Tensor) -> SizeName | None:
    """Which of `SIZES` has a class token and a finest level's convolution of these shapes, if any."""
    for name, size in SIZES.items():
        if size.channels == class_token.shape[-1] and size.features == finest_level.shape[0]:
            return name
    return None


def vit_rules(published: str, ours: str) -> list[tuple[str, str]]:
    """Renaming rules from DINOv2's names under `published` (e.g. `"pretrained."`) to ours under `ours`."""
    start, block = rf"^{published}", rf"^({ours}blocks\.\d+)"
    start = start.replace(".", r"\.")
    return [
        (rf"{start}cls_token$", f"{ours}class_token"),
        (rf"{start}pos_embed$", f"{ours}positions"),
        (rf"{start}patch_embed\.proj\.", f"{ours}patch_embedding."),
        (start, ours),
        (rf"{block}\.attn\.proj\.", r"\1.attention.project."),
        (rf"{block}\.attn\.", r"\1.attention."),
        (rf"{block}\.ls(\d)\.gamma$", r"\1.scale\2"),
        (rf"{block}\.mlp\.fc1\.", r"\1.expand."),
        (rf"{block}\.mlp\.fc2\.", r"\1.reduce."),
    ]


def neck_rules(published: str, ours: str) -> list[tuple[str, str]]:
    """Renaming rules of a neck from the published names under `published` to ours under `ours`."""
    start = rf"^{published}".replace(".", r"\.")
    rules = [
        (rf"{start}projects\.", f"{ours}projections."),
        (rf"{start}resize_layers\.", f"{ours}resizings."),
    ]
    for k in range(4):
        fusion = f"{ours}fusions.{k}."
        rules += [
            (rf"{start}scratch\.layer{k + 1}_rn\.", f"{ours}levels.{k}."),
            (rf"{start}scratch\.refinenet{k + 1}\.resConfUnit1\.", f"{fusion}skip_unit."),
            (rf"{start}scratch\.refinenet{k + 1}\.resConfUnit2\.", f"{fusion}unit."),
            (rf"{start}scratch\.refinenet{k + 1}\.out_conv\.", f"{fusion}project."),
        ]
    return rules


def head_rules(published: str, ours: str) -> list[tuple[str, str]]:
    """Renaming rules of a head from the published names under `published` to ours under `ours`."""
    start = rf"^{published}".replace(".", r"\.")
    return [
        *neck_rules(published, f"{ours}neck."),
        (rf"{start}scratch\.output_conv1\.", f"{ours}conv1."),
        (rf"{start}scratch\.output_conv2\.0\.", f"{ours}conv2."),
        (rf"{start}scratch\.output_conv2\.2\.", f"{ours}conv3."),
    ]
