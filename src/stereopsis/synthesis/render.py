"""Scenes, a size, pairs: supersampled images, and truth at pixel centres by rays of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from stereopsis.imaging import apply_effects, quantise
from stereopsis.structures import SceneInfo, StereoPair, StereoSample, TensorRecord
from stereopsis.synthesis.sampling import needs_samples
from stereopsis.synthesis.scene import Scene
from stereopsis.synthesis.shading import Shader
from stereopsis.synthesis.truth import Sight, Stage, Truth, look, render_truths
from stereopsis.synthesis.visibility import Grid, Hits, Layout, Runs, hits, nearest, trace

DATASET = "synthetic"


@dataclass(frozen=True)
class Rendering(TensorRecord):
    """A pair with everything that is known of it.

    sample: at the size of the images; left, right: the truth of either view, at that size or the one
    asked for (a multiple, say, to train at continuous resolution).
    """

    sample: StereoSample
    left: Truth
    right: Truth


def render(
    scene: Scene,
    size: tuple[int, int],
    *,
    truth_size: tuple[int, int] | None = None,
    supersampling: int = 2,
    effects: bool = True,
    device: torch.device | str = "cpu",
) -> Rendering:
    """The scene's pair at `size` (height, width).

    truth_size: also the truth at this size, of the same shape, instead of the images'; supersampling:
    rays across a pixel; effects: what the scene's cameras do to the light, and steps of 1/255; without,
    images are exact and smooth.
    """
    options = {"truth_size": truth_size, "supersampling": supersampling, "effects": effects}
    return render_batch([scene], size, device=device, **options)[0]


def render_batch(
    scenes: Sequence[Scene],
    size: tuple[int, int],
    *,
    truth_size: tuple[int, int] | None = None,
    supersampling: int = 2,
    effects: bool = True,
    device: torch.device | str = "cpu",
) -> list[Rendering]:
    """Many scenes' pairs, all of them in one pass: what `render` gives of each."""
    device = torch.device(device)
    rigs, solids = tuple(scene.rig for scene in scenes), tuple(scene.solids for scene in scenes)
    stage = Stage(rigs, solids, size, device)
    sight = look(stage)
    truth = fine = render_truths(stage, sight)
    if truth_size is not None and truth_size != size:
        large = Stage(rigs, solids, truth_size, device)
        fine = render_truths(large, look(large))
    images = render_images(Shader.of(stage, scenes), sight, samples=supersampling)
    result = []
    for number, scene in enumerate(scenes):
        views = list(images[2 * number : 2 * number + 2])
        if effects:
            views = [quantise(apply_effects(i, e)) for i, e in zip(views, scene.effects, strict=True)]
        left, right, fine_left, fine_right = (
            of.map(lambda values, view=view: values[view])
            for of in (truth, fine)
            for view in (2 * number, 2 * number + 1)
        )
        sample = StereoSample(
            pair=StereoPair(views[0], views[1]),
            disparity=left.disparity,
            valid=left.valid,
            occluded=left.occluded,
            disparity_right=torch.where(right.valid, right.disparity, math.inf),
            info=(SceneInfo(scene.name, DATASET, scene.rig.calibration(size)),),
        )
        result.append(Rendering(sample, fine_left, fine_right))
    return result


def render_images(shader: Shader, sight: Sight, *, samples: int) -> Float[Tensor, "v 3 h w"]:
    """All views in display values, [0, 1], as ideal cameras see them, in bands of rows.

    Pixels whose neighbourhood is one smooth surface get one sample, whose texture is filtered over the
    pixel; all others the mean of `samples` x `samples`.
    """
    rough = needs_samples(shader.stage, sight, samples=samples)
    bands = []
    for grid in shader.stage.bands():
        rows = slice(grid.top, grid.bottom)
        band = Sight(*(Hits(layer.depth[:, rows], layer.solid[:, rows]) for layer in sight))
        light = _band(shader, grid, band, rough[:, rows], samples)
        # Display values are the root of light: a cheap stand-in for the usual gamma of 2.2.
        bands.append(light.clamp(0, 1).sqrt().view(3, *rough[:, rows].shape))
    return torch.cat(bands, dim=2).movedim(0, 1)


def _band(
    shader: Shader, grid: Grid, sight: Sight, rough: Bool[Tensor, "v h w"], samples: int
) -> Float[Tensor, "3 n"]:
    """The light of some rows: smooth pixels by their centres, rough ones by rays of their own."""
    smooth = (~rough).view(-1).nonzero().squeeze(-1)
    centres = _centres(shader, grid, sight, smooth)
    pixel, fine = _fine(shader, grid, rough, samples)
    rays = Rays(*(torch.cat(parts) for parts in zip(centres, fine, strict=True)))
    colours = _blended(shader, rays, samples)
    light = torch.empty((3, rough.numel()), device=rough.device)
    light.index_copy_(1, smooth, colours[:, : len(smooth)])
    means = colours[:, len(smooth) :].clamp(0, 1).view(3, len(pixel), samples * samples).mean(2)
    return light.index_copy_(1, pixel, means)


class Rays(NamedTuple):
    """Directions (x, y, 1), and what is met first in either layer: depth, and the shader's group."""

    x: Float[Tensor, " n"]
    y: Float[Tensor, " n"]
    depth: Float[Tensor, " n"]
    group: Int64[Tensor, " n"]
    clear_depth: Float[Tensor, " n"]
    clear_group: Int64[Tensor, " n"]

    @classmethod
    def of(cls, shader: Shader, view: Tensor, x: Tensor, y: Tensor, sight: Sight, *, fine: bool) -> Rays:
        """Through image points of views."""
        lens = [(v.cx, v.cy, 1 / v.focal) for v in shader.stage.views]
        cx, cy, pixel = torch.tensor(lens, dtype=torch.float64, device=x.device).T.index_select(1, view)
        layers = [(hit.depth.float(), 2 * shader.surface(view, hit.solid) + fine) for hit in sight]
        return cls(((x - cx) * pixel).float(), ((y - cy) * pixel).float(), *layers[0], *layers[1])


def _centres(shader: Shader, grid: Grid, sight: Sight, pixel: Int64[Tensor, " n"]) -> Rays:
    """The rays through pixel centres, by what is known of them."""
    view, y, x = _unravelled(pixel, grid)
    known = Sight(*(Hits(h.depth.reshape(-1)[pixel], h.solid.reshape(-1)[pixel]) for h in sight))
    return Rays.of(shader, view, x, y, known, fine=False)


def _fine(
    shader: Shader, grid: Grid, rough: Bool[Tensor, "v h w"], samples: int
) -> tuple[Int64[Tensor, " n"], Rays]:
    """Rough pixels in the order of their tiles, so that a run holds neighbours, and their own rays."""
    stage, device = shader.stage, rough.device
    index = torch.arange(rough.numel(), device=device).view(rough.shape)
    tiles = grid.runs(rough) & grid.inside(device)
    pixel = grid.runs(index)[tiles]
    view, row, column = _unravelled(pixel, grid)
    offset = (torch.arange(samples, dtype=torch.float64, device=device) + 0.5) / samples - 0.5
    y = (row[:, None, None] + offset[:, None]).expand(-1, samples, samples).reshape(-1)
    x = (column[:, None, None] + offset).expand(-1, samples, samples).reshape(-1)
    layout = Layout.of(tiles.view(grid.views, -1).sum(1).cpu().numpy() * samples**2, device)
    group = torch.from_numpy(layout.group).to(device)
    runs = Runs.of(stage.views, group, x[layout.member], y[layout.member], dtype=torch.float32)
    keys = nearest(trace(stage.seen, runs)).view(2, -1).index_select(1, layout.place)
    sight = Sight(hits(keys[0]), hits(keys[1]))
    return pixel, Rays.of(shader, view.repeat_interleave(samples**2), x, y, sight, fine=True)


def _unravelled(pixel: Int64[Tensor, " n"], grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
    """View, row and column of pixels of a band."""
    width = grid.size[1]
    row, rows = pixel // width, grid.bottom - grid.top
    return row // rows, row % rows + grid.top, pixel % width


def _blended(shader: Shader, rays: Rays, samples: int) -> Float[Tensor, "3 n"]:
    """The light of rays; what is transparent is laid over what is behind it."""
    count = len(rays.x)
    over = (rays.clear_depth < math.inf).nonzero().squeeze(-1)
    x, y = (torch.cat((c, c[over])) for c in rays[:2])
    depth = torch.cat((rays.depth, rays.clear_depth[over]))
    group = torch.cat((rays.group, rays.clear_group[over]))
    light, opacity = shader.colours(x, y, depth, group, samples=samples)
    light, shade = light[:, :count], light[:, count:]
    light[:, over] = torch.lerp(light[:, over], shade, opacity[count:])
    return light
