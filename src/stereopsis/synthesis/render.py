"""A scene, a size, a pair: supersampled images, and truth at pixel centres by rays of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from stereopsis.imaging import apply_effects, quantise
from stereopsis.structures import SceneInfo, StereoPair, StereoSample, TensorRecord
from stereopsis.synthesis.camera import Side, View
from stereopsis.synthesis.scene import Scene
from stereopsis.synthesis.shading import Shader
from stereopsis.synthesis.truth import Truth, render_truth
from stereopsis.synthesis.visibility import Target, directions, targets, trace

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
    left, right = (render_truth(scene.solids, scene.rig, size, side, device=device) for side in SIDES)
    images = render_images(scene, size, supersampling=supersampling, device=device)
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


def render_images(
    scene: Scene, size: tuple[int, int], *, supersampling: int, device: torch.device
) -> list[Float[Tensor, "3 h w"]]:
    """Both views in display values, [0, 1], as ideal cameras see them."""
    shader = Shader.of(scene, device)
    fine = (size[0] * supersampling, size[1] * supersampling)
    images = []
    for side in SIDES:
        view = scene.rig.view(fine, side)
        seen = targets(scene.solids, view)
        step = supersampling * max(1, BAND // (fine[1] * supersampling))
        bands = []
        for top in range(0, fine[0], step):
            band = _band(shader, seen, view, (top, min(fine[0], top + step)))
            bands.append(torch.nn.functional.avg_pool2d(band[None], supersampling)[0])
        images.append(torch.cat(bands, dim=1))
    return images


def _band(
    shader: Shader, seen: Sequence[Target], view: View, rows: tuple[int, int]
) -> Float[Tensor, "3 h w"]:
    """Some rows of samples in display values; what is transparent is laid over what is behind it."""
    device = shader.table.device
    x, y = directions(view, rows, dtype=torch.float32, device=device)
    shape = (rows[1] - rows[0], view.size[1])
    x, y = x.expand(shape).reshape(-1), y.expand(shape).reshape(-1)
    opaque = [target for target in seen if not target.solid.transparent]
    depth, index = trace(opaque, view, rows, dtype=torch.float32, device=device)
    light, _ = shader.colours(seen, view, x, y, depth.view(-1), index.view(-1))
    clear = [target for target in seen if target.solid.transparent]
    if clear:
        front = trace(clear, view, rows, dtype=torch.float32, device=device)
        over = (front.depth < depth).view(-1).nonzero().squeeze(-1)
        if len(over):
            near = front.depth.view(-1)[over]
            shade, opacity = shader.colours(seen, view, x[over], y[over], near, front.solid.view(-1)[over])
            light[over] = torch.lerp(light[over], shade, opacity[:, None])
    # Display values are the root of light: a cheap stand-in for the usual gamma of 2.2.
    return light.clamp(0, 1).sqrt().T.reshape(3, *shape)
