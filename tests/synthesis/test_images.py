"""Images agree with their truth, and everything that scenes may hold occurs."""

from __future__ import annotations

import collections
import dataclasses

import pytest
import torch

from stereopsis.geometry import warp
from stereopsis.synthesis import DISTRIBUTIONS, SyntheticStream, render
from stereopsis.synthesis.camera import Rig, looking
from stereopsis.synthesis.objects import MAKERS
from stereopsis.synthesis.patterns import PATTERNS
from stereopsis.synthesis.scene import Light, Material, Scene, Tile
from stereopsis.synthesis.shapes import Ellipsoid, Plane
from stereopsis.synthesis.texture import Atlas
from stereopsis.synthesis.visibility import Pose, Solid

SIZE = (96, 128)
RIG = Rig(focal=1.0, baseline=0.1)


def scene(*, pitch: float = 200.0, lights: tuple[Light, ...] = (), **material: float) -> Scene:
    """A slanted wall and a ball with smooth textures, waves of some 20 pixels."""
    turn = torch.linalg.qr(torch.tensor([[1.0, 0.1, 0.3], [0.0, 1.0, 0.2], [-0.3, -0.2, 1.0]]))[0].numpy()
    return Scene(
        name="ball before a wall",
        rig=RIG,
        solids=(
            Solid(Plane(), Pose.of((0, 0, 1.6), (1, 1, 1), turn)),
            Solid(Ellipsoid(), Pose.of((0.1, 0.05, 1.1), (0.2, 0.15, 0.2)), material=1),
        ),
        materials=(Material(tile=0, pitch=pitch), Material(tile=1, pitch=pitch, **material)),
        tiles=(Tile(pattern="gradient", seed=3), Tile(pattern="gradient", seed=5)),
        lights=lights,
    )


def lamp(*, softness: float = 0.01, **options: bool) -> Light:
    view = looking(origin=(-0.8, -0.8, -0.2), target=(0.0, 0.0, 1.2), size=(256, 256), focal=200.0)
    return Light(view=view, colour=(0.6, 0.6, 0.6), softness=softness, **options)


def warped_error(rendering) -> torch.Tensor:
    """The absolute difference of the left image and the right one warped by the truth, where visible."""
    sample = rendering.sample
    warped, _ = warp(sample.pair.right, sample.disparity)
    # Pixels on or beside an edge mix two surfaces, differently in the two views.
    beside = torch.nn.functional.max_pool2d(rendering.left.edges[None].float(), 5, 1, 2)[0] > 0
    occluded = torch.nn.functional.max_pool2d(rendering.left.occluded[None].float(), 5, 1, 2)[0] > 0
    seen = sample.valid & ~occluded & ~beside
    assert seen.float().mean() > 0.4
    return (warped - sample.pair.left).abs().mean(0)[seen]


def test_warping_right_to_left_by_the_truth_gives_the_left_image():
    rendering = render(scene(), SIZE, effects=False)
    assert rendering.sample.pair.left.std() > 0.02
    assert warped_error(rendering).mean() < 0.1 / 255
    shifted = dataclasses.replace(rendering.sample, disparity=rendering.sample.disparity + 1)
    assert warped_error(dataclasses.replace(rendering, sample=shifted)).mean() > 1 / 255


def test_highlights_move_with_the_camera_and_shadows_do_not():
    matt = warped_error(render(scene(lights=(lamp(glint=False),)), SIZE, effects=False)).mean()
    glossy = scene(lights=(lamp(glint=True),), gloss=0.9, exponent=200.0)
    assert matt < 1 / 255
    assert warped_error(render(glossy, SIZE, effects=False)).mean() > matt + 1e-4


def test_a_shadow_falls_on_the_wall_behind_the_ball():
    lit = render(scene(lights=(lamp(),)), SIZE, effects=False).sample.pair.left
    alone = dataclasses.replace(scene(lights=(lamp(),)), solids=scene().solids[:1])
    bare = render(alone, SIZE, effects=False)
    ball = render(scene(), SIZE, effects=False).left.objects == 1
    darker = (bare.sample.pair.left - lit).mean(0)[~ball]
    assert 0.02 < (darker > 0.05).float().mean() < 0.4
    assert (darker < -0.02).float().mean() < 0.01


def test_what_is_behind_glass_shines_through_and_truth_is_the_glass():
    wall, ball = scene().solids
    clear = dataclasses.replace(
        scene(opacity=0.5), solids=(wall, dataclasses.replace(ball, transparent=True))
    )
    solid, glass = (render(s, SIZE, effects=False) for s in (scene(opacity=0.5), clear))
    alone = render(dataclasses.replace(scene(), solids=(wall,)), SIZE, effects=False)
    assert torch.equal(solid.left.disparity, glass.left.disparity)
    inside = (-torch.nn.functional.max_pool2d(-(glass.left.objects == 1).float()[None], 5, 1, 2)[0]) > 0
    expected = (solid.sample.pair.left**2 + alone.sample.pair.left**2) / 2
    assert (glass.sample.pair.left**2 - expected)[:, inside].abs().mean() < 1e-3


def test_supersampling_smooths_edges_towards_the_mean_of_many_rays():
    coarse, usual, fine = (
        render(scene(), SIZE, supersampling=n, effects=False).sample.pair.left ** 2 for n in (1, 2, 8)
    )
    assert (usual - fine).abs().mean() < 0.6 * (coarse - fine).abs().mean()


def test_a_footprint_averages_a_tile():
    tiles = [Tile(pattern="checks", seed=1).draw()]
    atlas = Atlas.of(tiles, torch.device("cpu"))
    u = torch.linspace(-700, 700, 50)
    tile = torch.zeros(50, dtype=torch.int32)
    mean = torch.from_numpy(tiles[0]).square().mean((0, 1))
    wide = atlas.sample(tile, u, u * 0.3, torch.full_like(u, 256.0))
    assert torch.allclose(wide, mean.expand_as(wide), atol=2e-3)
    sharp = atlas.sample(tile, u, u * 0.3, torch.full_like(u, 0.01))
    assert sharp.std() > 0.01
    again = atlas.sample(tile, u + 256, u * 0.3 - 512, torch.full_like(u, 0.01))
    assert torch.allclose(sharp, again, atol=1e-3)


@pytest.mark.parametrize("pattern", sorted(PATTERNS))
def test_tiles_wrap_without_a_seam(pattern):
    """Across the border neighbours differ no more than inside (letters may be cut)."""
    for seed in range(2):
        tile = Tile(pattern=pattern, seed=seed).draw()
        assert tile.shape == (256, 256, 3)
        assert tile.min() >= 0
        assert tile.max() <= 1
        if pattern not in ("glyphs", "motif"):
            across = abs(tile[:, 0] - tile[:, -1]).mean()
            inside = abs(tile[:, 1:] - tile[:, :-1]).mean((0, 2))
            assert across <= inside.max() + 0.02


def test_everything_occurs_in_a_twentieth_of_the_general_pairs():
    stream = SyntheticStream(0, "general")
    count = 150
    seen: collections.Counter[str] = collections.Counter()
    for index in range(count):
        drawn = stream.scene(index)
        found = {solid.shape.name for solid in drawn.solids} | {tile.pattern for tile in drawn.tiles}
        found |= {"glossy" for m in drawn.materials if m.gloss}
        found |= {"mirror" for m in drawn.materials if m.mirror}
        found |= {"clear" for m in drawn.materials if m.opacity < 1}
        found |= {name for effects in drawn.effects for name in effects.names} | {drawn.layout}
        found |= {"doffs"} if drawn.rig.doffs else set()
        seen.update(found)
    effects = {"shift", "rotation", "vignetting", "blur", "defocus", "motion", "exposure", "white_balance"}
    effects |= {"shot", "read", "gamma", "saturation", "gray", "jpeg"}
    layouts = set(DISTRIBUTIONS["general"].layouts)
    wanted = set(MAKERS) | set(PATTERNS) | effects | layouts | {"glossy", "mirror", "clear", "doffs"}
    assert {name: seen[name] for name in sorted(wanted) if seen[name] < 0.05 * count} == {}


def test_no_scene_is_nearer_than_its_distribution_allows():
    stream = SyntheticStream(3, "close-range", size=(24, 32))
    largest = [float(stream.rendering(index).left.disparity.max()) / 32 for index in range(4)]
    assert 0.1 < max(largest) < 0.45


def test_neither_view_knows_what_lies_beyond_the_zero_of_doffs() -> None:
    beyond = dataclasses.replace(scene(), rig=dataclasses.replace(RIG, doffs=0.075))
    sample = render(beyond, SIZE, effects=False).sample
    assert sample.disparity_right is not None
    for known in (sample.valid, sample.disparity_right.isfinite()):
        assert 0.1 < float(known.float().mean()) < 0.9
