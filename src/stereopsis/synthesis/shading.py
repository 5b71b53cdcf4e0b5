"""Deferred shading: each sample's first surface is known, and is shaded once, in runs of one solid each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from stereopsis.synthesis.lamps import Lamps, Vector
from stereopsis.synthesis.scene import Material, Scene
from stereopsis.synthesis.shapes import Values
from stereopsis.synthesis.texture import SIDE, Atlas
from stereopsis.synthesis.truth import Stage
from stereopsis.synthesis.visibility import RUN, Layout, Target, parts

Colours = Float[Tensor, "3 r n"]


class Samples(NamedTuple):
    """What rays have met, in runs: directions (x, y, 1), depth, the surface (the place of the target, or
    behind the last target the pair whose sky it is), and the angle in radians that a sample stands for."""

    x: Float[Tensor, "r n"]
    y: Float[Tensor, "r n"]
    depth: Float[Tensor, "r n"]
    surface: Int64[Tensor, " r"]
    angle: Float[Tensor, "r 1"]


class Points(NamedTuple):
    """Surface points: texel coordinates and footprints of the tile and of the detail, and unit normals
    towards the viewer."""

    u: Values
    v: Values
    footprint: Values
    detail_u: Values
    detail_v: Values
    detail_footprint: Values
    nx: Values
    ny: Values
    nz: Values


@dataclass(frozen=True)
class Shader:
    """Scenes made ready for shading: tiles as an atlas, lamps with their maps, and a table of surfaces."""

    stage: Stage
    scenes: tuple[Scene, ...]
    atlas: Atlas
    lamps: Lamps

    @classmethod
    def of(cls, stage: Stage, scenes: Sequence[Scene]) -> Shader:
        tiles = [tile.draw() for scene in scenes for tile in scene.tiles]
        lamps = Lamps.of([(scene.lights, scene.ambient, scene.solids) for scene in scenes], stage.device)
        return cls(stage, tuple(scenes), Atlas.of(tiles, stage.device), lamps)

    @cached_property
    def rows(self) -> np.ndarray:
        """[t m] what shading needs to know of each target, on the host."""
        tiles = np.cumsum([0, *(len(scene.tiles) for scene in self.scenes)])
        rows = [np.zeros((0, WIDTH))]
        for target in self.stage.seen.targets:
            pair = target.view // 2
            material = self.scenes[pair].materials[target.solid.material]
            origin = self.stage.views[target.view].origin
            rows.append(np.array([_row(target, material, pair, int(tiles[pair]), origin)]))
        return np.concatenate(rows)

    @cached_property
    def table(self) -> Float[Tensor, "m t"]:
        return torch.from_numpy(self.rows.T.copy()).float().to(self.stage.device)

    @cached_property
    def skies(self) -> Float[Tensor, "8 p"]:
        """Zenith and horizon, share of clouds, and the clouds' tile, of each pair."""
        tiles = np.cumsum([0, *(len(scene.tiles) for scene in self.scenes)])
        skies = [scene.sky for scene in self.scenes]
        rows = [(*s.zenith, *s.horizon, s.clouds, s.tile + n) for s, n in zip(skies, tiles, strict=False)]
        return torch.tensor(rows, dtype=torch.float32, device=self.stage.device).T.contiguous()

    @cached_property
    def places(self) -> Int64[Tensor, "v s"]:
        """The surface of each solid of a view, by 1 + its number; 0: the sky."""
        targets, views = self.stage.seen.targets, len(self.stage.views)
        table = np.zeros((views, 1 + max(len(scene.solids) for scene in self.scenes)), np.int64)
        table[:, 0] = len(targets) + np.arange(views) // 2
        for place, target in enumerate(targets):
            table[target.view, 1 + target.number] = place
        return torch.from_numpy(table).to(self.stage.device)

    def surface(self, view: Int64[Tensor, " m"], solid: Int[Tensor, " m"]) -> Int64[Tensor, " m"]:
        """The surface of what a sample of a view has met."""
        return self.places.view(-1).index_select(0, view * self.places.shape[1] + (solid + 1))

    def colours(
        self,
        x: Float[Tensor, " m"],
        y: Float[Tensor, " m"],
        depth: Float[Tensor, " m"],
        group: Int64[Tensor, " m"],
        *,
        samples: int,
    ) -> tuple[Float[Tensor, "3 m"], Float[Tensor, " m"]]:
        """Light and opacity of samples; group: twice the surface, 1 more for `samples` a pixel."""
        device, seen = self.stage.device, self.stage.seen.targets
        order = torch.argsort(group.to(torch.int32), stable=True)
        counts = torch.bincount(group, minlength=2 * (len(seen) + len(self.scenes))).cpu().numpy()
        layout = Layout.of(counts, device)
        source = order.index_select(0, layout.member.view(-1))
        views = [target.view for target in seen] + list(range(0, len(self.stage.views), 2))
        pixels = np.array([(1 / f, 1 / (f * samples)) for f in (self.stage.views[v].focal for v in views)])
        angle = torch.from_numpy(pixels.ravel()[layout.group]).float().to(device)[:, None]
        x, y, depth = (c.index_select(0, source).view(-1, RUN) for c in (x, y, depth))
        surface = torch.from_numpy(layout.group // 2).to(device)
        light, opacity = self._shaded(Samples(x, y, depth, surface, angle), layout)
        back = torch.empty_like(order)
        back[order] = layout.place
        return light.view(3, -1).index_select(1, back), opacity.view(-1).index_select(0, back)

    def _shaded(self, runs: Samples, layout: Layout) -> tuple[Colours, Float[Tensor, "r n"]]:
        """Light and opacity of runs: those on solids, then those in the sky."""
        x, y, depth, surface, angle = runs
        count = len(self.stage.seen.targets)
        light, opacity = x.new_empty((3, *x.shape)), torch.ones_like(x)
        points = self._points(runs, layout)
        solid = int(layout.starts[2 * count])
        for part in parts(0, solid, x.device):
            p = self.table.index_select(1, surface[part])[..., None]
            rows = self.rows[layout.group[part] // 2]
            light[:, part] = self._lit(Points(*points[:, part]), p, rows, x[part], y[part], depth[part])
            opacity[part] = p[OPACITY]
        for part in parts(solid, len(x), x.device):
            sky = (x[part], y[part], torch.ones_like(x[part]))
            light[:, part] = self._surroundings(sky, surface[part] - count, angle[part])
        return light, opacity

    def _points(self, runs: Samples, layout: Layout) -> Float[Tensor, "9 r n"]:
        """The fields of Points of all runs on solids, kind by kind."""
        seen = self.stage.seen
        points = runs.x.new_empty((9, *runs.x.shape))
        for kind in seen.kinds:
            start, end = (int(layout.starts[2 * n]) for n in (kind.start, kind.end))
            for part in parts(start, end, runs.x.device, effort=kind.shape.effort):
                places = runs.surface[part]
                ray = seen.rays(places, runs.x[part], runs.y[part])
                found = kind.shape.describe(*ray.at(runs.depth[part]), *kind.of(places, torch.float32))
                p = self.table.index_select(1, places)[..., None]
                width = runs.angle[part] * runs.depth[part]
                placed = _placed(found, p, runs.x[part], runs.y[part], width)
                for row, values in zip(points[:, part], placed, strict=True):
                    row.copy_(values)
        return points

    def _surroundings(self, direction: Vector, pair: Int64[Tensor, " r"], angle: float | Values) -> Colours:
        """The skies of pairs in directions (x, y, z), filtered over `angle` radians."""
        x, y, z = direction
        sky = self.skies.index_select(1, pair)[..., None]
        elevation = torch.atan2(-y, torch.sqrt(x * x + z * z))
        u = torch.atan2(x, z) * (2 * SIDE / (2 * math.pi))
        v = elevation * (3 * SIDE / math.pi)
        footprint = torch.zeros_like(x) + angle * (2 * SIDE / (2 * math.pi))
        clouds = _planes(self.atlas.sample(sky[7].to(torch.int32), u, v, footprint))
        rise = (elevation * 1.2).clamp(0, 1)
        clear = sky[3:6] + (sky[:3] - sky[3:6]) * rise
        return clear + (clouds - clear) * sky[6]

    def _lit(
        self, points: Points, p: Tensor, rows: np.ndarray, x: Values, y: Values, depth: Values
    ) -> Colours:
        """The light of points on surfaces p [m r 1]; rows: the same on the host."""
        albedo = self._albedo(points, p, rows)
        ox, oy, oz = p[EYE : EYE + 3]
        at = (x * depth + ox, y * depth + oy, depth + oz)
        inverse = -torch.rsqrt(x * x + y * y + 1)
        towards = (x * inverse, y * inverse, inverse)
        normal = (points.nx, points.ny, points.nz)
        pair = p[PAIR, :, 0].long()
        shiny = torch.from_numpy(np.flatnonzero(rows[:, GLOSS] > 0)).to(x.device)
        diffuse, glints = self.lamps.on(at, normal, towards, pair, shiny, p[GLOSS : GLOSS + 2])
        light = albedo * diffuse
        if len(shiny):
            light[:, shiny] += glints
        mirrors = torch.from_numpy(np.flatnonzero(rows[:, MIRROR] > 0)).to(x.device)
        if len(mirrors):
            n, d = ([c[mirrors] for c in vector] for vector in (normal, towards))
            own = light[:, mirrors]
            light[:, mirrors] = self._mirrored(own, p[MIRROR, mirrors], pair[mirrors], n, d)
        return light

    def _albedo(self, points: Points, p: Tensor, rows: np.ndarray) -> Colours:
        base = _planes(self.atlas.sample(p[TILE].to(torch.int32), points.u, points.v, points.footprint))
        albedo = (p[BIAS : BIAS + 3] + p[GAIN : GAIN + 3] * base).clamp(0, 1)
        detailed = torch.from_numpy(np.flatnonzero(rows[:, WEIGHT] > 0)).to(base.device)
        if len(detailed):
            tile, weight = p[DETAIL, detailed].to(torch.int32), p[WEIGHT, detailed]
            u, v, footprint = (c[detailed] for c in points[3:6])
            detail = _planes(self.atlas.sample(tile, u, v, footprint))
            # The detail's light is the square of its tile, about 0.3 on average.
            albedo[:, detailed] *= (1 - weight + weight * 3 * detail).clamp(max=2)
        return albedo

    def _mirrored(
        self, light: Colours, strength: Values, pair: Int64[Tensor, " r"], n: list[Tensor], d: list[Tensor]
    ) -> Colours:
        """Some of the surroundings instead of the surface's own light, more at grazing angles (Schlick)."""
        cosine = n[0] * d[0] + n[1] * d[1] + n[2] * d[2]
        x, y, z = (2 * cosine * a - b for a, b in zip(n, d, strict=True))
        seen = self._surroundings((x, y, z), pair, 0.01)
        share = strength + (1 - strength) * 0.5 * (1 - cosine.clamp(0, 1)) ** 5
        return light + (seen - light) * share


# Where the table has what: seven numbers a texture, then the material, the normal's frame, eye and pair.
TEXTURE, TILE, DETAIL, WEIGHT, GAIN, BIAS, GLOSS, EXPONENT, MIRROR, OPACITY = (
    0,
    14,
    15,
    16,
    17,
    20,
    23,
    24,
    25,
    26,
)
FRAME, EYE, PAIR, WIDTH = 27, 36, 39, 40


def _row(
    target: Target, m: Material, pair: int, tiles: int, origin: tuple[float, float, float]
) -> list[float]:
    base = _texture(target, m.pitch, m.angle, m.offset, 0.0)
    detail = _texture(target, m.detail_pitch, 0.7, m.offset, 37.0)
    material = m.tile + tiles, m.detail + tiles, m.weight, *m.gain, *m.bias, m.gloss, m.exponent, m.mirror
    frame = target.solid.pose.inverse.ravel()
    return [float(n) for n in (*base, *detail, *material, m.opacity, *frame, *origin, pair)]


def _texture(
    target: Target, pitch: float, angle: float, offset: tuple[float, float], lag: float
) -> tuple[float, ...]:
    """How texel coordinates follow from a surface's: an affine map by rows; and texels a metre."""
    unit, girth = target.solid.scale, target.solid.shape.girth
    density = unit * pitch
    if girth:
        # A whole number of tiles around, so that there is no seam.
        angle, density = 0.0, max(1, round(girth * density / SIDE)) * SIDE / girth
    cosine, sine = math.cos(angle) * density, math.sin(angle) * density
    return cosine, -sine, offset[0] + lag, sine, cosine, offset[1] + lag, density / unit


def _placed(found: Sequence[Values | float], p: Tensor, x: Values, y: Values, width: Values) -> Points:
    """Points from what shapes say of them; width: metres across a sample where the surface faces it."""
    u, v, stretch, a, b, c = found
    nx, ny, nz = (a * p[FRAME + j] + b * p[FRAME + 3 + j] + c * p[FRAME + 6 + j] for j in range(3))
    facing = nx * x + ny * y + nz
    size = -torch.rsqrt(nx * nx + ny * ny + nz * nz + 1e-20) * facing.sign()
    facing = (facing * size * torch.rsqrt(x * x + y * y + 1)).abs()
    pixel = width * torch.rsqrt(facing.clamp(min=0.02)) * stretch
    tile, detail = (
        (u * t[0] + v * t[1] + t[2], u * t[3] + v * t[4] + t[5], pixel * t[6])
        for t in (p[TEXTURE : TEXTURE + 7], p[TEXTURE + 7 : TEXTURE + 14])
    )
    return Points(*tile, *detail, nx * size, ny * size, nz * size)


def _planes(colours: Float[Tensor, "r n 3"]) -> Colours:
    return colours.movedim(-1, 0).contiguous()
