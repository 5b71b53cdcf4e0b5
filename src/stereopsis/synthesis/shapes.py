"""Shapes that a ray meets in closed form: plane, box, ellipsoid, cone, capsule.

Every shape lives in a canonical frame of its own; a `Pose` puts it into the world. Affine maps keep
the parameter of a ray, so that `intersect` in the shape's frame answers in the world's depth: camera
rays have a direction whose z is 1, and their parameter is the depth in metres. No hit is infinity.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

Values = Float[Tensor, "..."]
NEAR = 1e-4


class Ray(NamedTuple):
    """Rays in a shape's frame: the origin's coordinates (numbers where all rays share it) and directions'."""

    ox: float | Values
    oy: float | Values
    oz: float | Values
    dx: Values
    dy: Values
    dz: Values

    def at(self, t: Values) -> tuple[Values, Values, Values]:
        """The points at parameter t."""
        return self.ox + t * self.dx, self.oy + t * self.dy, self.oz + t * self.dz

    def advanced(self, t: Values) -> Ray:
        """The same rays, begun at parameter t."""
        return Ray(*self.at(t), self.dx, self.dy, self.dz)

    def map(self, function: Callable[[Tensor], Tensor]) -> Ray:
        """The rays with a function applied to what differs between them."""
        origin = (self.ox, self.oy, self.oz)
        ox, oy, oz = (function(c) if isinstance(c, Tensor) else c for c in origin)
        return Ray(ox, oy, oz, function(self.dx), function(self.dy), function(self.dz))


class Surface(NamedTuple):
    """What shading needs to know of points on a shape, in the shape's frame.

    u, v: coordinates on the surface, in the frame's units; stretch: by how much u runs ahead of arc
    length (near poles); nx, ny, nz: an outward normal, of any length.
    """

    u: Values
    v: Values
    stretch: Values | float
    nx: Values
    ny: Values
    nz: Values


@runtime_checkable
class Shape(Protocol):
    """A solid or a sheet in its canonical frame.

    name: the kind, as statistics count it; extent: half sizes of a box about the frame's origin that
    holds it (infinite for planes); girth: length of one turn in u where u is an angle (0: u is a length);
    finest: about the width of its thinnest part.
    """

    @property
    def name(self) -> str: ...

    @property
    def extent(self) -> tuple[float, float, float]: ...

    @property
    def girth(self) -> float: ...

    @property
    def finest(self) -> float: ...

    def intersect(self, ray: Ray) -> Values:
        """The parameter of the first hit beyond NEAR, infinity where there is none."""
        ...

    def surface(self, x: Values, y: Values, z: Values) -> Surface:
        """Coordinates and normals at points on the shape."""
        ...


def select(hit: Tensor, t: Values) -> Values:
    """t where `hit`, infinity elsewhere."""
    return t.masked_fill(~hit, math.inf)


@dataclass(frozen=True)
class Plane:
    """The plane z = 0, without end; `half` bounds it to a rectangle, also in the frame's units."""

    half: tuple[float, float] = (math.inf, math.inf)
    girth: float = 0.0
    finest: float = math.inf

    @property
    def name(self) -> str:
        return "plane" if math.isinf(self.half[0]) else "panel"

    @property
    def extent(self) -> tuple[float, float, float]:
        return (*self.half, 0.0)

    def intersect(self, ray: Ray) -> Values:
        t = -ray.oz / ray.dz
        hit = t > NEAR
        if not math.isinf(self.half[0]):
            x, y, _ = ray.at(t)
            hit = hit & (x.abs() <= self.half[0]) & (y.abs() <= self.half[1])
        return select(hit, t)

    def surface(self, x: Values, y: Values, z: Values) -> Surface:
        flat = torch.zeros_like(z)
        return Surface(x, y, 1.0, flat, flat, torch.ones_like(z))


@dataclass(frozen=True)
class Box:
    """A block of half sizes `extent`."""

    extent: tuple[float, float, float] = (1.0, 1.0, 1.0)
    name: str = "box"
    girth: float = 0.0

    @property
    def finest(self) -> float:
        return 2 * min(self.extent)

    def intersect(self, ray: Ray) -> Values:
        entry, leave = box_interval(ray, self.extent)
        return select((entry <= leave) & (entry > NEAR), entry)

    def surface(self, x: Values, y: Values, z: Values) -> Surface:
        ax, ay, az = (c.abs() / half for c, half in zip((x, y, z), self.extent, strict=True))
        on_x = ((ax >= ay) & (ax >= az)).to(x)
        on_y = (ay > az).to(x) * (1 - on_x)
        on_z = 1 - on_x - on_y
        # Faces of one direction are moved apart in u, so that they do not show the same texture.
        u = on_x * (z + 2.6 * x) + on_y * (x + 5.4 * y) + on_z * (x + 7.9 * z)
        v = y + on_y * (z - y)
        return Surface(u, v, 1.0, on_x * x.sign(), on_y * y.sign(), on_z * z.sign())


def box_interval(ray: Ray, extent: tuple[float, float, float]) -> tuple[Values, Values]:
    """Where rays enter and leave the box [-extent, extent] (entry > leave: they miss it)."""
    entry: Values | None = None
    leave: Values | None = None
    origin, direction = (ray.ox, ray.oy, ray.oz), (ray.dx, ray.dy, ray.dz)
    for o, d, half in zip(origin, direction, extent, strict=True):
        inverse = 1 / d
        first, second = (-half - o) * inverse, (half - o) * inverse
        low, high = torch.minimum(first, second), torch.maximum(first, second)
        entry = low if entry is None else torch.maximum(entry, low)
        leave = high if leave is None else torch.minimum(leave, high)
    assert entry is not None
    assert leave is not None
    return entry, leave


@dataclass(frozen=True)
class Ellipsoid:
    """The unit ball; the pose makes it an ellipsoid."""

    name: str = "ellipsoid"
    extent: tuple[float, float, float] = (1.0, 1.0, 1.0)
    girth: float = 2 * math.pi
    finest: float = 2.0

    def intersect(self, ray: Ray) -> Values:
        return ball_entry(ray, radius=1.0)

    def surface(self, x: Values, y: Values, z: Values) -> Surface:
        across = torch.sqrt(x * x + y * y)
        return Surface(torch.atan2(y, x), torch.atan2(z, across), 1 / across.clamp(min=0.05), x, y, z)


def ball_entry(ray: Ray, *, radius: float, shift: float = 0.0) -> Values:
    """Where rays enter a ball about (0, 0, shift), by way of their point nearest to its centre.

    That point's distance keeps its digits where the discriminant b^2 - ac would lose them.
    """
    oz = ray.oz - shift
    squared = ray.dx * ray.dx + ray.dy * ray.dy + ray.dz * ray.dz
    nearest = -(ray.dx * ray.ox + ray.dy * ray.oy + ray.dz * oz) / squared
    x, y, z = ray._replace(oz=oz).at(nearest)
    inside = radius * radius - (x * x + y * y + z * z)
    t = torch.nan_to_num(nearest - torch.sqrt(inside / squared), nan=math.inf)
    return select(t > NEAR, t)


@dataclass(frozen=True)
class Cone:
    """A frustum about the z axis, |z| <= half: radius 1 at -half, `top` at half (1: cylinder, 0: cone)."""

    top: float = 1.0
    half: float = 1.0
    girth: float = 2 * math.pi
    finest: float = 0.5

    @property
    def name(self) -> str:
        return "cylinder" if self.top == 1 else "cone"

    @property
    def extent(self) -> tuple[float, float, float]:
        widest = max(1.0, self.top)
        return (widest, widest, self.half)

    @property
    def _profile(self) -> tuple[float, float]:
        """The radius at z = 0 and its slope."""
        return (1 + self.top) / 2, (self.top - 1) / (2 * self.half)

    def intersect(self, ray: Ray) -> Values:
        middle, slope = self._profile
        radius = middle + slope * ray.oz
        a = ray.dx * ray.dx + ray.dy * ray.dy - slope * slope * ray.dz * ray.dz
        b = ray.dx * ray.ox + ray.dy * ray.oy - ray.dz * (slope * radius)
        c = ray.ox * ray.ox + ray.oy * ray.oy - radius * radius
        root = torch.sqrt(b * b - a * c)
        best = torch.full_like(a, math.inf)
        for t in ((-b - root) / a, (-b + root) / a):
            hit = ((ray.oz + t * ray.dz).abs() <= self.half) & (t > NEAR)
            best = torch.minimum(best, select(hit, t))
        for end, rim in ((-self.half, 1.0), (self.half, self.top)):
            t = (end - ray.oz) / ray.dz
            x, y, _ = ray.at(t)
            hit = (x * x + y * y <= rim * rim) & (t > NEAR)
            best = torch.minimum(best, select(hit, t))
        return best

    def surface(self, x: Values, y: Values, z: Values) -> Surface:
        middle, slope = self._profile
        across = torch.sqrt(x * x + y * y)
        # The lid is where a point is farther from the mantle than from the end's plane.
        lid = ((self.half - z.abs()) < (middle + slope * z - across).abs()).to(x)
        mantle = 1 - lid
        u = mantle * torch.atan2(y, x) + lid * x
        v = mantle * z + lid * (y + 4 * z)
        stretch = mantle / across.clamp(min=0.05) + lid
        return Surface(u, v, stretch, mantle * x, mantle * y, lid * z.sign() - mantle * slope * across)


@dataclass(frozen=True)
class Capsule:
    """A cylinder of radius 1 about the z axis, `half` long either way, with round ends: limbs, wires."""

    half: float = 2.0
    girth: float = 2 * math.pi
    finest: float = 2.0

    @property
    def name(self) -> str:
        return "rod" if self.half > 12 else "capsule"

    @property
    def extent(self) -> tuple[float, float, float]:
        return (1.0, 1.0, self.half + 1)

    def intersect(self, ray: Ray) -> Values:
        a = ray.dx * ray.dx + ray.dy * ray.dy
        nearest = -(ray.dx * ray.ox + ray.dy * ray.oy) / a
        x, y, _ = ray.at(nearest)
        t = nearest - torch.sqrt((1 - x * x - y * y) / a)
        body = select(((ray.oz + t * ray.dz).abs() <= self.half) & (t > NEAR), t)
        low = ball_entry(ray, radius=1.0, shift=-self.half)
        high = ball_entry(ray, radius=1.0, shift=self.half)
        # Within the ends' balls only what lies beyond the mantle's ends is the capsule's outside; the
        # first of all hits is right in any case, since ball and mantle touch without a gap.
        return torch.minimum(body, torch.minimum(low, high))

    def surface(self, x: Values, y: Values, z: Values) -> Surface:
        beyond = z - z.clamp(-self.half, self.half)
        across = torch.sqrt(x * x + y * y)
        return Surface(torch.atan2(y, x), z, 1 / across.clamp(min=0.1), x, y, beyond)
