"""Shapes that a ray meets in closed form: plane, box, ellipsoid, cone, capsule.

Every shape lives in a canonical frame of its own; a `Pose` puts it into the world. Affine maps keep
the parameter of a ray, so that `intersect` in the shape's frame answers in the world's depth: camera
rays have a direction whose z is 1, and their parameter is the depth in metres. No hit is infinity.

Shapes of one `kind` differ by their `numbers` only, and one pass serves any number of them: where the
numbers have an axis for shapes, the rays of each shape lie along the axis behind it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

Values = Float[Tensor, "..."]
Numbers = tuple[np.ndarray, ...]
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

    @property
    def speed(self) -> Values:
        """The directions' lengths."""
        return torch.sqrt(self.dx * self.dx + self.dy * self.dy + self.dz * self.dz)

    def picked(self, shape: torch.Size, places: Int64[Tensor, " n"]) -> Ray:
        """Of rays that broadcast to `shape`, those at flat places of it."""
        ox, oy, oz = (picked(c, shape, places) if isinstance(c, Tensor) else c for c in self[:3])
        dx, dy, dz = (picked(c, shape, places) for c in self[3:])
        return Ray(ox, oy, oz, dx, dy, dz)


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


class Shape(ABC):
    """A solid or a sheet in its canonical frame.

    effort: how much memory a ray takes, in comparison with a box; less where many rays at once pay more.
    """

    effort: ClassVar[float] = 1.0

    @property
    def axes(self) -> tuple[int, ...]:
        """What `meet` asks of a ray's direction."""
        return 0, 1, 2

    @property
    @abstractmethod
    def name(self) -> str:
        """What statistics count it as."""

    @property
    @abstractmethod
    def extent(self) -> tuple[float, float, float]:
        """Half sizes of a box about the frame's origin that holds it, infinite for planes."""

    @property
    def girth(self) -> float:
        """The length of one turn in u where u is an angle (0: u is a length)."""
        return 0.0

    @property
    @abstractmethod
    def finest(self) -> float:
        """About the width of its thinnest part."""

    @property
    def kind(self) -> str:
        """Shapes of one kind are met in one pass."""
        return type(self).__name__

    @property
    def numbers(self) -> Numbers:
        """What tells it from others of its kind; NaN where others may have more."""
        return ()

    @abstractmethod
    def meet(self, ray: Ray, *numbers: Values) -> Values:
        """`intersect` for shapes of these numbers, each [... s 1] for rays [s n]."""

    @abstractmethod
    def describe(self, x: Values, y: Values, z: Values, *numbers: Values) -> Surface:
        """`surface` for shapes of these numbers, each [... s 1] for points [s n]."""

    def intersect(self, ray: Ray) -> Values:
        """The parameter of the first hit beyond NEAR, infinity where there is none."""
        return self.meet(ray, *self._columns(ray.dx))

    def surface(self, x: Values, y: Values, z: Values) -> Surface:
        """Coordinates and normals at points on the shape."""
        return self.describe(x, y, z, *self._columns(x))

    def _columns(self, like: Values) -> list[Values]:
        return [torch.as_tensor(number).to(like)[..., None] for number in self.numbers]


def select(hit: Tensor, t: Values) -> Values:
    """t where `hit`, infinity elsewhere.

    By a division by 1 or 0, which takes a third of the time of `where` when the outcome is hard to predict.
    """
    return torch.nan_to_num(t / hit, nan=math.inf, posinf=math.inf, neginf=math.inf)


def picked(values: Values, shape: torch.Size, places: Int64[Tensor, " n"]) -> Values:
    """Of values [... *shape], or [... s 1] that broadcast to it, those at flat places of `shape`."""
    lead = values.shape[: values.ndim - len(shape)]
    if values.shape[-1] == 1:
        places = places // shape[-1]
    return values.reshape(*lead, -1).index_select(-1, places)


@dataclass(frozen=True)
class Plane(Shape):
    """The plane z = 0, without end; `half` bounds it to a rectangle, also in the frame's units."""

    half: tuple[float, float] = (math.inf, math.inf)

    @property
    def finest(self) -> float:
        return math.inf

    @property
    def name(self) -> str:
        return "plane" if math.isinf(self.half[0]) else "panel"

    @property
    def kind(self) -> str:
        return self.name

    @property
    def extent(self) -> tuple[float, float, float]:
        return (*self.half, 0.0)

    @property
    def axes(self) -> tuple[int, ...]:
        return (2,) if math.isinf(self.half[0]) else (0, 1, 2)

    @property
    def numbers(self) -> Numbers:
        return () if math.isinf(self.half[0]) else (np.array(self.half),)

    def meet(self, ray: Ray, *numbers: Values) -> Values:
        t = -ray.oz / ray.dz
        if not numbers:
            # Where a ray runs along the plane, t is not a number, or infinite.
            return torch.nan_to_num(F.threshold(t, NEAR, math.inf), nan=math.inf, posinf=math.inf)
        x, y, _ = ray.at(t)
        (half,) = numbers
        return select((t > NEAR) & (x.abs() <= half[0]) & (y.abs() <= half[1]), t)

    def describe(self, x: Values, y: Values, z: Values, *_: Values) -> Surface:
        flat = torch.zeros_like(z)
        return Surface(x, y, 1.0, flat, flat, torch.ones_like(z))


@dataclass(frozen=True)
class Box(Shape):
    """A block of half sizes `half`."""

    half: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def name(self) -> str:
        return "box"

    @property
    def extent(self) -> tuple[float, float, float]:
        return self.half

    @property
    def finest(self) -> float:
        return 2 * min(self.half)

    @property
    def numbers(self) -> Numbers:
        return (np.array(self.half),)

    def meet(self, ray: Ray, *numbers: Values) -> Values:
        entry, leave = box_interval(ray, *numbers)
        return select((entry <= leave) & (entry > NEAR), entry)

    def describe(self, x: Values, y: Values, z: Values, *numbers: Values) -> Surface:
        (extent,) = numbers
        ax, ay, az = (c.abs() / half for c, half in zip((x, y, z), extent, strict=True))
        on_x = ((ax >= ay) & (ax >= az)).to(x)
        on_y = (ay > az).to(x) * (1 - on_x)
        on_z = 1 - on_x - on_y
        # Faces of one direction are moved apart in u, so that they do not show the same texture.
        u = on_x * (z + 2.6 * x) + on_y * (x + 5.4 * y) + on_z * (x + 7.9 * z)
        v = y + on_y * (z - y)
        return Surface(u, v, 1.0, on_x * x.sign(), on_y * y.sign(), on_z * z.sign())


def box_interval(ray: Ray, extent: Values) -> tuple[Values, Values]:
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
class Ellipsoid(Shape):
    """The unit ball; the pose makes it an ellipsoid."""

    @property
    def name(self) -> str:
        return "ellipsoid"

    @property
    def extent(self) -> tuple[float, float, float]:
        return (1.0, 1.0, 1.0)

    @property
    def girth(self) -> float:
        return 2 * math.pi

    @property
    def finest(self) -> float:
        return 2.0

    def meet(self, ray: Ray, *_: Values) -> Values:
        return ball_entry(ray, radius=1.0)

    def describe(self, x: Values, y: Values, z: Values, *_: Values) -> Surface:
        across = torch.sqrt(x * x + y * y)
        return Surface(torch.atan2(y, x), torch.atan2(z, across), 1 / across.clamp(min=0.05), x, y, z)


def ball_entry(ray: Ray, *, radius: float, shift: float | Values = 0.0) -> Values:
    """Where rays enter a ball about (0, 0, shift), by way of their point nearest to its centre.

    That point's distance keeps its digits where the discriminant b^2 - ac would lose them.
    """
    oz = ray.oz - shift
    squared = ray.dx * ray.dx + ray.dy * ray.dy + ray.dz * ray.dz
    nearest = -(ray.dx * ray.ox + ray.dy * ray.oy + ray.dz * oz) / squared
    x, y, z = ray._replace(oz=oz).at(nearest)
    inside = radius * radius - (x * x + y * y + z * z)
    t = nearest - torch.sqrt(inside / squared)
    return select(t > NEAR, t)


@dataclass(frozen=True)
class Cone(Shape):
    """A frustum about the z axis, |z| <= half: radius 1 at -half, `top` at half (1: cylinder, 0: cone)."""

    top: float = 1.0
    half: float = 1.0

    @property
    def girth(self) -> float:
        return 2 * math.pi

    @property
    def finest(self) -> float:
        return 0.5

    @property
    def name(self) -> str:
        return "cylinder" if self.top == 1 else "cone"

    @property
    def extent(self) -> tuple[float, float, float]:
        widest = max(1.0, self.top)
        return (widest, widest, self.half)

    @property
    def numbers(self) -> Numbers:
        return np.array(self.top), np.array(self.half)

    def meet(self, ray: Ray, *numbers: Values) -> Values:
        top, half = numbers
        middle, slope = _profile(top, half)
        radius = middle + slope * ray.oz
        a = ray.dx * ray.dx + ray.dy * ray.dy - slope * slope * ray.dz * ray.dz
        b = ray.dx * ray.ox + ray.dy * ray.oy - ray.dz * (slope * radius)
        c = ray.ox * ray.ox + ray.oy * ray.oy - radius * radius
        root = torch.sqrt(b * b - a * c)
        hits = []
        for t in ((-b - root) / a, (-b + root) / a):
            hits.append(select(((ray.oz + t * ray.dz).abs() <= half) & (t > NEAR), t))
        for end, rim in ((-half, 1.0), (half, top)):
            t = (end - ray.oz) / ray.dz
            x, y, _ = ray.at(t)
            hits.append(select((x * x + y * y <= rim * rim) & (t > NEAR), t))
        return torch.minimum(torch.minimum(hits[0], hits[1]), torch.minimum(hits[2], hits[3]))

    def describe(self, x: Values, y: Values, z: Values, *numbers: Values) -> Surface:
        top, half = numbers
        middle, slope = _profile(top, half)
        across = torch.sqrt(x * x + y * y)
        # The lid is where a point is farther from the mantle than from the end's plane.
        lid = ((half - z.abs()) < (middle + slope * z - across).abs()).to(x)
        mantle = 1 - lid
        u = mantle * torch.atan2(y, x) + lid * x
        v = mantle * z + lid * (y + 4 * z)
        stretch = mantle / across.clamp(min=0.05) + lid
        return Surface(u, v, stretch, mantle * x, mantle * y, lid * z.sign() - mantle * slope * across)


def _profile(top: Values, half: Values) -> tuple[Values, Values]:
    """A cone's radius at z = 0 and its slope."""
    return (1 + top) / 2, (top - 1) / (2 * half)


@dataclass(frozen=True)
class Capsule(Shape):
    """A cylinder of radius 1 about the z axis, `half` long either way, with round ends: limbs, wires."""

    half: float = 2.0

    @property
    def girth(self) -> float:
        return 2 * math.pi

    @property
    def finest(self) -> float:
        return 2.0

    @property
    def name(self) -> str:
        return "rod" if self.half > 12 else "capsule"

    @property
    def extent(self) -> tuple[float, float, float]:
        return (1.0, 1.0, self.half + 1)

    @property
    def numbers(self) -> Numbers:
        return (np.array(self.half),)

    def meet(self, ray: Ray, *numbers: Values) -> Values:
        (half,) = numbers
        a = ray.dx * ray.dx + ray.dy * ray.dy
        nearest = -(ray.dx * ray.ox + ray.dy * ray.oy) / a
        x, y, _ = ray.at(nearest)
        t = nearest - torch.sqrt((1 - x * x - y * y) / a)
        body = select(((ray.oz + t * ray.dz).abs() <= half) & (t > NEAR), t)
        low = ball_entry(ray, radius=1.0, shift=-half)
        high = ball_entry(ray, radius=1.0, shift=half)
        # Within the ends' balls only what lies beyond the mantle's ends is the capsule's outside; the
        # first of all hits is right in any case, since ball and mantle touch without a gap.
        return torch.minimum(body, torch.minimum(low, high))

    def describe(self, x: Values, y: Values, z: Values, *numbers: Values) -> Surface:
        (half,) = numbers
        beyond = z - torch.minimum(torch.maximum(z, -half), half)
        across = torch.sqrt(x * x + y * y)
        return Surface(torch.atan2(y, x), z, 1 / across.clamp(min=0.1), x, y, beyond)
