"""From the monocular encoder's pyramid to the maps that a stereo network matches and starts from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.attention import SpatialAttention
from stereopsis.layers.convolution import ConvNorm
from stereopsis.layers.stemmed_features import halving_stem

SCALES = ("2", "4", "8", "16")

_STEM_WIDTHS = (3, 32, 48, 96, 192)
_TRANSFER_WIDTHS = {"4": 48, "8": 64, "16": 192, "32": 160}


class Stems(nn.ModuleDict):
    """Shallow features of the image alone at 1/2, 1/4, 1/8 and 1/16."""

    def __init__(self) -> None:
        steps = zip(SCALES, _STEM_WIDTHS[:-1], _STEM_WIDTHS[1:], strict=True)
        super().__init__({scale: halving_stem(i, o, "instance") for scale, i, o in steps})

    def forward(self, image: Float[Tensor, "b 3 h w"], *, coarsest: str = "16") -> list[Tensor]:
        """Finest first, down to the coarsest scale asked for."""
        maps = []
        for scale in SCALES[: SCALES.index(coarsest) + 1]:
            image = self[scale](image)
            maps.append(image)
        return maps


class PlainPyramid(nn.Module):
    """Convolutions of the image in the place of the monocular branch, as wide as its neck."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.start = halving_stem(3, channels, "instance")
        self.steps = nn.ModuleList(halving_stem(channels, channels, "instance") for _ in range(4))

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, ...]:
        """Finest first, at 1/4 to 1/32."""
        x = self.start(image)
        maps = []
        for step in self.steps:
            x = step(x)
            maps.append(x)
        return tuple(maps)


class FeatureTransfer(nn.Module):
    """The pyramid at 1/4 to 1/32, coarse to fine, each scale from its own map and the coarser result."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = _TRANSFER_WIDTHS
        self.coarsest = ConvNorm(channels, widths["32"], norm="instance", activation="relu", bias=True)
        steps = (("16", "32"), ("8", "16"), ("4", "8"))
        self.enlarge = nn.ModuleDict(
            {
                fine: nn.ConvTranspose2d(widths[coarse], widths[fine], 3, 2, 1, output_padding=1, bias=False)
                for fine, coarse in steps
            }
        )
        self.merge = nn.ModuleDict(
            {
                fine: ConvNorm(
                    channels + widths[fine],
                    widths[fine],
                    kernel=5,
                    norm="instance",
                    activation="relu",
                    bias=True,
                )
                for fine, _ in steps
            }
        )
        self.shortcut = nn.ModuleDict({fine: nn.Conv2d(channels, widths[fine], 1) for fine, _ in steps})

    def forward(self, pyramid: Sequence[Tensor]) -> list[Tensor]:
        """Finest first: 48, 64, 192 and 160 channels."""
        x = self.coarsest(pyramid[3])
        transferred = [x]
        for scale, features in zip(("16", "8", "4"), reversed(pyramid[:3]), strict=True):
            x = self.merge[scale](torch.cat([features, self.enlarge[scale](x)], 1))
            x = x + self.shortcut[scale](features)
            transferred.insert(0, x)
        return transferred


class ContextTransfer(nn.Module):
    """Attended monocular features beside the stems, at 1/4, 1/8 and 1/16, to `hidden` channels each."""

    def __init__(self, channels: int, *, hidden: int, spatial_attention: bool) -> None:
        super().__init__()
        self.merge = nn.ModuleDict(
            {
                scale: nn.Conv2d(channels + width, hidden, 3, padding=1)
                for scale, width in zip(SCALES[1:], _STEM_WIDTHS[2:], strict=True)
            }
        )
        self.look = nn.ModuleDict(
            {scale: SpatialAttention() for scale in SCALES[1:]} if spatial_attention else {}
        )

    def forward(self, monocular: Sequence[Tensor], stems: Sequence[Tensor]) -> list[Tensor]:
        """Both finest first, from 1/4 on."""
        contexts = []
        for scale, features, stem in zip(SCALES[1:], monocular, stems, strict=True):
            stem = stem * self.look[scale](stem) if scale in self.look else stem
            contexts.append(self.merge[scale](torch.cat([features, stem], 1)))
        return contexts


def feature_rules() -> list[tuple[str, str]]:
    """Renaming rules to `stems`, `transfer` and `context`."""
    scale = r"(\d+)x"
    return [
        (r"^stem_(\d+)\.0\.", r"stems.\1.0."),
        (r"^stem_(\d+)\.1\.", r"stems.\1.1.conv."),
        (r"^feat_transfer\.conv32x\.0\.", "transfer.coarsest.conv."),
        (rf"^feat_transfer\.conv{scale}\.0\.", r"transfer.merge.\1.conv."),
        (r"^feat_transfer\.conv_up_32x\.", "transfer.enlarge.16."),
        (r"^feat_transfer\.conv_up_16x\.", "transfer.enlarge.8."),
        (r"^feat_transfer\.conv_up_8x\.", "transfer.enlarge.4."),
        (rf"^feat_transfer\.res_{scale}\.", r"transfer.shortcut.\1."),
        (rf"^feat_transfer_cnet\.res_{scale}\.", r"context.merge.\1."),
    ]
