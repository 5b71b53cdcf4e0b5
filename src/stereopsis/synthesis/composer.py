"""A scene in the making: rig, tiles and depth range are drawn, then solids and their materials added."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stereopsis.synthesis.camera import Rig, looking
from stereopsis.synthesis.distributions import Distribution
from stereopsis.synthesis.objects import MAKERS, STANDING, about, choose, reach, spread, turned
from stereopsis.synthesis.scene import Colour, Light, Material, Tile
from stereopsis.synthesis.shapes import Box, Cone, Plane, Shape
from stereopsis.synthesis.visibility import Pose, Solid

REPETITIVE = ("checks", "motif", "weave", "stripes")


@dataclass
class Composer:
    """Collects a scene; lengths are metres in a world whose y axis is `upright` turned down.

    near, far: depth of the nearest object and of the background; floor: height of the ground below
    the camera, where there is one; walls: half-spaces [n 4] (normal, offset) that the room's inside
    fulfils, in the camera's frame.
    """

    distribution: Distribution
    rng: np.random.Generator
    size: tuple[int, int]
    photographs: tuple[Path, ...] = ()
    rig: Rig = field(init=False)
    near: float = field(init=False)
    far: float = field(init=False)
    upright: np.ndarray = field(default_factory=lambda: np.eye(3))
    floor: float | None = None
    tiles: list[Tile] = field(default_factory=list)
    solids: list[Solid] = field(default_factory=list)
    materials: list[Material] = field(default_factory=list)
    tops: list[tuple[np.ndarray, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng, drawn = self.rng, self.distribution
        focal = spread(rng, *drawn.focal)
        baseline = spread(rng, *drawn.baseline)
        doffs = float(rng.uniform(-0.02, 0.05)) if rng.random() < drawn.doffs_chance else 0.0
        cx, cy = (float(value) for value in rng.normal(0, 0.015, 2))
        self.rig = Rig(focal=focal, baseline=baseline, cx=cx, cy=cy, doffs=doffs)
        nearest = spread(rng, *drawn.nearest)
        farthest = min(spread(rng, *drawn.farthest), nearest / 2)
        self.near = self.depth_of(nearest)
        self.far = self.depth_of(max(farthest, 1e-3 - doffs))
        for _ in range(int(rng.integers(drawn.tiles[0], drawn.tiles[1] + 1))):
            pattern = choose(rng, drawn.patterns)
            if self.photographs and rng.random() < 0.6:
                pattern = "photo"
            files = self.photographs if pattern == "photo" else ()
            self.tiles.append(Tile(pattern=pattern, seed=int(rng.integers(2**32)), files=files))

    @property
    def aspect(self) -> float:
        """Height over width."""
        return self.size[0] / self.size[1]

    def depth_of(self, disparity: float) -> float:
        """Metres from a disparity in widths."""
        return self.rig.focal * self.rig.baseline / (disparity + self.rig.doffs)

    def add(self, shape: Shape, pose: Pose, *, depth: float) -> None:
        """A solid with a material of its own, its texture chosen for `depth`."""
        surface = self.material(depth)
        clear = surface.opacity < 1
        self.solids.append(Solid(shape, pose, len(self.materials), clear))
        self.materials.append(surface)

    def material(self, depth: float, *, background: bool = False) -> Material:
        """A drawn material whose texels cover the drawn number of pixels at `depth`."""
        rng, drawn = self.rng, self.distribution
        tile = int(rng.integers(len(self.tiles)))
        repetitive = self.tiles[tile].pattern in REPETITIVE
        texel = spread(rng, *drawn.texel)
        pitch = self.rig.focal * self.size[1] / (depth * texel)
        contrast = 1.0 if rng.random() < 0.65 else float(rng.uniform(0.08, 1))
        tint = rng.uniform(0.75, 1.0, 3) * contrast * drawn.tint
        floor = rng.uniform(0.05, 0.5, 3) * (1 - contrast) * drawn.tint
        plain = rng.random() < (0.7 if repetitive else 0.4)
        weight = 0.0 if plain else float(rng.uniform(0.1, 0.6))
        kind = rng.random()
        glossy = kind < drawn.glossy
        mirror = glossy and kind < drawn.mirrors
        clear = not background and not mirror and glossy and kind > drawn.glossy - drawn.transparent
        return Material(
            tile=tile,
            pitch=pitch,
            angle=float(rng.choice([0.0, rng.uniform(0, 2 * math.pi)])),
            offset=(float(rng.uniform(0, 256)), float(rng.uniform(0, 256))),
            detail=int(rng.integers(len(self.tiles))),
            detail_pitch=pitch * spread(rng, 0.15, 5),
            weight=weight,
            gain=as_colour(tint),
            bias=as_colour(floor),
            gloss=float(rng.uniform(0.1, 0.9)) if glossy else 0.0,
            exponent=spread(rng, 6, 400),
            mirror=float(rng.uniform(0.25, 0.85)) if mirror else 0.0,
            opacity=float(rng.uniform(0.3, 0.75)) if clear else 1.0,
        )

    def wall(self, point: np.ndarray, normal: np.ndarray, *, depth: float) -> None:
        """An endless plane through `point`, both in the upright world; texels fit `depth`."""
        normal = normal / np.linalg.norm(normal)
        helper = np.array((0.0, 1.0, 0.0)) if abs(normal[1]) < 0.9 else np.array((0.0, 0.0, 1.0))
        across = np.cross(helper, normal)
        across /= np.linalg.norm(across)
        axes = np.stack((across, np.cross(normal, across), normal), axis=1)
        pose = Pose(self.upright @ axes, self.upright @ point)
        surface = self.material(depth, background=True)
        self.solids.append(Solid(Plane(), pose, len(self.materials)))
        self.materials.append(surface)

    def place(self) -> None:
        """A foreground object: floating, on the floor, or on top of another."""
        rng, drawn = self.rng, self.distribution
        kind = choose(rng, drawn.shapes)
        shape = MAKERS[kind](rng)
        apparent = spread(rng, *drawn.apparent) * (2.5 if kind in ("rod", "fence") else 1.0)
        front = self._front()
        radius = apparent / self.rig.focal
        depth = front / max(0.5, 1 - radius)
        size = radius * depth / reach(shape)
        if self.floor is None or rng.random() < drawn.floating:
            self._float(shape, size, depth)
        else:
            self._rest(shape, size, depth)

    def _front(self) -> float:
        """The depth of an object's face: log-uniform in disparity between background and nearest."""
        scale = self.rig.focal * self.rig.baseline
        return scale / spread(self.rng, scale / (0.9 * self.far), scale / self.near)

    def _float(self, shape: Shape, size: float, depth: float) -> None:
        x = self.rng.uniform(-0.55, 0.55) * depth / self.rig.focal
        y = self.rng.uniform(-0.55, 0.55) * self.aspect * depth / self.rig.focal
        self._settle(shape, size, np.array((x, y, depth)), turned(self.rng), depth)

    def _rest(self, shape: Shape, size: float, depth: float) -> None:
        """Standing (or lying) on the floor, or on something that has a top."""
        rng = self.rng
        standing = rng.random() < 0.75 or isinstance(shape, Box)
        turn = about(1, float(rng.uniform(0, 2 * math.pi)))
        turn = turn @ STANDING if standing else turn @ turned(rng)
        below = self._below(shape, size, turn)
        if self.tops and rng.random() < self.distribution.stacked:
            centre, height = self.tops[int(rng.integers(len(self.tops)))]
            smaller = min(1.0, 0.8 * float(centre[2]) / depth)
            size, below = size * smaller, below * smaller
            at = np.array((centre[0], height - below, centre[2]))
        else:
            assert self.floor is not None
            x = rng.uniform(-0.6, 0.6) * depth / self.rig.focal
            at = np.array((x, self.floor - below, depth))
        if isinstance(shape, (Box, Cone)) and standing and getattr(shape, "top", 1.0) > 0.5:
            self.tops.append((at, float(at[1] - below)))
        self._settle(shape, size, self.upright @ at, self.upright @ turn, float((self.upright @ at)[2]))

    @staticmethod
    def _below(shape: Shape, size: float, turn: np.ndarray) -> float:
        """How far a turned shape's box reaches below its centre."""
        return float((np.abs(turn) @ np.array(shape.extent))[1] * size)

    def _settle(self, shape: Shape, size: float, at: np.ndarray, turn: np.ndarray, depth: float) -> None:
        """Adds the shape, moved away where it would come nearer than the nearest depth."""
        stretch = np.exp(self.rng.uniform(-0.5, 0.2, 3)) if shape.name == "ellipsoid" else np.ones(3)
        closest = at[2] - float((np.abs(turn) @ (np.array(shape.extent) * stretch))[2]) * size
        if closest < self.near:
            push = 1 + (self.near - closest) / max(depth, 1e-6)
            at, size = at * push, size * min(1.0, self.near / max(closest, 0.3 * self.near))
        self.add(shape, Pose.of(at, size * stretch, turn), depth=float(at[2]))

    def headlamp(self, *, strength: float, resolution: int) -> Light:
        """A light beside the cameras that fades with distance; its depth map holds the image and a margin."""
        rng = self.rng
        at = [float(self.near * value) for value in rng.uniform(-0.15, 0.15, 3)]
        widest = 0.5 * max(1.0, self.aspect) / self.rig.focal + 0.2
        view = looking(
            origin=at,
            target=(0.0, 0.0, 5 * self.near),
            size=(resolution, resolution),
            focal=0.5 * resolution / widest,
        )
        reach = self.near * float(rng.uniform(1.5, 4))
        return Light(view=view, colour=(strength, strength, strength), softness=0.05 * self.near, reach=reach)

    def lamp(self, *, strength: float, resolution: int, softness: float, glint: bool) -> Light:
        """A light somewhere above and beside, on the camera's side of every wall."""
        rng = self.rng
        middle = math.sqrt(self.near * self.far)
        middle = min(middle, 6 * self.near)
        at = self.upright @ (
            np.array((rng.uniform(-1.2, 1.2), rng.uniform(-1.5, -0.1), rng.uniform(-0.6, 0.7)))
        )
        at = at * middle
        for solid in self.solids:
            if isinstance(solid.shape, Plane) and math.isinf(solid.shape.extent[0]):
                normal = solid.pose.linear[:, 2]
                own, camera = normal @ (at - solid.pose.centre), normal @ -solid.pose.centre
                if own * camera < 0 or abs(own) < 0.15 * abs(camera):
                    at = at * (0.85 * camera / (camera - own) if camera != own else 1.0)
        target = np.array((0.0, 0.0, 1.3 * middle))
        warmth = rng.normal(0, 0.08)
        colour = (strength * (1 + warmth), strength, strength * (1 - warmth))
        view = looking(
            origin=list(at), target=list(target), size=(resolution, resolution), focal=0.42 * resolution
        )
        return Light(view=view, colour=colour, softness=softness * middle, glint=glint)


def as_colour(values: np.ndarray) -> Colour:
    """Three plain numbers, as scenes hold colours."""
    r, g, b = (float(value) for value in values)
    return r, g, b
