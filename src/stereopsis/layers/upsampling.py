"""Nearest upsampling, and learnt: a fine value is a weighted mean of its coarse cell's 3x3 neighbourhood.

Neighbours are row-major; outside the image they are zero, which draws values at the border towards
zero: published networks were trained so, and it is kept. Where `border` is "replicate" they repeat it.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Border = Literal["zero", "replicate"]


def neighbourhood(field: Float[Tensor, "b c h w"], border: Border = "zero") -> Float[Tensor, "b c 9 h w"]:
    """The 3x3 neighbours of every cell, row-major."""
    height, width = field.shape[-2:]
    if border == "zero":
        padded = F.pad(field, (1, 1, 1, 1))
    else:  # torch.compile cannot take `F.pad` here, with sizes that are free
        wide = torch.cat([field[..., :1], field, field[..., -1:]], -1)
        padded = torch.cat([wide[..., :1, :], wide, wide[..., -1:, :]], -2)
    return torch.stack(
        [padded[..., y : y + height, x : x + width] for y in range(3) for x in range(3)], dim=2
    )


def doubled(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
    """Every value four times: nearest-neighbour upsampling by two.

    Compiled for a CPU in bfloat16, the gradient of `F.interpolate` may be zero (PyTorch 2.13), and what lies
    below is never trained; that of a copy is right. Runtimes have an operator for the former.
    """
    if not x.requires_grad:
        return F.interpolate(x, scale_factor=2.0, mode="nearest")
    b, c, h, w = x.shape
    return x[:, :, :, None, :, None].expand(b, c, h, 2, w, 2).reshape(b, c, 2 * h, 2 * w)


def convex_upsample(
    field: Float[Tensor, "b c h w"], logits: Float[Tensor, "b m h w"], factor: int, *, border: Border = "zero"
) -> Float[Tensor, "b c hf wf"]:
    """RAFT's convex upsampling (Teed and Deng, ECCV 2020): `factor` times the size, float32.

    logits: `9 * factor**2` channels ordered (neighbour, sub-row, sub-column), softmax over neighbours.
    The values are not scaled: pass `factor * disparity` where their unit is the pixel.
    """
    batch, _, height, width = field.shape
    weights = logits.float().reshape(batch, 1, 9, factor**2, height, width).softmax(dim=2)
    fine = (weights * neighbourhood(field.float(), border).unsqueeze(3)).sum(dim=2)
    return F.pixel_shuffle(fine.flatten(1, 2), factor)


def superpixel_upsample(
    field: Float[Tensor, "b c h w"], weights: Float[Tensor, "b 9 hf wf"]
) -> Float[Tensor, "b c hf wf"]:
    """Superpixel-guided upsampling (CoEx, IROS 2021; the IGEV family), float32.

    weights: of the 9 neighbours, after the softmax, at the fine size: a whole multiple of the field's.
    Values are not scaled.
    """
    height, width = field.shape[-2:]
    rows, columns = weights.shape[-2] // height, weights.shape[-1] // width
    if (rows * height, columns * width) != tuple(weights.shape[-2:]):
        raise ValueError(
            f"superpixel weights must be a whole multiple of the field's size {height}x{width}: "
            f"they are {weights.shape[-2]}x{weights.shape[-1]}"
        )
    cells = weights.float().reshape(-1, 1, 9, height, rows, width, columns)
    coarse = neighbourhood(field.float())[:, :, :, :, None, :, None]
    return (cells * coarse).sum(dim=2).reshape(*field.shape[:2], *weights.shape[-2:])
