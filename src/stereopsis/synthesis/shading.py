"""Deferred shading: each sample's first surface is known, and is shaded once, grouped by solid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stereopsis.synthesis.camera import View
from stereopsis.synthesis.scene import Light, Material, Scene
from stereopsis.synthesis.shapes import Ray
from stereopsis.synthesis.texture import SIDE, Atlas, Colours, Samples
from stereopsis.synthesis.visibility import Target, targets, trace

Vector = tuple[Samples, Samples, Samples]


class Points(NamedTuple):
    """Surface points in the order of their solids, all [n]: texel coordinates and footprints of the
    tile and of the detail, unit normals towards the viewer, material of each."""

    u: Samples
    v: Samples
    footprint: Samples
    detail_u: Samples
    detail_v: Samples
    detail_footprint: Samples
    nx: Samples
    ny: Samples
    nz: Samples
    material: Int[Tensor, " n"]


@dataclass(frozen=True)
class Illumination:
    """A light and its depth map: how far its rays get."""

    light: Light
    reach: Float[Tensor, "h w"]

    @classmethod
    def of(cls, light: Light, scene: Scene, device: torch.device) -> Illumination:
        casting = [target for target in targets(scene.solids, light.view) if not target.solid.transparent]
        rows = (0, light.view.size[0])
        return cls(light, trace(casting, light.view, rows, dtype=torch.float32, device=device).depth)

    def on(self, x: Samples, y: Samples, z: Samples) -> tuple[Samples, Vector]:
        """How much of the light reaches world points (0..1), and unit directions to it."""
        view = self.light.view
        ox, oy, oz = view.origin
        rx, ry, rz = x - ox, y - oy, z - oz
        r = view.rotation
        depth = r[0][2] * rx + r[1][2] * ry + r[2][2] * rz
        scale = view.focal / depth.clamp(min=1e-3)
        px = (r[0][0] * rx + r[1][0] * ry + r[2][0] * rz) * scale + view.cx
        py = (r[0][1] * rx + r[1][1] * ry + r[2][1] * rz) * scale + view.cy
        lit = self._lit(px, py, depth)
        inverse = -torch.rsqrt(rx * rx + ry * ry + rz * rz)
        if not math.isinf(self.light.reach):
            lit = lit * (inverse * self.light.reach).square().clamp(max=1)
        return lit, (rx * inverse, ry * inverse, rz * inverse)

    def _lit(self, x: Samples, y: Samples, depth: Samples) -> Samples:
        """The share of the four nearest rays that reach as far as the point; beside the map all do."""
        height, width = self.reach.shape
        outside = (x < 0) | (x > width - 1.001) | (y < 0) | (y > height - 1.001) | (depth <= 0)
        x, y = x.clamp(0, width - 1.001), y.clamp(0, height - 1.001)
        left, top = torch.floor(x), torch.floor(y)
        fx, fy = x - left, y - top
        first = (top * width + left).to(torch.int32)
        reach = self.reach.view(-1)
        total = outside.to(depth)
        inside = 1 - total
        behind = depth - 1.5 * self.light.softness
        for offset, share in (
            (0, (1 - fx) * (1 - fy)),
            (1, fx * (1 - fy)),
            (width, (1 - fx) * fy),
            (width + 1, fx * fy),
        ):
            gap = reach.index_select(0, first + offset) - behind
            total = total + inside * share * (gap * (1 / self.light.softness)).clamp(0, 1)
        return total


@dataclass(frozen=True)
class Shader:
    """A scene made ready for shading: tiles as an atlas, materials as a table, lights with their maps."""

    scene: Scene
    atlas: Atlas
    table: Float[Tensor, "p m"]
    lights: tuple[Illumination, ...]

    @classmethod
    def of(cls, scene: Scene, device: torch.device) -> Shader:
        atlas = Atlas.of([tile.draw() for tile in scene.tiles], device)
        rows = [_row(material) for material in scene.materials]
        table = torch.tensor(rows, dtype=torch.float32, device=device).T.contiguous()
        return cls(
            scene, atlas, table, tuple(Illumination.of(light, scene, device) for light in scene.lights)
        )

    def colours(
        self,
        seen: Sequence[Target],
        view: View,
        x: Samples,
        y: Samples,
        angle: Samples,
        depth: Samples,
        solid: Int[Tensor, " n"],
    ) -> tuple[Colours, Samples]:
        """Light [n 3] and opacity [n] of samples: ray directions (x, y, 1), the angle in radians that a
        sample stands for, depth, and the number of the solid (-1: sky)."""
        order = torch.argsort(solid, stable=True)
        counts = torch.bincount(solid + 1, minlength=len(self.scene.solids) + 1).tolist()
        x, y, angle, depth = x[order], y[order], angle[order], depth[order]
        void = counts[0]
        light = x.new_empty((len(x), 3))
        opacity = torch.ones_like(x)
        if void:
            light[:void] = self.surroundings(x[:void], y[:void], torch.ones_like(x[:void]), angle[:void])
        if void < len(x):
            x, y, angle, depth = x[void:], y[void:], angle[void:], depth[void:]
            points = _points(self.scene, seen, counts[1:], x, y, angle * depth, depth)
            light[void:], opacity[void:] = self._lit(points, view, x, y, depth)
        result, clear = torch.empty_like(light), torch.empty_like(opacity)
        result[order], clear[order] = light, opacity
        return result, clear

    def surroundings(self, x: Samples, y: Samples, z: Samples, angle: float | Samples) -> Colours:
        """The sky in directions (x, y, z), filtered over `angle` radians."""
        sky = self.scene.sky
        flat = torch.sqrt(x * x + z * z)
        elevation = torch.atan2(-y, flat)
        u = torch.atan2(x, z) * (2 * SIDE / (2 * math.pi))
        v = elevation * (3 * SIDE / math.pi)
        tile = torch.full_like(x, sky.tile, dtype=torch.int32)
        footprint = torch.zeros_like(x) + angle * (2 * SIDE / (2 * math.pi))
        clouds = self.atlas.sample(tile, u, v, footprint)
        rise = (elevation * 1.2).clamp(0, 1)[:, None]
        horizon, zenith = x.new_tensor(sky.horizon), x.new_tensor(sky.zenith)
        return torch.lerp(horizon + (zenith - horizon) * rise, clouds, sky.clouds)

    def _lit(
        self, points: Points, view: View, x: Samples, y: Samples, depth: Samples
    ) -> tuple[Colours, Samples]:
        p = self.table.index_select(1, points.material)
        albedo = self._albedo(points, p)
        ox, oy, oz = view.origin
        at = (x * depth + ox, y * depth + oy, depth + oz)
        inverse = -torch.rsqrt(x * x + y * y + 1)
        towards = (x * inverse, y * inverse, inverse)
        normal = (points.nx, points.ny, points.nz)
        ambient = x.new_tensor(self.scene.ambient)
        # The hemisphere above is brighter than the ground.
        diffuse = ambient[:, None] * (0.75 - 0.25 * points.ny)
        glints = torch.zeros_like(diffuse)
        for lamp in self.lights:
            lit, to_light = lamp.on(*at)
            colour = x.new_tensor(lamp.light.colour)[:, None]
            diffuse += colour * (lit * _dot(normal, to_light).clamp(min=0))
            if lamp.light.glint:
                half = [a + b for a, b in zip(to_light, towards, strict=True)]
                size = torch.rsqrt(half[0] ** 2 + half[1] ** 2 + half[2] ** 2 + 1e-12)
                cosine = (_dot(normal, (half[0], half[1], half[2])) * size).clamp(min=0)
                glints += colour * (lit * p[GLOSS] * torch.exp2(p[EXPONENT] * torch.log2(cosine + 1e-9)))
        light = albedo * diffuse.T + glints.T
        return self._mirrored(light, p, normal, towards), p[OPACITY]

    def _albedo(self, points: Points, p: Tensor) -> Colours:
        base = self.atlas.sample(p[TILE].to(torch.int32), points.u, points.v, points.footprint)
        detail = self.atlas.sample(
            p[DETAIL].to(torch.int32), points.detail_u, points.detail_v, points.detail_footprint
        )
        bias, gain = p[BIAS : BIAS + 3].T, p[GAIN : GAIN + 3].T
        weight = p[WEIGHT, :, None]
        # The detail's light is the square of its tile, about 0.3 on average.
        return (bias + gain * base).clamp(0, 1) * (1 - weight + weight * 3 * detail).clamp(max=2)

    def _mirrored(self, light: Colours, p: Tensor, normal: Vector, towards: Vector) -> Colours:
        """Some of the surroundings instead of the surface's own light, more at grazing angles (Schlick)."""
        chosen = (p[MIRROR] > 0).nonzero().squeeze(-1)
        if len(chosen) == 0:
            return light
        n = [c[chosen] for c in normal]
        d = [c[chosen] for c in towards]
        cosine = n[0] * d[0] + n[1] * d[1] + n[2] * d[2]
        reflected = [2 * cosine * a - b for a, b in zip(n, d, strict=True)]
        seen = self.surroundings(reflected[0], reflected[1], reflected[2], 0.01)
        strength = p[MIRROR, chosen]
        share = (strength + (1 - strength) * 0.5 * (1 - cosine.clamp(0, 1)) ** 5)[:, None]
        light[chosen] = torch.lerp(light[chosen], seen, share)
        return light


def _row(material: Material) -> list[float]:
    return [
        float(n) for value in astuple(material) for n in (value if isinstance(value, tuple) else (value,))
    ]


def _column(name: str) -> int:
    """Where a field of Material begins in the table's columns."""
    start = 0
    for field, value in Material().__dict__.items():
        if field == name:
            return start
        start += len(value) if isinstance(value, tuple) else 1
    raise KeyError(name)


TILE, DETAIL, WEIGHT, GAIN, BIAS = (_column(n) for n in ("tile", "detail", "weight", "gain", "bias"))
GLOSS, EXPONENT, MIRROR, OPACITY = (_column(n) for n in ("gloss", "exponent", "mirror", "opacity"))


def _dot(a: Vector, b: Vector) -> Samples:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _points(
    scene: Scene,
    seen: Sequence[Target],
    counts: Sequence[int],
    x: Samples,
    y: Samples,
    width: Samples,
    depth: Samples,
) -> Points:
    """Texture coordinates and normals of samples [n] in the order of their solids, `counts` of each.

    width: metres across a sample where the surface faces it.
    """
    by_index = {target.number: target for target in seen}
    buffer = x.new_empty((9, len(x)))
    material = torch.empty(len(x), dtype=torch.int32, device=x.device)
    start = 0
    for index, count in enumerate(counts):
        if count:
            part = slice(start, start + count)
            target = by_index[index]
            surface = scene.materials[target.solid.material]
            buffer[:, part] = torch.stack(
                _surface(target, surface, x[part], y[part], width[part], depth[part])
            )
            material[part] = target.solid.material
            start += count
    return Points(*buffer.unbind(), material=material)


def _surface(
    target: Target, material: Material, x: Samples, y: Samples, width: Samples, depth: Samples
) -> list[Samples]:
    """The first nine fields of Points, of samples on one solid."""
    solid = target.solid
    ray: Ray = target.ray(x, y)
    u, v, stretch, *normal = solid.shape.surface(*ray.at(depth))
    inverse = solid.pose.inverse.tolist()
    a, b, c = normal
    nx, ny, nz = (a * inverse[0][j] + b * inverse[1][j] + c * inverse[2][j] for j in range(3))
    facing = nx * x + ny * y + nz
    size = -torch.rsqrt(nx * nx + ny * ny + nz * nz + 1e-20) * facing.sign()
    facing = (facing * size * torch.rsqrt(x * x + y * y + 1)).abs()
    unit = solid.scale
    pixel = width * torch.rsqrt(facing.clamp(min=0.02)) * stretch
    coordinates = []
    for pitch, angle, lag in ((material.pitch, material.angle, 0.0), (material.detail_pitch, 0.7, 37.0)):
        density = unit * pitch
        if solid.shape.girth:
            # A whole number of tiles around, so that there is no seam.
            turns = max(1, round(solid.shape.girth * density / SIDE))
            density = turns * SIDE / solid.shape.girth
            along = u * density + (material.offset[0] + lag)
            across = v * density + (material.offset[1] + lag)
        else:
            cosine, sine = math.cos(angle) * density, math.sin(angle) * density
            along = u * cosine - v * sine + (material.offset[0] + lag)
            across = u * sine + v * cosine + (material.offset[1] + lag)
        coordinates += [along, across, pixel * (density / unit)]
    return [*coordinates, nx * size, ny * size, nz * size]
