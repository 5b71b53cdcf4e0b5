"""Lamps with depth maps of what their light reaches: shadows, highlights, fading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from stereopsis.synthesis.camera import View
from stereopsis.synthesis.scene import Colour, Light
from stereopsis.synthesis.shapes import Values
from stereopsis.synthesis.visibility import Grid, Runs, Solid, Targets, hits, targets, trace

Vector = tuple[Values, Values, Values]


@dataclass(frozen=True)
class Lamps:
    """The lamps of pairs.

    ambient [3 p]: the light from everywhere; table [l m p]: the numbers of each pair's lamps, dark ones where
    another pair has more; first [l p]: where their maps begin in `reach`, how far their rays get.
    """

    ambient: Float[Tensor, "3 p"]
    table: Float[Tensor, "l m p"]
    first: Int64[Tensor, "l p"]
    glint: tuple[bool, ...]
    reach: Float[Tensor, " n"]

    @classmethod
    def of(
        cls, pairs: Sequence[tuple[Sequence[Light], Colour, Sequence[Solid]]], device: torch.device
    ) -> Lamps:
        """From the lights of each pair, what is everywhere, and the solids that cast shadows."""
        lights = [(light, solids) for lights, _, solids in pairs for light in lights]
        maps, starts = _maps(lights, device)
        count = max((len(lights) for lights, _, _ in pairs), default=0)
        table = np.zeros((count, len(DARK), len(pairs)))
        table[:] = np.array(DARK)[:, None]
        first = np.zeros((count, len(pairs)), np.int64)
        glint = [False] * count
        found = iter(starts)
        for pair, (own, _, _) in enumerate(pairs):
            for slot, light in enumerate(own):
                table[slot, :, pair] = _row(light)
                first[slot, pair] = next(found)
                glint[slot] |= light.glint
        ambient = torch.tensor(
            [even for _, even, _ in pairs], dtype=torch.float32, device=device
        ).T.contiguous()
        numbers = torch.from_numpy(table).float().to(device)
        return cls(ambient, numbers, torch.from_numpy(first).to(device), tuple(glint), maps)

    def on(
        self,
        at: Vector,
        normal: Vector,
        towards: Vector,
        pair: Int64[Tensor, " r"],
        shiny: Int64[Tensor, " s"],
        gloss: Float[Tensor, "2 r 1"],
    ) -> tuple[Float[Tensor, "3 r n"], Float[Tensor, "3 s n"]]:
        """The light that falls on world points [r n] of pairs [r], and the highlights of the shiny runs [s].

        towards: unit directions to the viewer; gloss: strength and exponent.
        """
        # The hemisphere above is brighter than the ground.
        ambient = self.ambient.index_select(1, pair)[..., None]
        diffuse = ambient * (0.75 - 0.25 * normal[1])
        strength, exponent = gloss[:, shiny]
        glints = diffuse.new_zeros((3, len(shiny), diffuse.shape[2]))
        mirror = [c[shiny] for c in normal], [c[shiny] for c in towards]
        for table, first, glint in zip(self.table, self.first, self.glint, strict=True):
            q = table.index_select(1, pair)[..., None]
            lit, to_light = self._reaching(at, q, first[pair, None])
            diffuse += q[COLOUR : COLOUR + 3] * (lit * _dot(normal, to_light).clamp(min=0))
            if glint and len(shiny):
                half = [a[shiny] + b for a, b in zip(to_light, mirror[1], strict=True)]
                size = torch.rsqrt(_dot(half, half) + 1e-12)
                cosine = (_dot(mirror[0], half) * size).clamp(min=0)
                peak = strength * torch.exp2(exponent * torch.log2(cosine + 1e-9))
                glints += q[GLINT : GLINT + 3, shiny] * (lit[shiny] * peak)
        return diffuse, glints

    def _reaching(self, at: Vector, q: Tensor, first: Int64[Tensor, "r 1"]) -> tuple[Values, Vector]:
        """How much of a lamp's light reaches world points (0..1), and unit directions to it."""
        rx, ry, rz = (c - o for c, o in zip(at, q[ORIGIN : ORIGIN + 3], strict=True))
        depth = q[2] * rx + q[5] * ry + q[8] * rz
        inverse = 1 / depth.clamp(min=1e-3)
        px = (q[0] * rx + q[3] * ry + q[6] * rz) * inverse + q[CENTRE]
        py = (q[1] * rx + q[4] * ry + q[7] * rz) * inverse + q[CENTRE + 1]
        lit = self._shadow(px, py, depth * q[SHARPNESS], q[SIZE], first)
        inverse = -torch.rsqrt(rx * rx + ry * ry + rz * rz)
        lit *= (inverse * q[REACH]).square_().clamp_(max=1)
        return lit, (rx * inverse, ry * inverse, rz * inverse)

    def _shadow(
        self, x: Values, y: Values, depth: Values, side: Values, first: Int64[Tensor, "r 1"]
    ) -> Values:
        """The share of the four nearest rays that reach as far as the point; beside the map all do.

        depth: in units of the softness.
        """
        last = side - 1.001
        x, y = (torch.minimum(c.clamp(min=0), last) for c in (x, y))
        left, top = torch.floor(x), torch.floor(y)
        fx, fy = x - left, y - top
        place = (top * side + left).long() + first
        line = side.long()
        taps = [
            (self.reach.index_select(0, (place + step).view(-1)).view(depth.shape) - depth).clamp_(0, 1)
            for step in (0, 1, line, line + 1)
        ]
        return torch.lerp(torch.lerp(taps[0], taps[1], fx), torch.lerp(taps[2], taps[3], fx), fy)


# Where the table has what: first, by rows, what turns a point to pixels and depth.
ORIGIN, CENTRE, COLOUR, GLINT, SHARPNESS, REACH, SIZE = 9, 12, 14, 17, 20, 21, 22
DARK = (*np.eye(3).ravel().tolist(), *(0.0,) * 11, 1.0, 1.0, 2.0)


def _row(light: Light) -> list[float]:
    view, colour = light.view, light.colour
    turn = np.array(view.rotation) * (view.focal, view.focal, 1)
    glint = colour if light.glint else (0.0, 0.0, 0.0)
    # The map has a margin of a pixel.
    centre, side = (view.cx + 1, view.cy + 1), view.size[1] + 2
    fade = 1 / light.softness, min(light.reach, 1e18)
    return [float(n) for n in (*turn.ravel(), *view.origin, *centre, *colour, *glint, *fade, side)]


def _maps(
    lights: Sequence[tuple[Light, Sequence[Solid]]], device: torch.device
) -> tuple[Float[Tensor, " n"], list[int]]:
    """How far the lights' rays get, and where each map begins; one pass for the maps of one size.

    A map is square, in units of the light's softness with half of it to spare, and has a margin that all
    light passes, so that beside it nothing is in shadow.
    """
    starts, maps, start = [0] * len(lights), [torch.full((4,), torch.inf, device=device)], 4
    for size in sorted({light.view.size for light, _ in lights}):
        chosen = [n for n, (light, _) in enumerate(lights) if light.view.size == size]
        views: list[View] = [lights[n][0].view for n in chosen]
        casting = [
            target
            for number, (n, view) in enumerate(zip(chosen, views, strict=True))
            for target in targets(lights[n][1], view, number=number)
            if not target.solid.transparent
        ]
        grid = Grid(size, 0, size[0], len(views))
        runs = Runs.tiles(views, grid, dtype=torch.float32, device=device)
        depth = hits(trace(Targets.of(casting, views, device), runs, layers=1)[0]).depth
        softness = torch.tensor([lights[n][0].softness for n in chosen], device=device)[:, None, None]
        reach = grid.image(depth).float() / softness + 1.5
        maps.append(F.pad(reach, (1, 1, 1, 1), value=torch.inf).view(-1))
        for number, n in enumerate(chosen):
            starts[n] = start + number * (size[0] + 2) * (size[1] + 2)
        start += len(maps[-1])
    return torch.cat(maps), starts


def _dot(a: Sequence[Values], b: Sequence[Values]) -> Values:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
