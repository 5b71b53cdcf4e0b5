"""Two 2-D hourglasses in a row whose levels are remembered (GA-Net's features; AANet+, BGNet).

The first goes down and comes up; on its way up every level merges what was met there on the way down.
The second goes down merging what the first left, and comes up merging again.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.convolution import ConvNorm, Norm
from stereopsis.layers.deformable import DeformableConv

Rules = list[tuple[str, str]]
Way = Literal["down", "up"]


class DoubleHourglass(nn.Module):
    """widths: channels of every level, finest first; deformable: deepest levels that deform on the way down;
    dilated: deepest levels that the first way down reaches with dilation 2.

    Deformable convolutions have neither norm nor activation, the others `norm` and ReLU.
    Sides must be multiples of `2 ** (len(widths) - 1)`.
    """

    def __init__(self, widths: Sequence[int], *, norm: Norm, deformable: int = 0, dilated: int = 0) -> None:
        super().__init__()
        depth = len(widths) - 1
        steps = list(itertools.pairwise(widths))
        deforms = [level >= depth - deformable for level in range(depth)]
        dilations = [2 if level >= depth - dilated else 1 for level in range(depth)]
        self.down1 = nn.ModuleList(
            DeformableConv(fine, coarse, stride=2)
            if deform
            else ConvNorm(fine, coarse, stride=2, dilation=dilation, norm=norm, activation="relu")
            for (fine, coarse), deform, dilation in zip(steps, deforms, dilations, strict=True)
        )
        self.up1 = nn.ModuleList(Merge(coarse, fine, way="up", norm=norm) for fine, coarse in steps)
        self.down2 = nn.ModuleList(
            Merge(fine, coarse, way="down", norm=norm, deformable=deform)
            for (fine, coarse), deform in zip(steps, deforms, strict=True)
        )
        self.up2 = nn.ModuleList(Merge(coarse, fine, way="up", norm=norm) for fine, coarse in steps)

    def forward(
        self, x: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c h w"]]:
        """The finest map after the first hourglass, and after the second."""
        remembered = [x]
        for down in self.down1:
            remembered.append(down(remembered[-1]))
        _ascend(self.up1, remembered)
        first = remembered[0]
        for level, down in enumerate(self.down2):
            remembered[level + 1] = down(remembered[level], remembered[level + 1])
        _ascend(self.up2, remembered)
        return first, remembered[0]


def _ascend(ups: nn.ModuleList, remembered: list[Tensor]) -> None:
    """Replaces every level but the coarsest by the next coarser one merged with it."""
    for level in reversed(range(len(ups))):
        remembered[level] = ups[level](remembered[level + 1], remembered[level])


class Merge(nn.Module):
    """Halves or doubles a map, and merges it with the map remembered at the new size."""

    def __init__(self, inputs: int, outputs: int, *, way: Way, norm: Norm, deformable: bool = False) -> None:
        super().__init__()
        self.resize = ConvNorm(
            inputs,
            outputs,
            kernel=4 if way == "up" else 3,
            stride=2,
            transposed=way == "up",
            norm=norm,
            activation="relu",
        )
        self.merge = (
            DeformableConv(2 * outputs, outputs)
            if deformable
            else ConvNorm(2 * outputs, outputs, norm=norm, activation="relu")
        )

    def forward(
        self, x: Float[Tensor, "b c h w"], remembered: Float[Tensor, "b o ho wo"]
    ) -> Float[Tensor, "b o ho wo"]:
        return self.merge(torch.cat([self.resize(x), remembered], 1))


def double_hourglass_rules(published: str, ours: str, *, depth: int) -> Rules:
    """Renaming rules; published, ours: prefixes with their dots, escaped in the first (`r"net\\."`).

    Published: `conv1a` .. on the first way down, `deconv1a` .. on the way up, `b` for the second hourglass.
    """
    rules: Rules = []
    for level in range(depth):
        for letter, number in (("a", 1), ("b", 2)):
            for old, new in (("deconv", "up"), ("conv", "down")):
                place = f"{ours}{new}{number}.{level}."
                rules.append((rf"^{published}{old}{level + 1}{letter}\.", place))
    own = ours.replace(".", r"\.")
    inside = rf"^({own}(?:up|down)\d\.\d+\.(?:resize\.|merge\.)?)"
    return [
        *rules,
        (rf"^({own}(?:up|down)\d\.\d+\.)conv1\.", r"\1resize."),
        (rf"^({own}(?:up|down)\d\.\d+\.)conv2\.", r"\1merge."),
        (rf"{inside}bn\.", r"\1norm."),
        (rf"{inside}deform_conv\.", r"\1"),
    ]
