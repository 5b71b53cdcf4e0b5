"""Drawing the objects of a scene: shapes about 1 in size in their own frame, and how they are turned."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from stereopsis.synthesis.prism import (
    LETTERS,
    Lattice,
    Prism,
    gear_outline,
    leaf_outline,
    letter_outline,
    ring_outline,
    star_outline,
)
from stereopsis.synthesis.relief import Relief, Waves
from stereopsis.synthesis.shapes import Box, Capsule, Cone, Ellipsoid, Plane, Shape

Rng = np.random.Generator


def choose(rng: Rng, weights: Mapping[str, float | int]) -> str:
    """One of the keys, by weight."""
    shares = np.fromiter(weights.values(), float)
    return list(weights)[int(rng.choice(len(shares), p=shares / shares.sum()))]


def spread(rng: Rng, low: float | int, high: float | int) -> float:
    """Log-uniform between low and high."""
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))


def turned(rng: Rng) -> np.ndarray:
    """A rotation [3 3], all alike."""
    w, x, y, z = (q := rng.normal(size=4)) / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def about(axis: int, angle: float) -> np.ndarray:
    """The rotation [3 3] by `angle` radians about x (0), y (1) or z (2)."""
    c, s = math.cos(angle), math.sin(angle)
    matrix = np.eye(3)
    a, b = ((1, 2), (2, 0), (0, 1))[axis]
    matrix[a, a] = matrix[b, b] = c
    matrix[a, b], matrix[b, a] = -s, s
    return matrix


# Turns a shape's z axis upwards, so that what has an axis stands.
STANDING = about(0, math.pi / 2)


def _box(rng: Rng) -> Shape:
    x, y, z = np.exp(rng.uniform(math.log(0.15), 0, 3))
    return Box((float(x), float(y), float(z)))


def _holes(rng: Rng, chance: float) -> tuple:
    if rng.random() > chance:
        return ()
    return (ring_outline(float(rng.uniform(0.1, 0.25)), int(rng.integers(3, 9))),)


def _polygon(rng: Rng) -> Shape:
    outline = star_outline(rng, int(rng.integers(4, 11)))
    return Prism((outline, *_holes(rng, 0.5)), spread(rng, 0.01, 0.5))


def _gear(rng: Rng) -> Shape:
    outline = gear_outline(rng, int(rng.integers(5, 10)))
    return Prism((outline, *_holes(rng, 0.7)), spread(rng, 0.03, 0.3), what="gear")


def _leaf(rng: Rng) -> Shape:
    return Prism((leaf_outline(rng),), spread(rng, 0.004, 0.02), what="leaf")


def _letter(rng: Rng) -> Shape:
    return Prism(letter_outline(str(rng.choice(list(LETTERS)))), spread(rng, 0.05, 0.5), what="letter")


def _fence(rng: Rng) -> Shape:
    cells = spread(rng, 3, 14)
    return Lattice(
        cells,
        cells * spread(rng, 0.3, 2),
        float(rng.uniform(0.08, 0.35)),
        slant=float(rng.choice([0.0, 1.0], p=[0.7, 0.3])),
    )


def _waves(rng: Rng, *, flat: bool, slope: tuple[float, float], frequency: tuple[float, float]) -> Waves:
    return Waves.draw(
        rng, count=int(rng.integers(3, 6)), slope=float(rng.uniform(*slope)), frequency=frequency, flat=flat
    )


def _terrain(rng: Rng) -> Shape:
    waves = _waves(rng, flat=True, slope=(0.3, 0.8), frequency=(3.0, 10.0))
    return Relief("terrain", waves, float(rng.uniform(0.5, 1)))


def _rock(rng: Rng) -> Shape:
    return Relief("ball", _waves(rng, flat=False, slope=(0.2, 0.7), frequency=(2.0, 10.0)))


def _torus(rng: Rng) -> Shape:
    smooth = rng.random() < 0.6
    waves = Waves() if smooth else _waves(rng, flat=False, slope=(0.1, 0.4), frequency=(3.0, 8.0))
    return Relief("torus", waves, float(rng.uniform(0.08, 0.45)))


def _blob(rng: Rng) -> Shape:
    return Relief("blob", _waves(rng, flat=False, slope=(0.0, 0.3), frequency=(2.0, 6.0)))


def _panel(rng: Rng) -> Shape:
    return Plane((1.0, float(rng.uniform(0.4, 1.0))))


MAKERS: Mapping[str, Callable[[Rng], Shape]] = {
    "box": _box,
    "ellipsoid": lambda _: Ellipsoid(),
    "cylinder": lambda rng: Cone(1.0, spread(rng, 0.2, 4)),
    "cone": lambda rng: Cone(float(rng.choice([0.0, rng.uniform(0.1, 0.8)])), spread(rng, 0.6, 2.5)),
    "capsule": lambda rng: Capsule(spread(rng, 0.5, 6)),
    "rod": lambda rng: Capsule(spread(rng, 14, 90)),
    "fence": _fence,
    "polygon": _polygon,
    "gear": _gear,
    "leaf": _leaf,
    "letter": _letter,
    "rock": _rock,
    "torus": _torus,
    "blob": _blob,
    "terrain": _terrain,
    "panel": _panel,
}


def reach(shape: Shape) -> float:
    """The radius of a ball that holds the shape, give or take a corner."""
    return max(shape.extent)
