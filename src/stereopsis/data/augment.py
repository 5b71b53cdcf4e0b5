"""What training does to a pair before the network sees it: zoom, crop, mirror, colours, erased patches.

Every function takes a sample of one pair (no leading axes) and draws from the generator that it is given.
Camera effects are those of `stereopsis.imaging`, the same as the renderer's.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stereopsis import geometry, imaging
from stereopsis.structures import StereoPair, StereoSample, luma


@dataclass
class Augmentation:
    """How strong and how often; everything is off by default. (Also the settings' node `data.augment`.)"""

    scale: list[float] = field(default_factory=lambda: [0.0, 0.0])
    """Range of log2 of the zoom."""
    scale_probability: float = 1.0
    """Else only as much as the crop needs."""
    stretch: float = 0.0
    """Largest |log2| of a further zoom of each axis on its own."""
    stretch_probability: float = 0.8
    flip: float = 0.0
    """Probability of mirroring the pair and swapping its views (needs the right view's truth)."""
    vertical_flip: float = 0.0
    vertical_jitter: int = 0
    """Largest vertical shift of the right image, in pixels."""
    misalign: float = 0.0
    """Probability of a right camera rolled by `misalign_turn` and displaced by `misalign_shift` at most."""
    misalign_turn: float = 0.0
    """In degrees, about a random point."""
    misalign_shift: float = 0.0
    """In rows of the image before its zoom."""
    brightness: float = 0.0
    """Factors are drawn from 1 - brightness to 1 + brightness; likewise contrast."""
    exposure: list[float] = field(default_factory=lambda: [1.0, 1.0])
    """Range of a further factor on each image."""
    contrast: float = 0.0
    saturation: list[float] = field(default_factory=lambda: [1.0, 1.0])
    hue: float = 0.0
    """Largest turn of the colours, as a share of the full circle."""
    gamma: list[float] = field(default_factory=lambda: [1.0, 1.0])
    asymmetric: float = 0.0
    """Probability that the two images draw their colours independently."""
    erase: float = 0.0
    """Probability of covering rectangles of the right image with its mean colour."""
    erase_size: list[int] = field(default_factory=lambda: [50, 100])
    """Sides of these rectangles, in pixels, the last excluded."""
    erase_count: list[int] = field(default_factory=lambda: [1, 2])
    """How many there are at least and at most."""
    erase_last: bool = False
    """Whether they lie about points of the crop, in its pixels, not anywhere in the image before its zoom."""
    pad: bool = False
    """Whether pairs zoomed to less than the crop are filled up, black and without truth above and on the
    right, not zoomed until they fit."""
    gray: float = 0.0
    sharpen: float = 0.0
    """Largest amount of unsharp masking after the zoom: what is enlarged, or rendered, is smoother than
    photographs are."""
    noise: float = 0.0
    """Largest standard deviation, in shares of white, of sensor noise after the zoom: what is enlarged has
    none of a pixel's size."""
    camera: float = 0.0
    """Probability of camera effects (noise, blur, exposure, JPEG, ...)."""


def augment(
    sample: StereoSample,
    settings: Augmentation,
    *,
    crop: tuple[int, int] | None,
    rng: np.random.Generator,
    clean: bool = False,
) -> StereoSample:
    """The sample as training sees it: colours, erased patches, zoom and crop, flips, what comes last.

    What the crop leaves out is cut away first: colours and zoom work on the window that it shows.
    clean: whether the sample also holds the same window as it was, rows in line (`StereoSample.clean`).
    """
    factors = _draw_zoom(sample, settings, crop, rng)
    jitter = int(rng.integers(-settings.vertical_jitter, settings.vertical_jitter + 1))
    window, shown = _draw_window(sample.pair.size, factors, crop, jitter, rng, pad=settings.pad)
    seen = cut(sample, window)
    if clean:
        seen = dataclasses.replace(seen, clean=seen.pair)
    pair = _colour(seen.pair, settings, rng)
    if not settings.erase_last:
        pair = _erase(pair, settings, sample.pair.size, window, rng)
    seen = zoom(dataclasses.replace(seen, pair=pair), shown[1] / window.width, shown[0] / window.height)
    if crop is not None:
        seen = _staggered(seen, min(crop[0], seen.pair.size[0]), jitter)
    if rng.random() < settings.flip:
        seen = mirror(seen)
    if rng.random() < settings.vertical_flip:
        seen = turn_over(seen)
    pair = _misalign(seen.pair, settings, sample.pair.size, window, factors, rng)
    if settings.sharpen:
        pair = _sharpen(pair, settings, rng)
    if settings.noise:
        pair = _add_noise(pair, settings, rng)
    if settings.erase_last:
        pair = _erase(pair, settings, pair.size, Window(0, 0, *pair.size), rng)
    seen = dataclasses.replace(seen, pair=pair)
    return seen if crop is None else _filled_up(seen, crop)


class Window(NamedTuple):
    """Rows and columns of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def _draw_window(
    size: tuple[int, int],
    factors: tuple[float, float],
    crop: tuple[int, int] | None,
    jitter: int,
    rng: np.random.Generator,
    *,
    pad: bool,
) -> tuple[Window, tuple[int, int]]:
    """What the crop shows, and the (height, width) that it is zoomed to.

    It is as many rows taller than the crop as the right image's is shifted, where these are there.
    factors: zoom of width and height. Raises ValueError where the zoomed image is smaller than the crop and
    is not to be filled up.
    """
    zoomed = max(1, round(size[0] * factors[1])), max(1, round(size[1] * factors[0]))
    if crop is None:
        return Window(0, 0, *size), zoomed
    if not pad and (zoomed[0] < crop[0] or zoomed[1] < crop[1]):
        raise ValueError(
            f"a crop of {crop[1]}x{crop[0]} does not fit into an image of {zoomed[1]}x{zoomed[0]}: "
            f"choose a smaller data.crop"
        )
    shown = min(crop[0] + abs(jitter), zoomed[0]), min(crop[1], zoomed[1])
    height = min(size[0], max(1, round(shown[0] / factors[1])))
    width = min(size[1], max(1, round(shown[1] / factors[0])))
    top = int(rng.integers(0, size[0] - height + 1))
    left = int(rng.integers(0, size[1] - width + 1))
    return Window(top, left, height, width), shown


def cut(sample: StereoSample, window: Window) -> StereoSample:
    """Rows and columns of both images, of the truth and of the calibration."""
    rows = slice(window.top, window.top + window.height)
    columns = slice(window.left, window.left + window.width)
    info = tuple(
        dataclasses.replace(i, calibration=i.calibration and i.calibration.cropped(*window))
        for i in sample.info
    )
    return dataclasses.replace(sample.map(lambda x: x[..., rows, columns].contiguous()), info=info)


def _staggered(sample: StereoSample, height: int, jitter: int) -> StereoSample:
    """`height` rows of a sample with up to |jitter| to spare, the right image's `jitter` lower."""
    spare, width = sample.pair.size[0] - height, sample.pair.size[1]
    left, right = (0, spare) if jitter >= 0 else (spare, 0)
    lower = sample.pair.right[..., right : right + height, :].contiguous()
    chosen = cut(sample, Window(left, 0, height, width))
    return dataclasses.replace(chosen, pair=StereoPair(chosen.pair.left, lower))


def zoom(sample: StereoSample, horizontal: float, vertical: float) -> StereoSample:
    """Images, truth and calibration resized; disparity grows with the width.

    Truth is interpolated inside surfaces and taken from the nearest pixel at their edges, so that no
    disparity appears that no surface has.
    """
    height, width = sample.pair.size
    size = (max(1, round(height * vertical)), max(1, round(width * horizontal)))
    if size == (height, width):
        return sample
    sx, sy = size[1] / width, size[0] / height

    def image(x: Tensor) -> Tensor:
        return F.interpolate(x[None], size, mode="bilinear", antialias=sx < 1 or sy < 1)[0].clamp(0, 1)

    def mask(x: Tensor) -> Tensor:
        return F.interpolate(x[None, None].float(), size, mode="nearest-exact")[0, 0] > 0.5

    def weight(x: Tensor) -> Tensor:
        return F.interpolate(x[None, None], size, mode="nearest-exact")[0, 0]

    info = tuple(
        dataclasses.replace(i, calibration=i.calibration and i.calibration.scaled(sx, sy))
        for i in sample.info
    )
    right = sample.disparity_right
    if right is not None:
        right = torch.where(mask(right.isfinite()), _resize_disparity(right, size) * sx, math.inf)
    return StereoSample(
        pair=sample.pair.map(image),
        disparity=_resize_disparity(sample.disparity, size) * sx,
        valid=mask(sample.valid),
        occluded=None if sample.occluded is None else mask(sample.occluded),
        disparity_right=right,
        weight=None if sample.weight is None else weight(sample.weight),
        clean=sample.clean and sample.clean.map(image),
        info=info,
    )


def _resize_disparity(disparity: Float[Tensor, "h w"], size: tuple[int, int]) -> Float[Tensor, "hz wz"]:
    finite = torch.where(disparity.isfinite(), disparity, 0.0)[None, None]
    nearest = F.interpolate(finite, size, mode="nearest-exact")
    smooth = F.interpolate(finite, size, mode="bilinear", align_corners=False)
    return torch.where((smooth - nearest).abs() < 0.5, smooth, nearest)[0, 0]


def mirror(sample: StereoSample) -> StereoSample:
    """The pair seen in a mirror: views swap, and the right view's truth becomes the left's, all alike.

    Raises ValueError where the right view's truth is not known.
    """
    if sample.disparity_right is None:
        raise ValueError("mirroring a pair needs the right view's truth: set data.augment.flip to 0")
    flipped = sample.map(lambda x: x.flip(-1))
    right = flipped.disparity_right
    assert right is not None
    known = right.isfinite() & (right >= 0)
    occluded = geometry.occlusion(right, flipped.disparity)
    info = tuple(dataclasses.replace(i, calibration=None) for i in sample.info)
    return StereoSample(
        pair=_exchanged(flipped.pair),
        disparity=torch.where(known, right, 0.0),
        valid=known,
        occluded=None if sample.occluded is None else occluded,
        disparity_right=torch.where(flipped.valid, flipped.disparity, math.inf),
        clean=flipped.clean and _exchanged(flipped.clean),
        info=info,
    )


def _exchanged(pair: StereoPair) -> StereoPair:
    return StereoPair(pair.right, pair.left)


def turn_over(sample: StereoSample) -> StereoSample:
    """The pair upside down."""
    info = tuple(dataclasses.replace(i, calibration=None) for i in sample.info)
    return dataclasses.replace(sample.map(lambda x: x.flip(-2)), info=info)


def _draw_zoom(
    sample: StereoSample,
    settings: Augmentation,
    crop: tuple[int, int] | None,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Factors of width and height, at least such that the crop fits."""
    both = 2 ** rng.uniform(settings.scale[0], settings.scale[1])
    if settings.scale_probability < 1 and rng.random() >= settings.scale_probability:
        both = 1.0
    stretched = rng.random() < settings.stretch_probability
    factors = [both * 2 ** (rng.uniform(-1, 1) * settings.stretch * stretched) for _ in range(2)]
    if crop is None or settings.pad or not (any(settings.scale) or settings.stretch):
        return factors[0], factors[1]
    height, width = sample.pair.size
    return max(factors[0], crop[1] / width), max(factors[1], crop[0] / height)


def _colour(pair: StereoPair, settings: Augmentation, rng: np.random.Generator) -> StereoPair:
    shared = rng.random() >= settings.asymmetric
    seed = int(rng.integers(2**63))
    seeds = (seed, seed if shared else int(rng.integers(2**63)))
    left, right = (
        _jitter(image, settings, np.random.default_rng(s))
        for image, s in zip((pair.left, pair.right), seeds, strict=True)
    )
    if rng.random() < settings.camera:
        effects = imaging.draw_effects(rng, imaging.EffectRanges(), width=pair.size[1])
        left, right = imaging.apply_effects(left, effects[0]), imaging.apply_effects(right, effects[1])
    if rng.random() < settings.gray:
        left, right = imaging.to_gray(left), imaging.to_gray(right)
    return StereoPair(left, right)


def _sharpen(pair: StereoPair, settings: Augmentation, rng: np.random.Generator) -> StereoPair:
    """Both images alike unless their colours may differ, too."""
    draws = [(rng.uniform(0.6, 1.4), rng.uniform(0, settings.sharpen)) for _ in range(2)]
    second = draws[1 if rng.random() < settings.asymmetric else 0]
    return StereoPair(imaging.sharpen(pair.left, *draws[0]), imaging.sharpen(pair.right, *second))


def _add_noise(pair: StereoPair, settings: Augmentation, rng: np.random.Generator) -> StereoPair:
    """As strong in both images: a part that grows with the light and one that does not; mostly weak."""
    deviation, share = settings.noise * rng.random() ** 2, rng.random()
    shot, read = share * deviation**2, math.sqrt(1 - share) * deviation
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    return pair.map(lambda image: imaging.add_noise(image, shot=shot, read=read, generator=generator))


def _jitter(
    image: Float[Tensor, "3 h w"], settings: Augmentation, rng: np.random.Generator
) -> Float[Tensor, "3 h w"]:
    brightness = 1 + rng.uniform(-1, 1) * settings.brightness
    contrast = 1 + rng.uniform(-1, 1) * settings.contrast
    saturation = rng.uniform(settings.saturation[0], settings.saturation[1])
    hue = rng.uniform(-1, 1) * settings.hue
    gamma = rng.uniform(settings.gamma[0], settings.gamma[1])
    if settings.brightness:
        image = imaging.expose(image, math.log2(max(brightness, 1e-3)))
    darkest, lightest = settings.exposure
    if darkest != 1 or lightest != 1:
        image = imaging.expose(image, math.log2(rng.uniform(darkest, lightest)))
    if settings.contrast:
        pivot = float(luma(image).mean())
        image = imaging.adjust_contrast(image, contrast, pivot=pivot)
    if saturation != 1:
        image = imaging.adjust_saturation(image, saturation)
    if settings.hue:
        image = imaging.adjust_hue(image, hue)
    return imaging.apply_gamma(image, gamma) if gamma != 1 else image


def _erase(
    pair: StereoPair,
    settings: Augmentation,
    size: tuple[int, int],
    window: Window,
    rng: np.random.Generator,
) -> StereoPair:
    """Rectangles of the right image in its mean colour: what only the left camera sees.

    They begin anywhere in the image of `size` of which `pair` is the window; those that come last lie about
    such points.
    """
    if rng.random() >= settings.erase:
        return pair
    right = pair.right.clone()
    colour = right.mean((-2, -1), keepdim=True)
    fewest, most = settings.erase_count
    for _ in range(int(rng.integers(fewest, most + 1))):
        top, left = int(rng.integers(size[0])) - window.top, int(rng.integers(size[1])) - window.left
        rows, columns = (int(side) for side in rng.integers(*settings.erase_size, size=2))
        if settings.erase_last:
            top, left = top - rows // 2, left - columns // 2
        right[:, max(0, top) : max(0, top + rows), max(0, left) : max(0, left + columns)] = colour
    return StereoPair(pair.left, right)


def _misalign(
    pair: StereoPair,
    settings: Augmentation,
    size: tuple[int, int],
    window: Window,
    factors: tuple[float, float],
    rng: np.random.Generator,
) -> StereoPair:
    """The right image as of a camera that is rolled and too high or too low.

    It rolls about any point of the image of `size`, of which the pair shows the window, zoomed by factors.
    """
    if not settings.misalign or rng.random() >= settings.misalign:
        return pair
    turn = math.radians(rng.uniform(-1, 1) * settings.misalign_turn)
    shift = rng.uniform(-1, 1) * settings.misalign_shift
    y, x = rng.uniform(0, size[0]) - window.top, rng.uniform(0, size[1]) - window.left
    about = (x * factors[0], y * factors[1])
    return StereoPair(
        pair.left, imaging.misalign(pair.right, shift=shift * factors[1], rotation=turn, about=about)
    )


def _filled_up(sample: StereoSample, size: tuple[int, int]) -> StereoSample:
    """Black rows above and columns on the right, without truth, up to `size`."""
    height, width = sample.pair.size
    top, right = size[0] - height, size[1] - width
    if not top and not right:
        return sample
    info = tuple(
        dataclasses.replace(i, calibration=i.calibration and i.calibration.padded(top, 0, 0, right))
        for i in sample.info
    )
    filled = sample.map(lambda x: F.pad(x, (0, right, top, 0)))
    other = sample.disparity_right
    if other is not None:
        other = F.pad(other, (0, right, top, 0), value=math.inf)
    return dataclasses.replace(filled, disparity_right=other, info=info)
