"""(distribution, seed, index, size) -> scene: every number of a scene comes from one generator on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stereopsis.imaging import draw_effects
from stereopsis.synthesis.composer import Composer
from stereopsis.synthesis.distributions import Distribution
from stereopsis.synthesis.layouts import LAYOUTS
from stereopsis.synthesis.objects import choose
from stereopsis.synthesis.scene import Colour, Light, Scene, Sky


def draw_scene(
    distribution: Distribution,
    *,
    seed: int,
    index: int,
    size: tuple[int, int],
    photographs: tuple[Path, ...] = (),
) -> Scene:
    """The scene of this index: the same for the same arguments, wherever and in whatever order it is drawn.

    size: (height, width) of the images; texture scales are chosen in its pixels, everything else in
    widths, so that a scene may be rendered at other sizes of the same shape. photographs: files that
    most textures are then cut from.
    """
    rng = np.random.default_rng((seed, index))
    composer = Composer(distribution, rng, size, photographs)
    layout = choose(rng, distribution.layouts)
    LAYOUTS[layout](composer)
    wanted = int(rng.integers(distribution.objects[0], distribution.objects[1] + 1))
    for _ in range(max(distribution.objects[0], wanted - len(composer.solids))):
        composer.place()
    lights, ambient = _light(composer)
    return Scene(
        name=f"{distribution.name}-{seed}-{index:06d}",
        rig=composer.rig,
        solids=tuple(composer.solids),
        materials=tuple(composer.materials),
        tiles=tuple(composer.tiles),
        lights=lights,
        ambient=ambient,
        sky=_sky(rng, len(composer.tiles)),
        effects=draw_effects(rng, distribution.effects, width=size[1]),
        layout=layout,
    )


def _light(composer: Composer) -> tuple[tuple[Light, ...], Colour]:
    """Lamps with shadows; two weak ones whose coarse maps stand in for ambient occlusion; the rest even."""
    rng, drawn = composer.rng, composer.distribution
    count = int(rng.integers(drawn.lamps[0], drawn.lamps[1] + 1))
    if count == 0:
        return (), (1.3, 1.3, 1.3)
    level = float(rng.uniform(0.7, 1.15))
    if drawn.headlamp:
        return (composer.headlamp(strength=2.2 * level, resolution=640),), (0.06, 0.06, 0.06)
    share = float(rng.uniform(0.35, 0.7))
    lamps = [
        composer.lamp(
            strength=level * share * 1.7 / count,
            resolution=512,
            softness=float(rng.uniform(0.01, 0.05)),
            glint=True,
        )
        for _ in range(count)
    ]
    lamps += [
        composer.lamp(strength=level * (1 - share) * 0.45, resolution=112, softness=0.15, glint=False)
        for _ in range(2)
    ]
    even = level * (1 - share) * 0.8
    tone = rng.normal(0, 0.05)
    return tuple(lamps), (even * (1 - tone), even, even * (1 + tone))


def _sky(rng: np.random.Generator, tiles: int) -> Sky:
    blue, white = rng.uniform(0.3, 1.0, 2)
    zenith = (0.35 * blue, 0.5 * blue, 0.9 * blue)
    tile, clouds = int(rng.integers(tiles)), float(rng.choice([0.0, rng.uniform(0, 0.7)]))
    return Sky(zenith=zenith, horizon=(white, white, white), tile=tile, clouds=clouds)
