"""Curved and displaced surfaces that a ray meets by marching: terrain, rocks, tori, blobs, tubes.

Each is the zero of a function of known slope bound, so that a step of value / bound never jumps over
the surface (Hart, "Sphere tracing", 1996); regula falsi finds the zero within the last step. The
displacement is a sum of plane waves: smooth, and its slope is bounded by the sum of its terms'.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from stereopsis.synthesis.shapes import (
    NEAR,
    Box,
    Numbers,
    Ray,
    Shape,
    Surface,
    Values,
    box_interval,
    picked,
)

Base = Literal["terrain", "ball", "torus", "blob", "tube"]
LEAST = 2e-3
PAUSE, COMBS, TEETH = 8, 512, 32
SPHERES = {"tube": 256}
POLISH = 4


@dataclass(frozen=True)
class Waves:
    """A sum of plane waves: amplitude, angular frequency in x, y, z, and phase of each."""

    terms: tuple[tuple[float, float, float, float, float], ...] = ()

    @property
    def slope(self) -> float:
        return sum((a * math.sqrt(x * x + y * y + z * z) for a, x, y, z, _ in self.terms), 0.0)

    @property
    def height(self) -> float:
        return sum((term[0] for term in self.terms), 0.0)

    @classmethod
    def draw(
        cls, rng: np.random.Generator, *, count: int, slope: float, frequency: tuple[float, float], flat: bool
    ) -> Waves:
        """Waves of random directions whose slopes add up to `slope`; `flat` ones do not depend on z."""
        frequencies = np.exp(rng.uniform(math.log(frequency[0]), math.log(frequency[1]), count))
        directions = rng.normal(size=(count, 3)) * (1, 1, 0 if flat else 1)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        shares = rng.dirichlet(np.ones(count)) * slope
        phases = rng.uniform(0, 2 * math.pi, count)
        waves = frequencies[:, None] * directions
        return cls(
            tuple(
                (float(share / f), float(w[0]), float(w[1]), float(w[2]), float(phase))
                for share, f, w, phase in zip(shares, frequencies, waves, phases, strict=True)
            )
        )


@dataclass(frozen=True)
class Relief(Shape):
    """A base displaced by waves, in a frame of uniform scale.

    terrain: the solid below z = waves(x, y) over |x| <= 1, |y| <= `aspect`; ball: radius 1; torus:
    ring of radius 1 and thickness `aspect`; blob: three balls melted together; tube: the inside of an
    endless cylinder of radius 1 along z, seen from within.
    """

    base: Base
    waves: Waves
    aspect: float = 0.35
    effort: ClassVar[float] = 0.25

    @property
    def finest(self) -> float:
        return 0.3

    @property
    def name(self) -> str:
        return {"ball": "rock"}.get(self.base, self.base)

    @property
    def kind(self) -> str:
        return self.base

    @property
    def girth(self) -> float:
        return 2 * math.pi if self.base in ("ball", "blob", "tube") else 0.0

    @property
    def extent(self) -> tuple[float, float, float]:
        rise = self.waves.height
        match self.base:
            case "terrain":
                return (1.0, self.aspect, rise + 1e-3)
            case "ball":
                return (1 + rise, 1 + rise, 1 + rise)
            case "torus":
                return (1 + self.aspect + rise, 1 + self.aspect + rise, self.aspect + rise)
            case "blob":
                return (1.5 + rise, 1.5 + rise, 1.5 + rise)
            case "tube":
                return (math.inf, math.inf, math.inf)

    @property
    def numbers(self) -> Numbers:
        """Half sizes [3], the aspect and the slope of the waves [2], and the waves [5 n]."""
        terms = self.waves.terms or ((0.0,) * 5,)
        return np.array(self.extent), np.array((self.aspect, self.waves.slope)), np.array(terms).T

    def meet(self, ray: Ray, *numbers: Values) -> Values:
        extent, form, waves = numbers
        if self.base == "tube":
            entry = torch.full_like(ray.dz, NEAR)
            leave = entry + 60.0 / ray.dz.abs()
        else:
            entry, leave = box_interval(ray, extent)
            entry = entry.clamp(min=NEAR)
        result = torch.full_like(entry, math.inf)
        crossing = (entry < leave).view(-1).nonzero().squeeze(-1)
        waves = waves.nan_to_num(0.0)
        begin, length = entry.view(-1)[crossing], (leave - entry).view(-1)[crossing]
        near = ray.picked(entry.shape, crossing)
        pace = 1 / ((1 + picked(form[1], entry.shape, crossing)) * near.speed)
        fields = (picked(n.float(), entry.shape, crossing) for n in (form, waves))
        inside = begin + Field(self.base, *fields).march(near, begin, length, pace)
        hit = (inside < begin + length).nonzero().squeeze(-1)
        high, places = inside[hit], crossing[hit]
        low = torch.maximum(high - 1.01 * LEAST * pace[hit], begin[hit])
        field = Field(self.base, *(picked(n, entry.shape, places) for n in (form, waves)))
        result.view(-1)[places] = field.root(ray.picked(entry.shape, places), low, high)
        return result

    def describe(self, x: Values, y: Values, z: Values, *numbers: Values) -> Surface:
        extent, form, waves = numbers
        field = Field(self.base, form, waves.nan_to_num(0.0))
        nx, ny, nz = field.gradient(x, y, z)
        match self.base:
            case "terrain":
                return _block(x, y, z, nx, ny, nz, field.value(x, y, z) < -1e-4, extent)
            case "torus":
                return Surface(x, y, 1.0, nx, ny, nz)
            case "tube":
                return Surface(torch.atan2(y, x), z, 1.0, nx, ny, nz)
            case _:
                across = torch.sqrt(x * x + y * y)
                u, v = torch.atan2(y, x), torch.atan2(z, across)
                return Surface(u, v, 1 / across.clamp(min=0.05), nx, ny, nz)


def _block(
    x: Values, y: Values, z: Values, nx: Values, ny: Values, nz: Values, side: Tensor, extent: Values
) -> Surface:
    """A terrain's top, and the sides of its block, which are what lies below the top."""
    wall = Box().describe(x, y, z, extent)
    chosen = zip((wall.u, wall.v, wall.nx, wall.ny, wall.nz), (x, y, nx, ny, nz), strict=True)
    u, v, nx, ny, nz = (torch.where(side, a, b) for a, b in chosen)
    return Surface(u, v, 1.0, nx, ny, nz)


def distance(base: Base, x: Values, y: Values, z: Values, aspect: Values) -> Values:
    """Of points from a base that is not displaced."""
    match base:
        case "terrain":
            return z
        case "ball":
            return torch.sqrt(x * x + y * y + z * z) - 1
        case "torus":
            ring = torch.sqrt(x * x + y * y) - 1
            return torch.sqrt(ring * ring + z * z) - aspect
        case "blob":
            balls = ((-0.6, 0.1, 0.0, 0.7), (0.45, 0.45, 0.2, 0.55), (0.4, -0.5, -0.2, 0.6))
            terms = [
                torch.exp(8 * (r - torch.sqrt((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2)))
                for a, b, c, r in balls
            ]
            return -torch.log(terms[0] + terms[1] + terms[2]) / 8
        case "tube":
            return 1 - torch.sqrt(x * x + y * y)


@dataclass(frozen=True)
class Field:
    """The functions whose zeros reliefs of one base are, one for every point that is asked for.

    form: aspect and slope of the waves [2 ...]; waves: amplitude, angular frequencies and phase of each
    [5 k ...].
    """

    base: Base
    form: Values
    waves: Values

    def value(self, x: Values, y: Values, z: Values) -> Values:
        """Positive outside, slope at most 1 + that of the waves."""
        amplitude, fx, fy, fz, phase = self.waves
        ripple = (amplitude * torch.sin(fx * x + fy * y + fz * z + phase)).sum(0)
        return distance(self.base, x, y, z, self.form[0]) - ripple

    def gradient(self, x: Values, y: Values, z: Values) -> tuple[Values, Values, Values]:
        """By central differences at the corners of a tetrahedron."""
        step = 2e-3
        corners = ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1))
        values = [self.value(x + a * step, y + b * step, z + c * step) for a, b, c in corners]
        return (
            values[0] - values[1] - values[2] + values[3],
            values[2] + values[3] - values[0] - values[1],
            values[1] + values[3] - values[0] - values[2],
        )

    def march(self, ray: Ray, entry: Values, length: Values, pace: Values) -> Values:
        """Sphere tracing of rays [n], in single precision, to the first parameter inside; infinity: none.

        Steps are no smaller than LEAST / bound: the sign changes in such a step, which brackets the
        hit; a chord that is shorter may be missed. Rays that SPHERES steps have not brought to an end
        graze the surface: they go on in smallest steps, TEETH of them at a time.
        """
        result = torch.full_like(length, math.inf, dtype=torch.float32)
        alive = torch.arange(len(length), device=length.device)
        going = March.of(self, ray, entry, length, pace)
        spheres = SPHERES.get(self.base, 48)
        for count in range(1, spheres + COMBS):
            going, inside = going.stepped() if count <= spheres else going.combed()
            if count > spheres or count % PAUSE == 0:
                arrived = inside.nonzero().squeeze(-1)
                result[alive[arrived]] = going.t[arrived]
                moving = (~inside & (going.t < going.length)).nonzero().squeeze(-1)
                if len(moving) == 0:
                    break
                alive, going = alive[moving], going.chosen(moving)
        return result.to(length)

    def root(self, ray: Ray, low: Values, high: Values) -> Values:
        """Regula falsi from a point outside to one inside; rays that start inside hit the solid's side."""
        above, below = self.value(*ray.at(low)), self.value(*ray.at(high))
        started = above <= 0
        t = low
        for _ in range(POLISH):
            t = low + (high - low) * (above / (above - below).clamp(min=1e-12)).clamp(0, 1)
            value = self.value(*ray.at(t))
            outside = value > 0
            low, above = torch.where(outside, t, low), torch.where(outside, value, above)
            high, below = torch.where(outside, high, t), torch.where(outside, below, value)
        return torch.where(started, low, t)


@dataclass(frozen=True)
class March:
    """Marching rays [n]: where they are, and all else that differs between them as rows of one table."""

    base: Base
    t: Values
    table: Values

    @classmethod
    def of(cls, field: Field, ray: Ray, entry: Values, length: Values, pace: Values) -> March:
        """Rays that begin at `entry` and march as far as `length`; their phases grow in proportion to t."""
        rows = torch.stack((*ray.at(entry), ray.dx, ray.dy, ray.dz, pace, length)).float()
        x, y, z, dx, dy, dz, _, _ = rows
        amplitude, fx, fy, fz, phase = field.waves
        begin, rate = fx * x + fy * y + fz * z + phase, fx * dx + fy * dy + fz * dz
        table = torch.cat((rows, field.form[:1], amplitude, begin, rate))
        return cls(field.base, torch.zeros_like(table[0]), table)

    @property
    def length(self) -> Values:
        return self.table[7]

    def chosen(self, places: Int64[Tensor, " n"]) -> March:
        """Some of the rays."""
        return March(self.base, self.t[places], self.table.index_select(1, places))

    def value(self, t: Values) -> Values:
        """The function at parameters [n] or [k n]."""
        x, y, z, dx, dy, dz, _, _, aspect = self.table[:9]
        amplitude, begin, rate = self.table[9:].unflatten(0, (3, -1))
        if t.ndim == 2:
            amplitude, begin, rate = amplitude[:, None], begin[:, None], rate[:, None]
        ripple = (amplitude * torch.sin(torch.addcmul(begin, rate, t))).sum(0)
        x, y, z = (torch.addcmul(o, t, d) for o, d in ((x, dx), (y, dy), (z, dz)))
        return distance(self.base, x, y, z, aspect) - ripple

    def stepped(self) -> tuple[March, Tensor]:
        """A step each as far as the bound allows, none where a ray is inside, and which are."""
        value = self.value(self.t)
        step = value.clamp(min=LEAST) * value.sign().relu() * self.table[6]
        return replace(self, t=self.t + step), value <= 0

    def combed(self) -> tuple[March, Tensor]:
        """TEETH smallest steps, then one as far as the bound allows; rays stop at the first tooth inside."""
        pace = self.table[6]
        teeth = torch.arange(TEETH, dtype=pace.dtype, device=pace.device)[:, None]
        t = self.t + teeth * (LEAST * pace)
        values = self.value(t)
        hits = values <= 0
        first = t.gather(0, hits.float().argmax(0, keepdim=True))[0]
        inside = hits.any(0)
        onward = t[-1] + values[-1].clamp(min=LEAST) * pace
        return replace(self, t=torch.where(inside, first, onward)), inside
