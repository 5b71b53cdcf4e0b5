"""Which pixels need several samples: where solids meet, where a surface bends, where something is thin."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stereopsis.synthesis.camera import View
from stereopsis.synthesis.truth import Sight, Stage
from stereopsis.synthesis.visibility import ENDLESS, Runs, Targets, targets, trace

BEND = 0.12
THIN = 2.0

Mask = Bool[Tensor, "v h w"]


def needs_samples(stage: Stage, sight: Sight, *, samples: int) -> Mask:
    """Pixels whose colour one sample at the centre would not tell."""
    if samples == 1:
        return torch.zeros_like(sight.opaque.solid, dtype=torch.bool)
    border = _differs(sight.opaque.solid) | _differs(sight.clear.solid)
    focal = stage.column([view.focal for view in stage.views[::2]])
    bent = _bent(focal * torch.log(sight.opaque.depth))
    return _grown(border) | bent | _thin(stage, samples)


def _differs(solid: Int[Tensor, "v h w"]) -> Mask:
    """Pixels with another solid beside or below, and these neighbours."""
    mask = torch.zeros_like(solid, dtype=torch.bool)
    across, down = solid[..., 1:] != solid[..., :-1], solid[:, 1:] != solid[:, :-1]
    mask[..., 1:] |= across
    mask[..., :-1] |= across
    mask[:, 1:] |= down
    mask[:, :-1] |= down
    return mask


def _bent(relief: Float[Tensor, "v h w"]) -> Mask:
    """Where the slope (metres a metre) changes by more than BEND from one pixel to the next: creases."""
    mask = torch.zeros_like(relief, dtype=torch.bool)
    mask[..., 1:-1] |= relief.diff(n=2, dim=2).abs() > BEND
    mask[:, 1:-1] |= relief.diff(n=2, dim=1).abs() > BEND
    return mask


def _grown(mask: Mask) -> Mask:
    """With the pixels to the left and right."""
    grown = mask.clone()
    grown[..., 1:] |= mask[..., :-1]
    grown[..., :-1] |= mask[..., 1:]
    return grown


def _thin(stage: Stage, samples: int) -> Mask:
    """Where a finer grid meets solids with parts thinner than THIN pixels, hidden or not."""
    views = [_finer(view, samples) for view in stage.views]
    thin = [
        target
        for number, (view, fine) in enumerate(zip(stage.views, views, strict=True))
        for target in targets(stage.solids[number // 2], fine, number=number)
        if target.solid.scale * target.solid.shape.finest * view.focal < THIN * target.nearest
    ]
    mask = torch.zeros((len(views), *stage.size), dtype=torch.bool, device=stage.device)
    if not thin:
        return mask
    seen = Targets.of(thin, views, stage.device)
    for grid in stage.bands(samples=samples):
        runs = Runs.tiles(views, grid, dtype=torch.float32, device=stage.device)
        hit = grid.image(trace(seen, runs, layers=1)[0]) < ENDLESS
        rows = slice(grid.top // samples, grid.bottom // samples)
        mask[:, rows] = F.max_pool2d(hit.float(), samples) > 0
    return mask


def _finer(view: View, samples: int) -> View:
    """The view with `samples` rays across a pixel."""
    return dataclasses.replace(
        view,
        size=(view.size[0] * samples, view.size[1] * samples),
        focal=view.focal * samples,
        cx=(view.cx + 0.5) * samples - 0.5,
        cy=(view.cy + 0.5) * samples - 0.5,
    )
