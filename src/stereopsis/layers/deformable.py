"""Modulated deformable convolution (Zhu et al., "Deformable ConvNets v2", CVPR 2019) in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

TAPS = 9


class DeformableConv(nn.Module):
    """A 3x3 convolution whose taps move by learnt offsets and are weighted by learnt masks.

    `groups` deformable groups of neighbouring input channels have their own offsets (pixels, y before x)
    and masks in (0, 2), all read from the input by one grouped convolution. Taps between pixels are
    bilinear, with zeros outside. Offsets start at zero and masks at one: as a plain dilated convolution.
    """

    def __init__(
        self, inputs: int, outputs: int, *, stride: int = 1, dilation: int = 2, groups: int = 2
    ) -> None:
        super().__init__()
        self.stride, self.dilation, self.groups = stride, dilation, groups
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.offset_conv = nn.Conv2d(
            inputs, 3 * TAPS * groups, 3, stride, dilation, dilation=dilation, groups=groups
        )
        nn.init.zeros_(self.offset_conv.weight)
        assert self.offset_conv.bias is not None
        nn.init.zeros_(self.offset_conv.bias)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o ho wo"]:
        moved = self.offset_conv(x)
        offsets, masks = moved.split([2 * TAPS * self.groups, TAPS * self.groups], 1)
        return deformable_conv2d(
            x,
            offsets,
            2 * masks.sigmoid(),
            self.weight,
            stride=self.stride,
            dilation=self.dilation,
            groups=self.groups,
        )


def deformable_conv2d(
    x: Float[Tensor, "b c h w"],
    offsets: Float[Tensor, "b {18*groups} ho wo"],
    masks: Float[Tensor, "b {9*groups} ho wo"],
    weight: Float[Tensor, "o c 3 3"],
    *,
    stride: int,
    dilation: int,
    groups: int,
) -> Float[Tensor, "b o ho wo"]:
    """A 3x3 deformable convolution with padding `dilation`: all taps by one sampling, then one product.

    Taps are sampled in float32, whose positions lower precisions could not hold.
    offsets: (y, x) of every tap, row-major, group by group; masks: likewise.
    """
    batch, channels, _, _ = x.shape
    rows, columns = offsets.shape[-2:]
    grid = _sampling_grid(x, offsets, stride=stride, dilation=dilation, groups=groups)
    grouped = x.reshape(batch * groups, channels // groups, *x.shape[-2:])
    taps = F.grid_sample(grouped.float(), grid, padding_mode="zeros", align_corners=False)
    taps = taps.reshape(batch, groups, channels // groups, TAPS, rows * columns)
    taps = taps * masks.reshape(batch, groups, 1, TAPS, rows * columns)
    summed = weight.flatten(1) @ taps.reshape(batch, channels * TAPS, rows * columns)
    return summed.reshape(batch, -1, rows, columns)


def _sampling_grid(
    x: Float[Tensor, "b c h w"], offsets: Tensor, *, stride: int, dilation: int, groups: int
) -> Float[Tensor, "bg rows wo 2"]:
    """Where every tap looks, as `grid_sample` counts, taps below one another: [b*groups 9*ho wo 2]."""
    batch, _, rows, columns = offsets.shape
    moves = offsets.float().reshape(batch * groups, TAPS, 2, rows, columns)
    steps = dilation * torch.arange(-1, 2, device=x.device, dtype=torch.float32)
    tap_y, tap_x = steps.repeat_interleave(3), steps.repeat(3)
    y = stride * torch.arange(rows, device=x.device)[:, None] + tap_y[:, None, None] + moves[:, :, 0]
    x_position = stride * torch.arange(columns, device=x.device) + tap_x[:, None, None] + moves[:, :, 1]
    height, width = x.shape[-2:]
    grid = torch.stack([(2 * x_position + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    return grid.reshape(batch * groups, TAPS * rows, columns, 2)
