"""Curved and displaced surfaces that a ray meets by marching: terrain, rocks, tori, blobs, tubes.

Each is the zero of a function of known slope bound, so that a step of value / bound never jumps over
the surface (Hart, "Sphere tracing", 1996); regula falsi finds the zero within the last step. The
displacement is a sum of plane waves: smooth, and its slope is bounded by the sum of its terms'.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from stereopsis.synthesis.shapes import NEAR, Box, Ray, Surface, Values, box_interval

Base = Literal["terrain", "ball", "torus", "blob", "tube"]
STEPS = 1536
LEAST = 2e-3
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

    def __call__(self, x: Values, y: Values, z: Values) -> Values:
        """At points [n]."""
        waves = x.new_tensor(self.terms or ((0.0,) * 5,))
        return self.total(waves[:, 1:4] @ torch.stack((x, y, z)) + waves[:, 4:])

    def along(self, ray: Ray) -> tuple[Values, Values]:
        """The phases [k n] of the terms where rays [n] begin, and their rates along the rays."""
        waves = ray.dx.new_tensor(self.terms or ((0.0,) * 5,))
        begin = torch.stack([ray.ox + 0 * ray.dx, ray.oy + 0 * ray.dx, ray.oz + 0 * ray.dx])
        direction = torch.stack((ray.dx, ray.dy, ray.dz))
        return waves[:, 1:4] @ begin + waves[:, 4:], waves[:, 1:4] @ direction

    def total(self, phases: Values) -> Values:
        """The sum [n] of terms of these phases [k n]."""
        amplitudes = phases.new_tensor([term[0] for term in self.terms] or [0.0])
        return amplitudes @ torch.sin(phases)

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
class Relief:
    """A base displaced by waves, in a frame of uniform scale.

    terrain: the solid below z = waves(x, y) over |x| <= 1, |y| <= `aspect`; ball: radius 1; torus:
    ring of radius 1 and thickness `aspect`; blob: three balls melted together; tube: the inside of an
    endless cylinder of radius 1 along z, seen from within.
    """

    base: Base
    waves: Waves
    aspect: float = 0.35
    finest: float = 0.3

    @property
    def name(self) -> str:
        return {"ball": "rock"}.get(self.base, self.base)

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

    def value(self, x: Values, y: Values, z: Values) -> Values:
        """Positive outside, slope at most 1 + that of the waves."""
        return self._distance(x, y, z) - self.waves(x, y, z)

    def _distance(self, x: Values, y: Values, z: Values) -> Values:
        match self.base:
            case "terrain":
                return z
            case "ball":
                return torch.sqrt(x * x + y * y + z * z) - 1
            case "torus":
                ring = torch.sqrt(x * x + y * y) - 1
                return torch.sqrt(ring * ring + z * z) - self.aspect
            case "blob":
                balls = ((-0.6, 0.1, 0.0, 0.7), (0.45, 0.45, 0.2, 0.55), (0.4, -0.5, -0.2, 0.6))
                terms = [
                    torch.exp(8 * (r - torch.sqrt((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2)))
                    for a, b, c, r in balls
                ]
                return -torch.log(terms[0] + terms[1] + terms[2]) / 8
            case "tube":
                return 1 - torch.sqrt(x * x + y * y)

    def intersect(self, ray: Ray) -> Values:
        if self.base == "tube":
            entry = torch.full_like(ray.dz + ray.dx, NEAR)
            leave = entry + 60.0 / ray.dz.abs()
        else:
            entry, leave = box_interval(ray, self.extent)
            entry = entry.clamp(min=NEAR)
        result = torch.full_like(entry, math.inf)
        crossing = (entry < leave).nonzero(as_tuple=True)
        flat = ray.map(lambda values: values.expand(entry.shape)[crossing])
        result[crossing] = self._first(flat, entry[crossing], leave[crossing])
        return result

    def _first(self, ray: Ray, entry: Values, leave: Values) -> Values:
        """The first zero of rays [n] between `entry` and `leave`."""
        speed = torch.sqrt(ray.dx * ray.dx + ray.dy * ray.dy + ray.dz * ray.dz)
        pace = 1 / ((1 + self.waves.slope) * speed)
        inside = entry + self._march(ray.advanced(entry), leave - entry, pace)
        hit = (inside < leave).nonzero().squeeze(-1)
        found = torch.full_like(entry, math.inf)
        high, start = inside[hit], entry[hit]
        low = torch.maximum(high - 1.01 * LEAST * pace[hit], start)
        found[hit] = self._root(ray.map(lambda values: values[hit]), low, high)
        return found

    def _march(self, ray: Ray, length: Values, pace: Values) -> Values:
        """Sphere tracing of rays [n], in single precision, to the first parameter inside; infinity: none.

        Steps are no smaller than LEAST / bound: the sign changes in such a step, which brackets the
        hit; a chord that is shorter may be missed.
        """
        ray = ray.map(Tensor.float)
        length, pace = length.float(), pace.float()
        phase, rate = self.waves.along(ray)
        t, alive = torch.zeros_like(length), torch.arange(len(length), device=length.device)
        result = torch.full_like(length, math.inf)
        for count in range(STEPS):
            value = self._distance(*ray.at(t)) - self.waves.total(torch.addcmul(phase, rate, t))
            if count % 6 == 5:
                inside = (value <= 0).nonzero().squeeze(-1)
                result[alive[inside]] = t[inside]
                moving = ((value > 0) & (t < length)).nonzero().squeeze(-1)
                if len(moving) == 0:
                    break
                ray = ray.map(lambda values, chosen=moving: values[chosen])
                phase, rate = phase.index_select(1, moving), rate.index_select(1, moving)
                alive, t, pace, length = alive[moving], t[moving], pace[moving], length[moving]
                value = value[moving]
            t = t + value.clamp(min=LEAST) * (value > 0) * pace
        return result.to(length)

    def _root(self, ray: Ray, low: Values, high: Values) -> Values:
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

    def surface(self, x: Values, y: Values, z: Values) -> Surface:
        nx, ny, nz = self._normal(x, y, z)
        across = torch.sqrt(x * x + y * y)
        match self.base:
            case "terrain":
                return self._block(x, y, z, nx, ny, nz)
            case "torus":
                return Surface(x, y, 1.0, nx, ny, nz)
            case "tube":
                return Surface(torch.atan2(y, x), z, 1.0, nx, ny, nz)
            case _:
                u, v = torch.atan2(y, x), torch.atan2(z, across)
                return Surface(u, v, 1 / across.clamp(min=0.05), nx, ny, nz)

    def _block(self, x: Values, y: Values, z: Values, nx: Values, ny: Values, nz: Values) -> Surface:
        """A terrain's top, and the sides of its block, which are what lies below the top."""
        side = self.value(x, y, z) < -1e-4
        wall = Box(self.extent).surface(x, y, z)
        chosen = zip((wall.u, wall.v, wall.nx, wall.ny, wall.nz), (x, y, nx, ny, nz), strict=True)
        u, v, nx, ny, nz = (torch.where(side, a, b) for a, b in chosen)
        return Surface(u, v, 1.0, nx, ny, nz)

    def _normal(self, x: Values, y: Values, z: Values) -> tuple[Values, Values, Values]:
        """The gradient by central differences at the corners of a tetrahedron."""
        step = 2e-3
        corners = ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1))
        values = [self.value(x + a * step, y + b * step, z + c * step) for a, b, c in corners]
        return (
            values[0] - values[1] - values[2] + values[3],
            values[2] + values[3] - values[0] - values[1],
            values[1] + values[3] - values[0] - values[2],
        )
