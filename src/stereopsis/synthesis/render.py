"""A scene, a size, a pair: supersampled images, and truth at pixel centres by rays of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stereopsis.imaging import apply_effects, quantise
from stereopsis.structures import SceneInfo, StereoPair, StereoSample, TensorRecord
from stereopsis.synthesis.camera import Side, View
from stereopsis.synthesis.sampling import needs_samples
from stereopsis.synthesis.scene import Scene
from stereopsis.synthesis.shading import Shader
from stereopsis.synthesis.truth import Sight, Truth, look, render_truth
from stereopsis.synthesis.visibility import NOTHING, Hits, Target, targets, trace_points

DATASET = "synthetic"
BAND = 1 << 17


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
    device = torch.device(device)
    sights = [look(scene.solids, scene.rig.view(size, side), device=device) for side in SIDES]
    left, right = (
        render_truth(scene.solids, scene.rig, size, side, device=device, sight=sight)
        for side, sight in zip(SIDES, sights, strict=True)
    )
    shader = Shader.of(scene, device)
    images = [
        render_image(shader, scene.rig.view(size, side), sight, samples=supersampling)
        for side, sight in zip(SIDES, sights, strict=True)
    ]
    if effects:
        images = [quantise(apply_effects(i, e)) for i, e in zip(images, scene.effects, strict=True)]
    sample = StereoSample(
        pair=StereoPair(images[0], images[1]),
        disparity=left.disparity,
        valid=left.valid,
        occluded=left.occluded,
        disparity_right=right.disparity,
        info=(SceneInfo(scene.name, DATASET, scene.rig.calibration(size)),),
    )
    if truth_size is not None and truth_size != size:
        left, right = (
            render_truth(scene.solids, scene.rig, truth_size, side, device=device) for side in SIDES
        )
    return Rendering(sample, left, right)


SIDES: tuple[Side, Side] = ("left", "right")


def render_image(shader: Shader, view: View, sight: Sight, *, samples: int) -> Float[Tensor, "3 h w"]:
    """A view in display values, [0, 1], as an ideal camera sees it, in bands of rows.

    Pixels whose neighbourhood is one smooth surface get one sample, whose texture is filtered over the
    pixel; all others the mean of `samples` x `samples`.
    """
    height, width = view.size
    seen = targets(shader.scene.solids, view)
    rough = needs_samples(shader.scene.solids, view, sight, samples=samples)
    step = max(1, BAND // width)
    bands = []
    for top in range(0, height, step):
        rows = slice(top, min(height, top + step))
        band = Sight(*(Hits(layer.depth[rows], layer.solid[rows]) for layer in sight))
        light = _band(shader, seen, view, top, band, rough[rows], samples)
        # Display values are the root of light: a cheap stand-in for the usual gamma of 2.2.
        bands.append(light.clamp(0, 1).sqrt().T.reshape(3, -1, width))
    return torch.cat(bands, dim=1)


def _band(
    shader: Shader,
    seen: Sequence[Target],
    view: View,
    top: int,
    sight: Sight,
    rough: Bool[Tensor, "h w"],
    samples: int,
) -> Float[Tensor, "n 3"]:
    """The light of some rows: smooth pixels by their centres, rough ones by rays of their own."""
    light = torch.empty((rough.numel(), 3), device=rough.device)
    smooth = (~rough).view(-1).nonzero().squeeze(-1)
    layers = Sight(*(Hits(h.depth.view(-1)[smooth], h.solid.view(-1)[smooth]) for h in sight))
    y, x = smooth // view.size[1] + top, smooth % view.size[1]
    light[smooth] = _light(shader, seen, view, x.double(), y.double(), layers, 1 / view.focal)
    row, column = rough.nonzero(as_tuple=True)
    if len(row) == 0:
        return light
    offset = (torch.arange(samples, dtype=torch.float64, device=rough.device) + 0.5) / samples - 0.5
    y = ((row + top)[:, None, None] + offset[:, None]).expand(-1, samples, samples).reshape(-1)
    x = (column[:, None, None] + offset).expand(-1, samples, samples).reshape(-1)
    opaque = trace_points([t for t in seen if not t.solid.transparent], view, x.float(), y.float())
    clear = trace_points([t for t in seen if t.solid.transparent], view, x.float(), y.float())
    hidden = clear.depth >= opaque.depth
    clear = Hits(clear.depth, clear.solid.masked_fill(hidden, NOTHING))
    fine = _light(shader, seen, view, x, y, Sight(opaque, clear), 1 / (view.focal * samples))
    light[row * view.size[1] + column] = fine.clamp(0, 1).view(len(row), -1, 3).mean(1)
    return light


def _light(
    shader: Shader,
    seen: Sequence[Target],
    view: View,
    x: Float[Tensor, " n"],
    y: Float[Tensor, " n"],
    sight: Sight,
    angle: float,
) -> Float[Tensor, "n 3"]:
    """The light through image points; what is transparent is laid over what is behind it."""
    dx, dy = ((x - view.cx) / view.focal).float(), ((y - view.cy) / view.focal).float()
    angles = torch.full_like(dx, angle)
    opaque, clear = sight
    light, _ = shader.colours(seen, view, dx, dy, angles, opaque.depth.float(), opaque.solid)
    over = (clear.solid != NOTHING).nonzero().squeeze(-1)
    if len(over):
        near = clear.depth[over].float(), clear.solid[over]
        shade, opacity = shader.colours(seen, view, dx[over], dy[over], angles[over], *near)
        light[over] = torch.lerp(light[over], shade, opacity[:, None])
    return light
