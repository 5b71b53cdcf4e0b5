"""Textures drawn as square tiles that wrap around: from noise and dead leaves to bricks, weave and text.

Tiles are drawn on the CPU from a NumPy generator, whatever device renders, so that devices agree.
A pattern is a function (generator, side) -> [side side 3] float32 in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

Rng = np.random.Generator
Picture = np.ndarray
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789&%$#@?!"


def spectral_noise(rng: Rng, side: int, power: float) -> Picture:
    """[side side] noise whose amplitude falls with frequency^-power, about 0.5, most of it in [0, 1]."""
    white = np.fft.rfft2(rng.standard_normal((side, side), dtype=np.float32))
    fy, fx = np.fft.fftfreq(side)[:, None] * side, np.fft.rfftfreq(side)[None] * side
    spectrum = white * np.maximum(np.hypot(fx, fy), 1.0) ** -power
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=(side, side))
    return (0.5 + 0.22 * field / field.std()).clip(0, 1).astype(np.float32)


def palette(rng: Rng, count: int) -> Picture:
    """[count 3] colours that go together: one hue with strays, mostly of low saturation."""
    hue = rng.uniform() + rng.normal(0, rng.choice([0.03, 0.15, 0.5]), count)
    saturation = (rng.beta(1.2, 2.5) + rng.normal(0, 0.15, count)).clip(0, 0.95)
    value = rng.uniform(0.12, 0.95, count)
    hsv = np.stack((hue % 1 * 360, saturation, value), axis=-1).astype(np.float32)
    return np.asarray(cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB))[0]


def coloured(field: Picture, colours: Picture) -> Picture:
    """[side side 3] from a field in [0, 1] and the colours [n 3] that it runs through."""
    stops = np.linspace(0, 1, len(colours))
    table = np.stack([np.interp(np.linspace(0, 1, 256), stops, colours[:, c]) for c in range(3)], axis=-1)
    return table.astype(np.float32)[(field * 255).astype(np.uint8)]


def _grained(rng: Rng, picture: Picture, strength: float) -> Picture:
    grain = spectral_noise(rng, len(picture), rng.uniform(0.2, 1.5))[..., None] - 0.5
    return (picture * (1 + 2 * strength * grain)).clip(0, 1).astype(np.float32)


def _canvas(side: int, colour: Picture) -> Picture:
    """A picture of 8 bits to draw on: OpenCV smooths the rims of what it draws on these only."""
    return np.full((side, side, 3), (colour * 255).round(), np.uint8)


def _ink(colour: Picture) -> list[float]:
    return [float(c) for c in (colour * 255).clip(0, 255).round()]


def _unit(canvas: Picture) -> Picture:
    return canvas.astype(np.float32) / 255


def _grid(side: int) -> tuple[Picture, Picture]:
    axis = np.arange(side, dtype=np.float32) + 0.5
    return axis[None, :] / side, axis[:, None] / side


def noise(rng: Rng, side: int) -> Picture:
    """Clouds to sand: many octaves whose fall-off is drawn."""
    return coloured(spectral_noise(rng, side, rng.uniform(0.4, 2.4)), palette(rng, int(rng.integers(2, 6))))


def marble(rng: Rng, side: int) -> Picture:
    """Waves bent by noise: marble, wood, zebra."""
    x, y = _grid(side)
    turns = rng.integers(1, 8, 2)
    warp = spectral_noise(rng, side, rng.uniform(1.6, 2.4)) * rng.uniform(0.5, 4)
    field = 0.5 + 0.5 * np.sin(2 * math.pi * (turns[0] * x + turns[1] * y + warp))
    return coloured(field, palette(rng, int(rng.integers(2, 5))))


def leaves(rng: Rng, side: int) -> Picture:
    """Dead leaves: discs, blocks and shards of a power law of sizes, one over the other."""
    canvas = _canvas(side, palette(rng, 1)[0])
    colours = palette(rng, 24)
    count = int(rng.integers(150, 700))
    radii = np.minimum(side / 3, (2 + 3 * rng.pareto(1.6, count)) * side / 256)
    centres = rng.uniform(0, side, (count, 2))
    kinds = rng.integers(0, 3, count) if rng.random() < 0.7 else np.full(count, rng.integers(0, 3))
    for radius, centre, kind in zip(radii, centres, kinds, strict=True):
        colour = _ink(colours[rng.integers(24)] * rng.uniform(0.6, 1.15))
        corners = rng.uniform(-1, 1, (5, 2)) * radius
        _stamp(canvas, centre, radius, int(kind), corners, colour)
    return _grained(rng, _unit(canvas), rng.uniform(0, 0.3))


def _stamp(
    canvas: Picture, centre: Picture, radius: float, kind: int, corners: Picture, colour: list[float]
) -> None:
    """One leaf, also where it wraps around the borders."""
    side = len(canvas)
    shifts = [
        [o for o in (-side, 0, side) if -radius < c + o < side + radius]
        for c in (float(centre[0]), float(centre[1]))
    ]
    for sx in shifts[0]:
        for sy in shifts[1]:
            x, y = centre[0] + sx, centre[1] + sy
            if kind == 0:
                cv2.circle(canvas, (int(x * 16), int(y * 16)), int(radius * 16), colour, -1, cv2.LINE_AA, 4)
            elif kind == 1:
                half = np.abs(corners[0]) + 1
                low, high = (x - half[0], y - half[1]), (x + half[0], y + half[1])
                cv2.rectangle(canvas, (int(low[0]), int(low[1])), (int(high[0]), int(high[1])), colour, -1)
            else:
                points = ((corners + np.array((x, y))) * 16).astype(np.int32)
                cv2.fillConvexPoly(canvas, cv2.convexHull(points), colour, cv2.LINE_AA, 4)


def bricks(rng: Rng, side: int) -> Picture:
    """Masonry, or square tiles where rows are not offset: every brick its own shade, mortar between."""
    x, y = _grid(side)
    rows = 2 * int(rng.integers(2, 9))
    columns = max(1, int(rows * rng.uniform(0.3, 1.2)))
    offset = rng.choice([0.0, 0.5])
    v = y * rows
    u = x * columns + offset * (np.floor(v) % 2)
    gap = rng.uniform(0.03, 0.12)
    du, dv = np.abs(u % 1 - 0.5) * 2, np.abs(v % 1 - 0.5) * 2
    joint = np.maximum((du - 1 + gap * columns / rows * 1.5), dv - 1 + gap + 0 * u)
    mask = np.clip(joint * side / rows / 4 + 0.5, 0, 1)[..., None]
    shade = rng.uniform(1 - rng.uniform(0, 0.6), 1, (rows, columns))
    colours = palette(rng, 4)[rng.integers(0, rng.integers(1, 5), (rows, columns))] * shade[..., None]
    brick = colours[(np.floor(v).astype(int) % rows) + 0 * u.astype(int), np.floor(u).astype(int) % columns]
    picture = brick * (1 - mask) + palette(rng, 1)[0] * mask
    return _grained(rng, picture.astype(np.float32), rng.uniform(0, 0.5))


def weave(rng: Rng, side: int) -> Picture:
    """Cloth: two threads over and under each other."""
    x, y = _grid(side)
    threads = 2 * int(rng.integers(4, 20))
    u, v = x * threads, y * threads
    over = (np.floor(u) + np.floor(v)) % 2
    warp, weft = np.sin(math.pi * (u % 1)), np.sin(math.pi * (v % 1))
    colours = palette(rng, 2)
    height = over * warp + (1 - over) * weft
    picture = np.where(over[..., None] > 0, colours[0], colours[1]) * (0.35 + 0.65 * height[..., None])
    return _grained(rng, picture.astype(np.float32), rng.uniform(0, 0.3))


def stripes(rng: Rng, side: int) -> Picture:
    """Bands of drawn widths, in one direction or crossing (plaid)."""
    x, y = _grid(side)
    edges = np.sort(rng.uniform(0, 1, rng.integers(3, 24)))
    colours = palette(rng, len(edges) + 1)
    colours[-1] = colours[0]
    picture = colours[np.searchsorted(edges, x[0])][None].repeat(side, axis=0)
    if rng.random() < 0.4:
        picture = (picture + colours[np.searchsorted(edges, y[:, 0])][:, None]) / 2
    return _grained(rng, picture.astype(np.float32), rng.uniform(0, 0.2))


def checks(rng: Rng, side: int) -> Picture:
    """A chess board, or dots on a grid: strictly periodic, all cells alike."""
    x, y = _grid(side)
    cells = 2 * int(rng.integers(2, 17))
    u, v = x * cells, y * cells
    if rng.random() < 0.5:
        field = (np.floor(u) + np.floor(v)) % 2
    else:
        distance = np.hypot(u % 1 - 0.5, v % 1 - 0.5)
        field = np.clip((rng.uniform(0.2, 0.45) - distance) * side / cells / 2 + 0.5, 0, 1)
    return coloured(field, palette(rng, 2))


def motif(rng: Rng, side: int) -> Picture:
    """One small picture repeated without any variation: wallpaper, carpet."""
    repeats = int(2 ** rng.integers(2, 5))
    small = PATTERNS[str(rng.choice(["noise", "leaves", "cells", "glyphs"]))](rng, max(32, side // repeats))
    small = cv2.resize(small, (side // repeats, side // repeats), interpolation=cv2.INTER_AREA)
    return np.tile(small, (repeats, repeats, 1))


def glyphs(rng: Rng, side: int) -> Picture:
    """Lines of text, or letters of all sizes scattered."""
    paper, *inks = palette(rng, 4)
    canvas = _canvas(side, paper)
    lines = rng.random() < 0.5
    size = rng.uniform(0.3, 0.9) * side / 256
    for index in range(int(14 / size * side / 256) if lines else int(rng.integers(20, 80))):
        count = int(rng.integers(12, 30)) if lines else 1
        text = "".join(rng.choice(list(LETTERS + "    " * (3 if lines else 0)), count))
        scale = size if lines else float(rng.uniform(0.3, 3.0)) * side / 256
        at = (2, int((index + 1) * 26 * size)) if lines else tuple(int(c) for c in rng.uniform(-10, side, 2))
        ink = _ink(inks[0 if lines else rng.integers(3)])
        thick = max(1, round(scale * rng.uniform(1, 2.5)))
        cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_DUPLEX, scale, ink, thick, cv2.LINE_AA)
    return _grained(rng, _unit(canvas), rng.uniform(0, 0.15))


def cells(rng: Rng, side: int) -> Picture:
    """Voronoi cells: pebbles, scales, cracked mud, stained glass."""
    count = int(rng.integers(12, 160))
    seeds = rng.integers(0, side, (count, 2))
    marks = np.full((side, side), 255, np.uint8)
    marks[seeds[:, 1], seeds[:, 0]] = 0
    wrapped = np.tile(marks, (2, 2))
    wrapped = np.roll(wrapped, (side // 2, side // 2), (0, 1))
    distance, labels = cv2.distanceTransformWithLabels(
        wrapped, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    # Copies of one seed have labels of their own: name each by where in the tile its seed lies.
    y, x = np.nonzero(wrapped == 0)
    names = np.zeros(int(labels.max()) + 1, np.int64)
    labels = np.asarray(labels).astype(np.int64)
    names[labels[y, x]] = (y - side // 2) % side * side + (x - side // 2) % side
    inner = slice(side // 2, side // 2 + side)
    distance, labels = np.asarray(distance)[inner, inner], labels[inner, inner]
    colours = palette(rng, 16)[names[labels] * 7919 % 16]
    shade = 1 - rng.uniform(0, 0.8) * np.clip(distance / (side / math.sqrt(count)), 0, 1)
    return _grained(rng, (colours * shade[..., None]).astype(np.float32), rng.uniform(0, 0.4))


def scratches(rng: Rng, side: int) -> Picture:
    """Thin bent lines: twigs, hair, cracks, wood fibre."""
    canvas = _canvas(side, palette(rng, 1)[0])
    colours = palette(rng, 8)
    direction, spread = rng.uniform(0, math.pi), rng.uniform(0.1, 1.6)
    for _ in range(int(rng.integers(40, 220))):
        angles = direction + spread * rng.normal() + np.cumsum(rng.normal(0, 0.25, 8))
        steps = np.stack((np.cos(angles), np.sin(angles)), axis=1) * side / 40
        points = np.cumsum(steps, axis=0) + rng.uniform(0, side, 2)
        colour = _ink(colours[rng.integers(8)])
        thick = int(rng.integers(1, 4))
        for shift in ((0, 0), (side, 0), (0, side), (-side, 0), (0, -side)):
            line = ((points + shift) * 16).astype(np.int32)
            cv2.polylines(canvas, [line], isClosed=False, color=colour, thickness=thick, lineType=16, shift=4)
    return _unit(canvas)


def gradient(rng: Rng, side: int) -> Picture:
    """A few smooth colours without detail."""
    return coloured(spectral_noise(rng, side, 3.2), palette(rng, int(rng.integers(2, 4))))


def plain(rng: Rng, side: int) -> Picture:
    """Nearly untextured: one colour, hardly any grain."""
    canvas = np.empty((side, side, 3), np.float32)
    canvas[:] = palette(rng, 1)[0]
    return _grained(rng, canvas, float(10 ** rng.uniform(-2.5, -1.2)))


PATTERNS: dict[str, Callable[[Rng, int], Picture]] = {
    "noise": noise,
    "marble": marble,
    "leaves": leaves,
    "bricks": bricks,
    "weave": weave,
    "stripes": stripes,
    "checks": checks,
    "motif": motif,
    "glyphs": glyphs,
    "cells": cells,
    "scratches": scratches,
    "gradient": gradient,
    "plain": plain,
}


def photo(rng: Rng, side: int, files: tuple[Path, ...]) -> Picture:
    """A square cut from one of the user's photographs, mirrored so that it wraps."""
    path = files[rng.integers(len(files))]
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{path} could not be read as an image: remove it from the folder of photographs")
    half = side // 2
    scale = max(half / min(image.shape[:2]), float(rng.uniform(0.25, 1.0)))
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    top = int(rng.integers(max(1, image.shape[0] - half)))
    left = int(rng.integers(max(1, image.shape[1] - half)))
    cut = cv2.resize(image[top : top + half, left : left + half, ::-1], (half, half)).astype(np.float32) / 255
    row = np.concatenate((cut, cut[:, ::-1]), axis=1)
    return np.concatenate((row, row[::-1]), axis=0)


def photographs(folder: Path) -> tuple[Path, ...]:
    """The images of a folder, sorted."""
    found = [p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png")]
    if not found:
        raise ValueError(f"{folder} holds no .jpg or .png photographs: name a folder that does")
    return tuple(sorted(found))
