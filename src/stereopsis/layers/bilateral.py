"""Bilateral grids (Chen et al., SIGGRAPH 2007; Xu et al., CVPR 2021): coarse values read at fine pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def slice_grid(
    grid: Float[Tensor, "b d g h w"], guide: Float[Tensor, "b 1 hf wf"]
) -> Float[Tensor, "b d hf wf"]:
    """Trilinear values of d grids of g bins at fine pixels, the bin told by the guide in [-1, 1].

    Pixels count from -1 (first) to 1 (last) over the fine image, and the grid's cells lie as in
    `grid_sample` without aligned corners: borders fade into the zeros around the grid, by half a cell at
    the corners. Published bilateral networks were trained so. float32.
    """
    grid, guide = grid.float(), guide.float()
    y = torch.linspace(-1, 1, guide.shape[-2], device=guide.device)
    x = torch.linspace(-1, 1, guide.shape[-1], device=guide.device)
    plane = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)
    places = torch.cat([plane.expand(guide.shape[0], -1, -1, -1), guide.movedim(1, -1)], -1)
    return F.grid_sample(grid, places.unsqueeze(1), padding_mode="zeros", align_corners=False).squeeze(2)
