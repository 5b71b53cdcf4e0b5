"""Stereodepth: a ResNet-18 over both images stacked, and a decoder with skips; SMD-Nets' fastest backbone.

The design is Monodepth2's (Godard et al., ICCV 2019, arXiv 1806.01260), as used by SMD-Nets (Tosi et
al., CVPR 2021, arXiv 2104.03866; fabiotosi92/SMD-Nets, MIT). It has no cost volume: that left and right
meet in one convolution is all it knows of matching. Written from the papers; its weights come with a
head (see `smd.py`).

Kept quirks of the release: a leaky ReLU after the first convolution alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.convolution import ConvNorm, channels_innermost
from stereopsis.layers.upsampling import doubled
from stereopsis.models.base import Backbone, StateDict, rename
from stereopsis.models.registry import register_backbone


@register_backbone("stereodepth")
class Stereodepth(Backbone):
    """Maps of 8, 4, 2 and 1 times `width` channels at 1/8, 1/4, 1/2 and full resolution; images 0..255."""

    def __init__(self, *, max_disparity: int, in_channels: int = 3, width: int = 16) -> None:
        super().__init__()
        del max_disparity  # nothing here depends on it: the head does
        self.channels = (8 * width, 4 * width, 2 * width, width)
        self.smallest = 64
        self.encoder = Encoder(2 * in_channels, 4 * width)
        self.decoder = Decoder(width)

    def forward(self, left: Float[Tensor, "b c h w"], right: Float[Tensor, "b c h w"]) -> list[Tensor]:
        images = channels_innermost(torch.cat([left, right], 1)) / 255
        return self.decoder(self.encoder(images))

    def start_from_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Takes a ResNet-18's published ImageNet weights; the first convolution's are shared out."""
        inputs = self.encoder.stem.conv.in_channels // 3
        first = torch.cat([state["conv1.weight"]] * inputs, 1) / inputs
        published = {f"encoder.encoder.{name}": tensor for name, tensor in state.items()}
        published["encoder.encoder.conv1.weight"] = first
        named = self.from_official(published)
        self.encoder.load_state_dict({n.removeprefix("encoder."): t for n, t in named.items()})

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> StateDict:
        """The release also holds a classifier and four disparity heads, which it does not use."""
        unused = [r"^encoder\.encoder\.fc\.", r"^decoder\.decoder\.1[0-3]\."]
        return rename(state, _OFFICIAL_NAMES, drop=unused)


_OFFICIAL_NAMES = [
    (r"^encoder\.encoder\.conv1\.", "encoder.stem.conv."),
    (r"^encoder\.encoder\.bn1\.", "encoder.stem.norm."),
    (r"^encoder\.encoder\.layer(\d)\.", lambda m: f"encoder.layers.{int(m[1]) - 1}."),
    (r"\.conv([12])\.weight$", r".conv\1.conv.weight"),
    (r"\.bn([12])\.", r".conv\1.norm."),
    (r"\.downsample\.0\.", ".shortcut.conv."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
    (
        r"^decoder\.decoder\.(\d)\.conv\.conv\.",
        lambda m: f"decoder.{('before', 'after')[int(m[1]) % 2]}.{int(m[1]) // 2}.",
    ),
]


class Encoder(nn.Module):
    """ResNet-18 without its classifier: images [b c h w] -> maps at 1/2, 1/4, 1/8, 1/16, 1/32."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.stem = ConvNorm(inputs, width, kernel=7, stride=2, activation="leaky")
        widths = (width, width, 2 * width, 4 * width, 8 * width)
        self.layers = nn.ModuleList(
            nn.Sequential(
                BasicBlock(widths[i], widths[i + 1], stride=1 if i == 0 else 2),
                BasicBlock(widths[i + 1], widths[i + 1], stride=1),
            )
            for i in range(4)
        )

    def forward(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        maps = [self.stem(images)]
        x = F.max_pool2d(maps[0], 3, stride=2, padding=1)
        for layer in self.layers:
            x = layer(x)
            maps.append(x)
        return maps


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a skip, rectified."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, outputs, stride=stride, activation="relu")
        self.conv2 = ConvNorm(outputs, outputs, activation="none")
        self.shortcut = (
            None
            if stride == 1 and inputs == outputs
            else ConvNorm(inputs, outputs, kernel=1, stride=stride, activation="none")
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o ho wo"]:
        return F.relu_(self.conv2(self.conv1(x)).add_(x if self.shortcut is None else self.shortcut(x)))


class Decoder(nn.Module):
    """From 1/32 back to full resolution in five doublings, each joined by the encoder's map of its size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        outputs = [16 * width, 8 * width, 4 * width, 2 * width, width]
        inputs = [32 * width, *outputs[:-1]]
        skips = [16 * width, 8 * width, 4 * width, 4 * width, 0]
        self.before = nn.ModuleList(nn.Conv2d(i, o, 3) for i, o in zip(inputs, outputs, strict=True))
        self.after = nn.ModuleList(nn.Conv2d(o + s, o, 3) for o, s in zip(outputs, skips, strict=True))

    def forward(self, maps: list[Float[Tensor, "b _ _ _"]]) -> list[Float[Tensor, "b _ _ _"]]:
        *skips, x = maps
        decoded = []
        for before, after in zip(self.before, self.after, strict=True):
            x = doubled(_convolve(before, x))
            if skips:
                x = torch.cat([x, skips.pop()], 1)
            x = _convolve(after, x)
            decoded.append(x)
        return decoded[1:]


def _convolve(conv: nn.Module, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h w"]:
    """3x3 with mirrored borders, rectified."""
    return F.relu_(conv(F.pad(x, (1, 1, 1, 1), mode="reflect")))
