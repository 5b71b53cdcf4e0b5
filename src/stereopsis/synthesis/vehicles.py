"""Cars and vans made of parts: painted bodies, cabins of glass that mirror the sky, wheels.

A vehicle's frame lies on the ground below its middle, in half lengths: x along it, y down, z across.
"""

from __future__ import annotations

import math

import numpy as np

from stereopsis.synthesis.composer import Composer, as_colour
from stereopsis.synthesis.objects import about, spread
from stereopsis.synthesis.prism import Loop, Prism
from stereopsis.synthesis.scene import Material
from stereopsis.synthesis.shapes import Cone, Shape
from stereopsis.synthesis.visibility import Pose, Solid

_WHEEL = 0.15
"""A wheel's radius in half lengths."""


def traffic(scene: Composer, count: int) -> None:
    """So many vehicles on the floor of the scene, most along the view, some across.

    A car is about as high as the camera's stand, as where cameras are mounted on cars.
    """
    rng = scene.rng
    assert scene.floor is not None
    for _ in range(count):
        length = scene.floor * float(rng.uniform(0.9, 1.5))
        nearest = scene.near + 1.2 * length
        depth = spread(rng, nearest, max(1.5 * nearest, 0.5 * scene.far))
        x = float(rng.uniform(-0.6, 0.6)) * depth / scene.rig.focal
        heading = float(rng.choice([0.5, 0.5, 0.0])) * math.pi + float(rng.normal(0, 0.15))
        vehicle(scene, np.array((x, scene.floor, depth)), heading, length)


def vehicle(scene: Composer, at: np.ndarray, heading: float, length: float) -> None:
    """A car or a van of that half length, standing at a point of the upright world."""
    rng = scene.rng
    turn = scene.upright @ about(1, heading)
    width, waist = float(rng.uniform(0.36, 0.44)), float(rng.uniform(0.38, 0.48))
    top = waist + float(rng.uniform(0.22, 0.32) if rng.random() < 0.75 else rng.uniform(0.4, 0.7))
    paint, glass, rubber = (_surface(scene, material) for material in (_paint(rng), _glass(rng), _rubber()))

    def part(shape: Shape, material: int, x: float = 0.0, y: float = 0.0, size: float = 1.0) -> None:
        place = scene.upright @ at + turn @ (np.array((x, -y, 0.0)) * length)
        scene.solids.append(Solid(shape, Pose.of(place, (size * length,) * 3, turn), material))

    body, cabin, roof = _outlines(rng, waist, top)
    part(Prism((body,), width), paint)
    part(Prism((cabin,), 0.92 * width), glass)
    part(Prism((roof,), 0.92 * width), paint)
    for x in (-0.6, 0.62):
        part(Cone(1.0, width / _WHEEL), rubber, x, _WHEEL, _WHEEL)


def _outlines(rng: np.random.Generator, waist: float, top: float) -> tuple[Loop, Loop, Loop]:
    """Seen from the side, the front on the right: the body up to its waist, the windows, the roof."""
    sill = 0.1
    bonnet = waist - float(rng.uniform(0.02, 0.08))
    front, back = float(rng.uniform(0.35, 0.75)), float(rng.uniform(-0.97, -0.6))
    slope, rear = float(rng.uniform(0.15, 0.35)), float(rng.uniform(0.02, 0.3))
    body = ((-0.98, sill), (0.98, sill), (1.0, 0.6 * bonnet), (0.95, bonnet), (front, waist), (-0.98, waist))
    cabin = ((back, waist), (front, waist), (front - slope, top), (back + rear, top))
    roof = (
        (back + rear - 0.02, top),
        (front - slope + 0.02, top),
        (front - slope - 0.04, top + 0.035),
        (back + rear + 0.04, top + 0.035),
    )
    return _upwards(body), _upwards(cabin), _upwards(roof)


def _upwards(loop: Loop) -> Loop:
    return tuple((x, -y) for x, y in loop)


def _surface(scene: Composer, material: Material) -> int:
    scene.materials.append(material)
    return len(scene.materials) - 1


def _paint(rng: np.random.Generator) -> Material:
    """White, silver or black twice as often as a colour; clear coat."""
    light = float(rng.uniform(0.03, 0.9))
    colour = np.full(3, light) if rng.random() < 0.65 else rng.uniform(0.02, 0.8, 3)
    return _plain(colour, gloss=float(rng.uniform(0.3, 0.9)), mirror=float(rng.uniform(0.08, 0.45)))


def _glass(rng: np.random.Generator) -> Material:
    """Tinted: what is inside is not seen."""
    return _plain(rng.uniform(0.02, 0.1) * np.ones(3), gloss=0.8, mirror=float(rng.uniform(0.25, 0.8)))


def _rubber() -> Material:
    return _plain(np.full(3, 0.05), gloss=0.0, mirror=0.0)


def _plain(colour: np.ndarray, *, gloss: float, mirror: float) -> Material:
    gain = (0.02, 0.02, 0.02)
    return Material(gain=gain, bias=as_colour(colour), gloss=gloss, exponent=200.0, mirror=mirror)
