"""Named distributions of scenes: each is one frozen set of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from stereopsis.imaging import EffectRanges

Range = tuple[float, float]
Weights = Mapping[str, float | int]


def _weights(**weights: float | int) -> Weights:
    return MappingProxyType(weights)


SHAPES = _weights(
    box=3, ellipsoid=2, cylinder=2, cone=1, capsule=1.2, rod=2.2, fence=0.8, polygon=1, gear=0.7, leaf=1,
    letter=0.8, rock=0.5, torus=0.5, blob=0.35, terrain=0.35, panel=1,
)  # fmt: skip
PATTERNS = _weights(
    noise=3, marble=1.2, leaves=3, bricks=1.3, weave=0.8, stripes=0.9, checks=0.5, motif=0.8, glyphs=1.2,
    cells=1.2, scratches=1, gradient=0.8, plain=1.1,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """What scenes are drawn from. Ranges are log-uniform where they hold sizes, uniform where counts.

    layouts: backgrounds and their weights; focal: widths; baseline: metres; nearest, farthest:
    disparity of the nearest object and of the background, as shares of the width; doffs_chance:
    how often principal points differ; objects: how many; shapes, patterns: kinds and their weights;
    apparent: an object's radius as it appears, as a share of the width; floating: share of objects in
    the air; stacked: share of the others that lie on an object; texel: pixels that a texel covers;
    tiles: different textures in a scene; glossy, mirrors, transparent: shares of objects; lamps: lights
    that cast shadows; tilt: radians that the camera nods; tint: times every colour; headlamp: the only light
    is at the camera; effects: what cameras do, strengths and chances.
    """

    name: str
    layouts: Weights
    focal: Range = (0.6, 1.9)
    baseline: Range = (0.04, 0.4)
    nearest: Range = (0.06, 0.3)
    farthest: Range = (0.003, 0.1)
    doffs_chance: float = 0.15
    objects: tuple[int, int] = (5, 55)
    shapes: Weights = field(default_factory=lambda: SHAPES)
    patterns: Weights = field(default_factory=lambda: PATTERNS)
    apparent: Range = (0.02, 0.16)
    floating: float = 0.55
    stacked: float = 0.3
    texel: Range = (0.5, 6.0)
    tiles: tuple[int, int] = (6, 10)
    glossy: float = 0.3
    mirrors: float = 0.03
    transparent: float = 0.03
    lamps: tuple[int, int] = (1, 2)
    tilt: float = 0.2
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    headlamp: bool = False
    effects: EffectRanges = field(default_factory=EffectRanges)


GENERAL = Distribution(
    name="general",
    layouts=_weights(room=2, ground=2, corridor=1.2, shelves=1.2, planes=2.2, terrain=0.8, tunnel=0.6),
)

SANITY = Distribution(
    name="sanity",
    layouts=_weights(planes=1),
    objects=(2, 8),
    shapes=_weights(panel=1),
    patterns=_weights(noise=2, leaves=2, glyphs=1, cells=1),
    apparent=(0.08, 0.2),
    floating=1.0,
    texel=(1.0, 4.0),
    glossy=0.0,
    mirrors=0.0,
    transparent=0.0,
    lamps=(0, 0),
    doffs_chance=0.0,
    effects=EffectRanges.none(),
)

INDOOR = Distribution(
    name="indoor",
    layouts=_weights(room=4, corridor=2, shelves=2.5),
    focal=(0.6, 1.4),
    baseline=(0.05, 0.25),
    nearest=(0.06, 0.25),
    farthest=(0.008, 0.06),
    objects=(10, 45),
    shapes=_weights(
        box=6,
        cylinder=3,
        ellipsoid=1,
        cone=0.8,
        capsule=0.6,
        rod=2,
        polygon=0.5,
        leaf=1.2,
        letter=0.5,
        rock=0.3,
        torus=0.4,
        panel=2,
    ),
    patterns=_weights(
        noise=2,
        marble=1.5,
        leaves=1,
        bricks=1,
        weave=1.2,
        stripes=1,
        checks=0.5,
        motif=0.8,
        glyphs=1.5,
        scratches=1,
        gradient=1.5,
        plain=3,
    ),
    floating=0.25,
    stacked=0.45,
    mirrors=0.05,
    transparent=0.05,
)

DRIVING = Distribution(
    name="driving",
    layouts=_weights(street=4, ground=1),
    focal=(0.55, 1.1),
    baseline=(0.2, 0.6),
    nearest=(0.04, 0.2),
    farthest=(0.001, 0.006),
    objects=(8, 35),
    shapes=_weights(box=6, rod=3, cylinder=1, leaf=1.5, panel=1.5, ellipsoid=1, rock=0.5, fence=1, cone=0.7),
    patterns=_weights(
        noise=3, leaves=3, bricks=2, stripes=1, glyphs=0.7, cells=1, scratches=1.5, gradient=1, plain=2
    ),
    apparent=(0.015, 0.12),
    floating=0.08,
    stacked=0.1,
    tilt=0.03,
    transparent=0.01,
)

CLOSE_RANGE = Distribution(
    name="close-range",
    layouts=_weights(planes=3, ground=1, shelves=1.5, room=1),
    focal=(0.9, 2.2),
    baseline=(0.01, 0.08),
    nearest=(0.18, 0.3),
    farthest=(0.05, 0.14),
    objects=(5, 35),
    apparent=(0.04, 0.22),
    floating=0.4,
    stacked=0.4,
    texel=(0.6, 8.0),
)

ENDOSCOPY = Distribution(
    name="endoscopy-like",
    layouts=_weights(tunnel=2, tissue=3),
    focal=(0.7, 1.4),
    baseline=(0.003, 0.006),
    nearest=(0.06, 0.22),
    farthest=(0.01, 0.06),
    objects=(2, 9),
    shapes=_weights(blob=3, rock=3, torus=1, ellipsoid=1, capsule=1, rod=1.5),
    patterns=_weights(noise=2, marble=1, gradient=4, plain=3, scratches=1.5),
    apparent=(0.04, 0.2),
    texel=(2.0, 10.0),
    glossy=0.95,
    mirrors=0.02,
    transparent=0.03,
    tint=(1.0, 0.5, 0.42),
    headlamp=True,
)

LOW_TEXTURE = Distribution(
    name="low-texture",
    layouts=GENERAL.layouts,
    objects=(4, 22),
    shapes=_weights(
        box=6, panel=3, cylinder=2, ellipsoid=1.5, cone=1, rod=1.5, polygon=1, torus=0.5, letter=0.5
    ),
    patterns=_weights(
        plain=6, gradient=3, noise=1, marble=0.5, stripes=0.5, scratches=0.8, glyphs=0.6, bricks=0.3
    ),
    apparent=(0.05, 0.32),
    texel=(1.0, 8.0),
    glossy=0.4,
)

DISTRIBUTIONS: Mapping[str, Distribution] = MappingProxyType(
    {d.name: d for d in (GENERAL, INDOOR, DRIVING, CLOSE_RANGE, LOW_TEXTURE, ENDOSCOPY, SANITY)}
)


def distribution(name: str) -> Distribution:
    """The distribution of that name; ValueError lists the names there are."""
    if name not in DISTRIBUTIONS:
        raise ValueError(f"there is no distribution {name!r}: choose one of {', '.join(DISTRIBUTIONS)}")
    return DISTRIBUTIONS[name]
