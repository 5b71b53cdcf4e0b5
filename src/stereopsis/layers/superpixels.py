"""Superpixels of CoEx and the IGEV family: what guides the upsampling from 1/4 to the full size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.convolution import ConvNorm, Norm, UpAndMerge
from stereopsis.layers.iteration import States, refine, starting_field
from stereopsis.layers.mobilenet import Rules
from stereopsis.layers.stemmed_features import StemmedMaps
from stereopsis.layers.upsampling import superpixel_upsample
from stereopsis.structures import IterativeOutput


class SuperpixelWeights(nn.Module):
    """Features at 1/4 and the image's stem at 1/2 to weights of 9 neighbours at full size, float32."""

    def __init__(self, features: int, *, norm: Norm) -> None:
        super().__init__()
        self.refine = UpAndMerge(features, 32, norm=norm)
        self.expand = nn.ConvTranspose2d(64, 9, 4, stride=2, padding=1)

    def forward(
        self, features: Float[Tensor, "b c h4 w4"], stem2: Float[Tensor, "b 32 h2 w2"]
    ) -> Float[Tensor, "b 9 h w"]:
        return torch.softmax(self.expand(self.refine(features, stem2)).float(), 1)


class ImageSuperpixels(nn.Module):
    """Superpixel weights from the left image's features at 1/4 alone."""

    def __init__(self, width: int, *, norm: Norm) -> None:
        super().__init__()
        self.smooth = nn.Sequential(
            ConvNorm(96, width, norm=norm), ConvNorm(width, width, norm=norm, activation="relu")
        )
        self.weights = SuperpixelWeights(width, norm=norm)

    def forward(
        self, features: Float[Tensor, "b 96 h4 w4"], stem2: Float[Tensor, "b 32 h2 w2"]
    ) -> Float[Tensor, "b 9 h w"]:
        return self.weights(self.smooth(features), stem2)


class SuperpixelUpsampling(nn.Module):
    """Fields at 1/4 to disparities of the image, as the IGEV family does it.

    A field of the iterations goes by its hidden state and the image's stem, what was regressed before
    them by the image's features alone. share: of the hidden state's features that the weights see.
    """

    def __init__(
        self, hidden: int, *, features: int = 32, norm: Norm = "batch", width: int = 24, share: float = 1.0
    ) -> None:
        super().__init__()
        self.share = share
        self.mask_features = nn.Sequential(nn.Conv2d(hidden, features, 3, padding=1), nn.ReLU())
        self.superpixels = SuperpixelWeights(features, norm=norm)
        self.initial_superpixels = ImageSuperpixels(width, norm="instance")

    def forward(
        self,
        field: Float[Tensor, "b h4 w4"],
        hidden: Float[Tensor, "b c h4 w4"],
        stem2: Float[Tensor, "b 32 h2 w2"],
    ) -> Float[Tensor, "b h w"]:
        features = self.mask_features(hidden)
        weights = self.superpixels(features if self.share == 1 else self.share * features, stem2)
        return superpixel_upsample(4 * field[:, None], weights)[:, 0]

    def initial(
        self,
        fields: Float[Tensor, "b k h4 w4"],
        features: Float[Tensor, "b 96 h4 w4"],
        stem2: Float[Tensor, "b 32 h2 w2"],
    ) -> Float[Tensor, "b k h w"]:
        return superpixel_upsample(4 * fields, self.initial_superpixels(features, stem2))

    def refine(
        self,
        firsts: Sequence[Float[Tensor, "b h4 w4"]],
        states: Sequence[Tensor],
        step: Callable[[States, Tensor], tuple[States, Tensor]],
        maps: StemmedMaps,
        *,
        initial: Float[Tensor, "b h w"] | None,
        iterations: int,
        stop_below: float | None,
    ) -> IterativeOutput:
        """The updates of the first of the regressed fields, or of what `initial` knows, as in `iteration`.

        In training the output also has what was regressed: `initial`, and the other fields as `wider`.
        """
        output = refine(
            starting_field(initial, firsts[0]),
            states,
            step,
            lambda field, state: self(field, state, maps.stem2),
            factor=4,
            iterations=iterations,
            stop_below=stop_below,
            training=self.training,
        )
        if not self.training:
            return output
        first, *wider = self.initial(torch.stack(list(firsts), 1), maps.scale4, maps.stem2).unbind(1)
        return dataclasses.replace(output, initial=first, wider=tuple(wider))


def superpixel_rules(published: str, ours: str) -> Rules:
    """Renaming rules of SuperpixelWeights; published: the suffix of `spx` (`""`, `"_gru"`)."""
    return [
        (rf"^spx_2{published}\.conv1\.", f"{ours}.refine.up."),
        (rf"^spx_2{published}\.conv2\.", f"{ours}.refine.merge."),
        (rf"^spx{published}\.0\.", f"{ours}.expand."),
    ]


def image_superpixel_rules(ours: str) -> Rules:
    """Renaming rules of ImageSuperpixels from the published `spx_4`, `spx_2` and `spx`."""
    return [
        (r"^spx_4\.0\.", f"{ours}.smooth.0."),
        (r"^spx_4\.1\.", f"{ours}.smooth.1.conv."),
        (r"^spx_4\.2\.", f"{ours}.smooth.1.norm."),
        *superpixel_rules("", f"{ours}.weights"),
    ]


def superpixel_upsampling_rules(ours: str) -> Rules:
    """Renaming rules of SuperpixelUpsampling from the names of IGEV-Stereo's release."""
    return [
        (r"^update_block\.mask_feat_4\.", f"{ours}.mask_features."),
        *superpixel_rules("_gru", f"{ours}.superpixels"),
        *image_superpixel_rules(f"{ours}.initial_superpixels"),
    ]
