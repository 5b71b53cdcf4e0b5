"""Which pixels need several samples: where solids meet, where a surface bends, where something is thin."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stereopsis.synthesis.camera import View
from stereopsis.synthesis.truth import BAND, Sight
from stereopsis.synthesis.visibility import Solid, targets, trace

BEND = 0.12
THIN = 2.0

Mask = Bool[Tensor, "h w"]


def needs_samples(solids: Sequence[Solid], view: View, sight: Sight, *, samples: int) -> Mask:
    """Pixels whose colour one sample at the centre would not tell."""
    if samples == 1:
        return torch.zeros_like(sight.opaque.solid, dtype=torch.bool)
    border = _differs(sight.opaque.solid) | _differs(sight.clear.solid)
    bent = _bent(view.focal * torch.log(sight.opaque.depth))
    return _grown(border) | bent | _thin(solids, view, samples, border.device)


def _differs(solid: Int[Tensor, "h w"]) -> Mask:
    """Pixels with another solid beside or below, and these neighbours."""
    mask = torch.zeros_like(solid, dtype=torch.bool)
    across, down = solid[:, 1:] != solid[:, :-1], solid[1:] != solid[:-1]
    mask[:, 1:] |= across
    mask[:, :-1] |= across
    mask[1:] |= down
    mask[:-1] |= down
    return mask


def _bent(relief: Float[Tensor, "h w"]) -> Mask:
    """Where the slope (metres a metre) changes by more than BEND from one pixel to the next: creases."""
    mask = torch.zeros_like(relief, dtype=torch.bool)
    mask[:, 1:-1] |= relief.diff(n=2, dim=1).abs() > BEND
    mask[1:-1] |= relief.diff(n=2, dim=0).abs() > BEND
    return mask


def _grown(mask: Mask) -> Mask:
    return F.max_pool2d(mask[None].float(), (1, 3), 1, (0, 1))[0] > 0


def _thin(solids: Sequence[Solid], view: View, samples: int, device: torch.device) -> Mask:
    """Where a finer grid meets solids with parts thinner than THIN pixels, hidden or not."""
    height, width = view.size
    fine = View(
        size=(height * samples, width * samples),
        focal=view.focal * samples,
        cx=(view.cx + 0.5) * samples - 0.5,
        cy=(view.cy + 0.5) * samples - 0.5,
        origin=view.origin,
        rotation=view.rotation,
    )
    mask = torch.zeros((height, width), dtype=torch.bool, device=device)
    thin = [
        target
        for target in targets(solids, fine)
        if target.solid.scale * target.solid.shape.finest * view.focal < THIN * target.nearest
    ]
    step = max(1, BAND // fine.size[1]) * samples
    for top in range(0, fine.size[0] if thin else 0, step):
        rows = (top, min(fine.size[0], top + step))
        here = [t for t in thin if t.rows[0] < rows[1] and t.rows[1] > rows[0]]
        if here:
            hit = trace(here, fine, rows, dtype=torch.float32, device=device).solid >= 0
            pooled = F.max_pool2d(hit[None].float(), samples)[0] > 0
            mask[rows[0] // samples : rows[1] // samples] = pooled
    return mask
