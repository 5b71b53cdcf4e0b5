"""A scene as plain numbers: solids, materials, tiles, lights, sky, rig, and what its cameras do."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stereopsis.imaging import CameraEffects
from stereopsis.synthesis.camera import Rig, View
from stereopsis.synthesis.patterns import PATTERNS, photo
from stereopsis.synthesis.texture import SIDE
from stereopsis.synthesis.visibility import Solid

Colour = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A texture to be drawn: its pattern and the seed of its drawing; `photo` cuts from `files`."""

    pattern: str
    seed: int
    files: tuple[Path, ...] = dataclasses.field(default=(), repr=False)

    def draw(self) -> np.ndarray:
        """[side side 3] in [0, 1]."""
        rng = np.random.default_rng(self.seed)
        return photo(rng, SIDE, self.files) if self.pattern == "photo" else PATTERNS[self.pattern](rng, SIDE)


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a surface does with light.

    tile, detail: indices of the scene's tiles; pitch: texels a metre of each; angle, offset: how they
    lie; weight: how much the detail modulates (0..1); gain, bias: colour = bias + gain * texture;
    gloss, exponent: strength and sharpness of highlights; mirror: share of the reflected surroundings;
    opacity: 1 unless what is behind shines through.
    """

    tile: int = 0
    pitch: float = 100.0
    angle: float = 0.0
    offset: tuple[float, float] = (0.0, 0.0)
    detail: int = 0
    detail_pitch: float = 300.0
    weight: float = 0.0
    gain: Colour = (1.0, 1.0, 1.0)
    bias: Colour = (0.0, 0.0, 0.0)
    gloss: float = 0.0
    exponent: float = 30.0
    mirror: float = 0.0
    opacity: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Light:
    """A point of light with a depth map of what it reaches; `view` is the map's camera.

    softness: metres over which a shadow fades in behind what casts it; glint: whether highlights show
    it; reach: metres beyond which its light falls with the square.
    """

    view: View
    colour: Colour
    softness: float
    glint: bool = True
    reach: float = math.inf


@dataclass(frozen=True, kw_only=True)
class Sky:
    """What is behind everything, and what mirrors see: two colours and a tile of clouds."""

    zenith: Colour = (0.3, 0.45, 0.75)
    horizon: Colour = (0.7, 0.75, 0.8)
    tile: int = 0
    clouds: float = 0.4


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything that a rendering depends on beside its size."""

    name: str
    rig: Rig
    solids: tuple[Solid, ...]
    materials: tuple[Material, ...]
    tiles: tuple[Tile, ...]
    lights: tuple[Light, ...] = ()
    ambient: Colour = (1.0, 1.0, 1.0)
    sky: Sky = dataclasses.field(default_factory=Sky)
    effects: tuple[CameraEffects, CameraEffects] = (CameraEffects(), CameraEffects())
    layout: str = ""
