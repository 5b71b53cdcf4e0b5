"""Backgrounds: what stands behind and below the objects of a scene."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from stereopsis.synthesis.composer import Composer
from stereopsis.synthesis.objects import MAKERS, STANDING, about, spread
from stereopsis.synthesis.relief import Relief, Waves
from stereopsis.synthesis.shapes import Box, Capsule, Plane
from stereopsis.synthesis.vehicles import traffic
from stereopsis.synthesis.visibility import Pose, Solid

UP, AHEAD, ASIDE = np.array((0.0, -1.0, 0.0)), np.array((0.0, 0.0, -1.0)), np.array((1.0, 0.0, 0.0))


def _tilt(scene: Composer, strength: float) -> None:
    """The camera nods and rolls: the upright world is turned about it."""
    nod, roll = scene.rng.uniform(-1, 1, 2) * strength
    scene.upright = about(0, float(nod)) @ about(2, float(0.4 * roll))


def _drop(scene: Composer) -> float:
    """A height of the floor such that it enters the image between the nearest depth and the middle."""
    slope = 0.5 * scene.aspect / scene.rig.focal
    return slope * spread(scene.rng, scene.near, max(1.2 * scene.near, 0.4 * scene.far))


def planes(scene: Composer) -> None:
    """A slanted wall, and at times large slanted panels before it."""
    rng = scene.rng
    lean = rng.uniform(-1, 1, 2) * rng.choice([0.1, 0.6, 1.2])
    normal = np.array((lean[0], lean[1], -1.0))
    corners = np.array([(x, y, 1) for x in (-0.5, 0.5) for y in (-0.5 * scene.aspect, 0.5 * scene.aspect)])
    corners = corners / (scene.rig.focal, scene.rig.focal, 1)
    steepest = float((corners @ normal).min())
    far = max(scene.far, -steepest * scene.near)
    scene.wall(np.array((0, 0, far)), normal, depth=far)
    for _ in range(int(rng.integers(0, 4))):
        depth = spread(rng, 2 * scene.near, max(2.2 * scene.near, 0.9 * scene.far))
        reach = rng.uniform(0.15, 0.4) * depth / scene.rig.focal
        turn = about(1, float(rng.uniform(-0.9, 0.9))) @ about(0, float(rng.uniform(-0.9, 0.9)))
        x, y = rng.uniform(-0.5, 0.5, 2) * (1, scene.aspect) * depth / scene.rig.focal
        shape = Plane((float(reach), float(reach * rng.uniform(0.3, 1))))
        scene.add(shape, Pose.of((x, y, depth), (1, 1, 1), turn), depth=depth)


def room(scene: Composer) -> None:
    """Floor, ceiling, side walls and a back wall that is seen at an angle."""
    rng = scene.rng
    _tilt(scene, scene.distribution.tilt)
    yaw = about(1, float(rng.uniform(-0.5, 0.5)))
    scene.floor = _drop(scene)
    middle = math.sqrt(scene.near * scene.far)
    scene.wall(np.array((0, scene.floor, 0)), UP, depth=middle)
    scene.wall(np.array((0, -scene.floor * rng.uniform(1, 3), 0)), -UP, depth=middle)
    scene.wall(yaw @ np.array((0, 0, scene.far)), yaw @ AHEAD, depth=scene.far)
    for side in (-1, 1):
        beside = max(0.5 / scene.rig.focal * scene.far * rng.uniform(0.3, 1.0), 1.5 * scene.near)
        scene.wall(yaw @ np.array((side * beside, 0, 0)), yaw @ (-side * ASIDE), depth=middle)


def ground(scene: Composer) -> None:
    """Ground up to the horizon, sky, and blocks like houses far away."""
    rng = scene.rng
    _tilt(scene, scene.distribution.tilt)
    scene.floor = _drop(scene)
    scene.wall(np.array((0, scene.floor, 0)), UP, depth=math.sqrt(scene.near * scene.far))
    for _ in range(int(rng.integers(0, 7))):
        depth = scene.far * rng.uniform(0.6, 2.5)
        width, height, deep = rng.uniform(0.03, 0.25, 3) * depth / scene.rig.focal
        turn = about(1, float(rng.uniform(-0.8, 0.8)))
        x = rng.uniform(-0.6, 0.6) * depth / scene.rig.focal
        at = scene.upright @ np.array((x, scene.floor - height, depth))
        if at[2] - max(width, deep) > scene.near:
            pose = Pose(scene.upright @ turn, at)
            scene.add(Box((float(width), float(height), float(deep))), pose, depth=depth)


def street(scene: Composer) -> None:
    """A road to the horizon between rows of blocks, with poles and vehicles."""
    rng = scene.rng
    ground(scene)
    traffic(scene, int(rng.integers(0, 7)))
    assert scene.floor is not None
    for side in (-1, 1):
        beside = scene.near / scene.rig.focal * rng.uniform(1.0, 3.5)
        depth = scene.near * rng.uniform(2, 5)
        while depth < scene.far and len(scene.solids) < 40:
            length = depth * rng.uniform(0.1, 0.35)
            half = (float(beside * rng.uniform(0.2, 0.6)), float(scene.floor * rng.uniform(0.6, 5)), length)
            at = np.array((side * (beside + half[0]), scene.floor - half[1], depth + length))
            if rng.random() < 0.8:
                scene.add(Box(half), Pose(scene.upright.copy(), scene.upright @ at), depth=float(at[2]))
            if rng.random() < 0.35:
                height = scene.floor * rng.uniform(1.0, 2.5)
                pole = Capsule(float(rng.uniform(25, 80)))
                foot = np.array((side * beside * rng.uniform(0.7, 0.95), scene.floor - height, depth))
                pose = Pose.of(scene.upright @ foot, (height / pole.half,) * 3, scene.upright @ STANDING)
                scene.add(pole, pose, depth=float(depth))
            depth += 2 * length * rng.uniform(1.0, 1.8)


def tissue(scene: Composer) -> None:
    """A soft bumpy wall close before the camera."""
    rng = scene.rng
    waves = Waves.draw(rng, count=5, slope=float(rng.uniform(0.6, 2.0)), frequency=(3.0, 12.0), flat=True)
    depth = spread(rng, 2.2 * scene.near, max(2.5 * scene.near, scene.far))
    size = 0.9 * depth / scene.rig.focal
    lean = about(0, float(rng.uniform(-0.5, 0.5))) @ about(1, float(rng.uniform(-0.5, 0.5)))
    turn = lean @ np.stack((ASIDE, -UP, AHEAD), axis=1)
    shape = Relief("terrain", waves, 1.0)
    scene.add(shape, Pose.of((0, 0, depth), (size,) * 3, turn), depth=depth)
    scene.wall(np.array((0, 0, 1.2 * depth)), lean @ AHEAD, depth=depth)


def corridor(scene: Composer) -> None:
    """Close walls that run far away."""
    rng = scene.rng
    _tilt(scene, 0.5 * scene.distribution.tilt)
    yaw = about(1, float(rng.uniform(-0.35, 0.35)))
    middle = math.sqrt(scene.near * scene.far)
    slope = 0.5 / scene.rig.focal
    scene.floor = slope * scene.aspect * scene.near * rng.uniform(1.2, 2.5)
    scene.wall(np.array((0, scene.floor, 0)), UP, depth=middle)
    if rng.random() < 0.7:
        scene.wall(np.array((0, -scene.floor * rng.uniform(0.8, 2), 0)), -UP, depth=middle)
    for side in (-1, 1):
        beside = slope * scene.near * rng.uniform(1.3, 3)
        scene.wall(yaw @ np.array((side * beside, 0, 0)), yaw @ (-side * ASIDE), depth=middle)
    if rng.random() < 0.7:
        scene.wall(yaw @ np.array((0, 0, 1.5 * scene.far)), yaw @ AHEAD, depth=scene.far)


def shelves(scene: Composer) -> None:
    """A wall of boards with things on them."""
    rng = scene.rng
    depth = spread(rng, 2 * scene.near, max(2.5 * scene.near, min(scene.far, 8 * scene.near)))
    yaw = about(1, float(rng.uniform(-0.4, 0.4))) @ about(2, float(rng.normal(0, 0.03)))
    half = 0.6 * depth / scene.rig.focal
    deep = float(rng.uniform(0.08, 0.3) * depth)
    scene.wall(yaw @ np.array((0, 0, depth)), yaw @ AHEAD, depth=depth)
    rows = int(rng.integers(2, 6))
    gap = 2 * half * scene.aspect / rows
    thick = gap * rng.uniform(0.02, 0.07)
    board = scene.material(depth, background=True)
    scene.materials.append(board)
    mark = len(scene.materials) - 1
    shift = float(rng.uniform(-0.5, 0.5)) * gap
    for row in range(rows + 1):
        y = (row - rows / 2) * gap + shift
        _board(scene, yaw, (0.0, y, depth - deep / 2), (2 * half, float(thick), deep / 2), mark)
        x = -half
        while x < half and len(scene.solids) < 45:
            width = gap * rng.uniform(0.1, 0.5)
            if rng.random() < 0.75:
                _item(scene, yaw, np.array((x + width, y - thick, depth - deep / 2)), gap, width, deep)
            x += 2 * width * rng.uniform(1.0, 1.6)
    for _ in range(int(rng.integers(0, 4))):
        x = float(rng.uniform(-half, half))
        _board(scene, yaw, (x, 0.0, depth - deep / 2), (float(thick), half, deep / 2), mark)


def _board(
    scene: Composer,
    turn: np.ndarray,
    at: tuple[float, float, float],
    half: tuple[float, float, float],
    material: int,
) -> None:
    scene.solids.append(Solid(Box(half), Pose(turn.copy(), turn @ np.array(at)), material))


def _item(scene: Composer, turn: np.ndarray, foot: np.ndarray, gap: float, width: float, deep: float) -> None:
    """A box or a can that stands on a board."""
    rng = scene.rng
    height = float(gap * rng.uniform(0.15, 0.42))
    if rng.random() < 0.65:
        shape, spin, size = Box((float(width * 0.95), height, min(deep / 2, float(width * 2)))), turn, 1.0
    else:
        radius = min(float(width) * 0.9, deep / 2)
        shape, spin, size = MAKERS["cylinder"](rng), turn @ STANDING, radius
        height = float(radius * shape.extent[2])
    at = turn @ (foot - np.array((0, height, 0)))
    scene.add(shape, Pose.of(at, (size,) * 3, spin), depth=float(at[2]))


def terrain(scene: Composer) -> None:
    """Hills under the sky."""
    rng = scene.rng
    _tilt(scene, scene.distribution.tilt)
    drop = _drop(scene)
    waves = Waves.draw(rng, count=4, slope=float(rng.uniform(0.15, 0.5)), frequency=(3.0, 14.0), flat=True)
    size = 1.6 * scene.far
    shape = Relief("terrain", waves, 1.0)
    # The frame's z points up, its y away from the camera.
    turn = np.stack((ASIDE, -AHEAD, UP), axis=1)
    depth = 0.9 * size + 0.5 * scene.near
    here = float(shape.waves.height)
    at = np.array((0.0, drop + here * size, depth))
    scene.add(shape, Pose.of(scene.upright @ at, (size,) * 3, scene.upright @ turn), depth=scene.far / 2)


def tunnel(scene: Composer) -> None:
    """The inside of a bumpy tube that ends in the dark."""
    rng = scene.rng
    waves = Waves.draw(rng, count=4, slope=float(rng.uniform(0.1, 0.45)), frequency=(1.5, 6.0), flat=False)
    radius = 0.5 / scene.rig.focal * scene.near * rng.uniform(1.6, 3) / max(0.4, 1 - waves.height)
    turn = about(0, float(rng.uniform(-0.25, 0.25))) @ about(1, float(rng.uniform(-0.25, 0.25)))
    at = rng.uniform(-0.15, 0.15, 3) * radius
    scene.add(Relief("tube", waves), Pose.of(at, (radius,) * 3, turn), depth=3 * scene.near)
    # A lamp at the camera leaves a far end dark; near, it would stand there like a bright disc.
    end = 40 * radius if scene.distribution.headlamp else min(scene.far, 40 * radius)
    scene.wall(turn @ np.array((0, 0, end)), turn @ AHEAD, depth=scene.far)


LAYOUTS: Mapping[str, Callable[[Composer], None]] = {
    "planes": planes,
    "room": room,
    "ground": ground,
    "street": street,
    "tissue": tissue,
    "corridor": corridor,
    "shelves": shelves,
    "terrain": terrain,
    "tunnel": tunnel,
}
