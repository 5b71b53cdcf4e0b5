"""The 3-D hourglass of CoEx and the IGEV family: a volume, aggregated under the left image's guidance."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.convolution import ConvNorm, Norm
from stereopsis.layers.mobilenet import Rules
from stereopsis.layers.stemmed_features import StemmedMaps


class FeatureAttention(nn.Module):
    """Multiplies a volume by sigmoid weights per channel and pixel, read from image features (CoEx)."""

    def __init__(self, channels: int, features: int, *, norm: Norm) -> None:
        super().__init__()
        self.squeeze = ConvNorm(features, features // 2, kernel=1, norm=norm)
        self.weigh = nn.Conv2d(features // 2, channels, 1)

    def forward(
        self, volume: Float[Tensor, "b c d h w"], features: Float[Tensor, "b cf h w"]
    ) -> Float[Tensor, "b c d h w"]:
        return volume * self.weights(features)

    def attend_(
        self, volume: Float[Tensor, "b c d h w"], features: Float[Tensor, "b cf h w"]
    ) -> Float[Tensor, "b c d h w"]:
        """The same, in place where no gradients are wanted: for volumes that nobody else holds."""
        weights = self.weights(features)
        return volume * weights if torch.is_grad_enabled() else volume.mul_(weights)

    def weights(self, features: Float[Tensor, "b cf h w"]) -> Float[Tensor, "b c 1 h w"]:
        return self.weigh(self.squeeze(features)).sigmoid().unsqueeze(2)


class AttendedStem(nn.Module):
    """One 3-D convolution of the volume at 1/4, attended by the features there."""

    def __init__(self, inputs: int, outputs: int, *, norm: Norm) -> None:
        super().__init__()
        self.conv = ConvNorm(inputs, outputs, dimensions=3, norm=norm)
        self.attention = FeatureAttention(outputs, 96, norm=norm)

    def forward(
        self, volume: Float[Tensor, "b c d h w"], features: Float[Tensor, "b 96 h w"]
    ) -> Float[Tensor, "b co d h w"]:
        return self.attention.attend_(self.conv(volume), features)


class GuidedHourglass(nn.Module):
    """Down to 1/8, 1/16, 1/32 and back to 1/4, every level attended by the features of its scale.

    d, h and w must be multiples of 8. inputs, outputs: channels of the volume; bottom: channels at 1/32.
    """

    def __init__(self, inputs: int, outputs: int, *, bottom: int, norm: Norm) -> None:
        super().__init__()
        self.down8 = _down(inputs, 16, norm)
        self.attend8 = FeatureAttention(16, 64, norm=norm)
        self.down16 = _down(16, 32, norm)
        self.attend16 = FeatureAttention(32, 192, norm=norm)
        self.down32 = _down(32, bottom, norm)
        self.attend32 = FeatureAttention(bottom, 160, norm=norm)
        self.up16 = _up(bottom, 32, norm)
        self.merge16 = _merge(32, norm)
        self.attend_up16 = FeatureAttention(32, 192, norm=norm)
        self.up8 = _up(32, 16, norm)
        self.merge8 = _merge(16, norm)
        self.attend_up8 = FeatureAttention(16, 64, norm=norm)
        self.up4 = nn.ConvTranspose3d(16, outputs, 4, 2, 1, bias=False)

    def forward(self, volume: Float[Tensor, "b c d h w"], maps: StemmedMaps) -> Float[Tensor, "b co d h w"]:
        volume8 = self.attend8.attend_(self.down8(volume), maps.scale8)
        volume16 = self.attend16.attend_(self.down16(volume8), maps.scale16)
        volume32 = self.attend32.attend_(self.down32(volume16), maps.scale32)
        up16 = self.merge16(torch.cat([self.up16(volume32), volume16], 1))
        up8 = self.up8(self.attend_up16.attend_(up16, maps.scale16))
        up8 = self.merge8(torch.cat([up8, volume8], 1))
        return self.up4(self.attend_up8.attend_(up8, maps.scale8))


def _down(inputs: int, outputs: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(
        ConvNorm(inputs, outputs, stride=2, dimensions=3, norm=norm),
        ConvNorm(outputs, outputs, dimensions=3, norm=norm),
    )


def _up(inputs: int, outputs: int, norm: Norm) -> ConvNorm:
    return ConvNorm(inputs, outputs, kernel=4, stride=2, transposed=True, dimensions=3, norm=norm)


def _merge(channels: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(
        ConvNorm(2 * channels, channels, kernel=1, dimensions=3, norm=norm),
        ConvNorm(channels, channels, dimensions=3, norm=norm),
        ConvNorm(channels, channels, dimensions=3, norm=norm),
    )


def attention_rules(published: str, ours: str) -> Rules:
    """Renaming rules of one FeatureAttention from the IGEV family's names."""
    return [
        (rf"^{published}\.feat_att\.0\.", f"{ours}.squeeze."),
        (rf"^{published}\.feat_att\.1\.", f"{ours}.weigh."),
    ]


def hourglass_rules(published: str, ours: str) -> Rules:
    """Renaming rules from the IGEV family's names; no final dots (`r"cost_agg"`, `"aggregate"`)."""
    parts = {
        "conv1": "down8",
        "conv2": "down16",
        "conv3": "down32",
        "conv3_up": "up16",
        "agg_0": "merge16",
        "conv2_up": "up8",
        "agg_1": "merge8",
    }
    rules = [(rf"^{published}\.{old}\.", f"{ours}.{new}.") for old, new in parts.items()]
    rules.append((rf"^{published}\.conv1_up\.conv\.", f"{ours}.up4."))
    for scale in ("8", "16", "32"):
        rules += attention_rules(rf"{published}\.feature_att_{scale}", f"{ours}.attend{scale}")
    for scale in ("8", "16"):
        rules += attention_rules(rf"{published}\.feature_att_up_{scale}", f"{ours}.attend_up{scale}")
    return rules
