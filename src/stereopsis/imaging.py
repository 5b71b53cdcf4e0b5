"""What a camera does to light: exposure, white balance, vignetting, blur, noise, gamma, JPEG, a skewed mount.

Pure functions of images [*b c h w] in [0, 1]; training on real pairs and the renderer use the same ones.
`CameraEffects` holds the parameters of one camera, `apply_effects` puts them in their physical order
(mount, lens, sensor, processing), `draw_effects` draws the two cameras of a pair.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stereopsis.structures import luma

Image = Float[Tensor, "*b c h w"]


def expose(image: Image, stops: float) -> Image:
    """The image with 2^stops times the light, clipped at white."""
    return (image * 2.0**stops).clamp(0, 1)


def apply_gamma(image: Image, gamma: float) -> Image:
    """image^gamma: below 1 brightens the shadows, above 1 darkens them."""
    return image.clamp(0, 1) ** gamma


def balance_white(image: Float[Tensor, "*b 3 h w"], gains: tuple[float, float, float]) -> Image:
    """Each colour channel times its gain, clipped at white."""
    return (image * image.new_tensor(gains)[:, None, None]).clamp(0, 1)


def adjust_contrast(image: Image, factor: float, *, pivot: float = 0.5) -> Image:
    """Distances from `pivot` times `factor`."""
    return ((image - pivot) * factor + pivot).clamp(0, 1)


def adjust_saturation(image: Float[Tensor, "*b 3 h w"], factor: float) -> Image:
    """Distances from gray times `factor`: 0 is gray, 1 the image itself."""
    gray = luma(image)
    return (gray + (image - gray) * factor).clamp(0, 1)


def adjust_hue(image: Float[Tensor, "*b 3 h w"], turn: float) -> Image:
    """Colours turned about the gray axis by `turn` of a full circle (-0.5..0.5)."""
    angle = 2 * math.pi * turn
    cosine, sine = math.cos(angle), math.sin(angle) / math.sqrt(3)
    rest = (1 - cosine) / 3
    matrix = image.new_tensor(
        [
            [cosine + rest, rest - sine, rest + sine],
            [rest + sine, cosine + rest, rest - sine],
            [rest - sine, rest + sine, cosine + rest],
        ]
    )
    return torch.einsum("ij,...jhw->...ihw", matrix, image).clamp(0, 1)


def to_gray(image: Float[Tensor, "*b 3 h w"]) -> Image:
    """The luma in all three channels."""
    return luma(image).expand_as(image).contiguous()


def vignette(image: Image, strength: float) -> Image:
    """Darkened towards the corners, which keep `1 - strength` of their light (the cos^4 law's first term)."""
    height, width = image.shape[-2:]
    y = torch.linspace(-1, 1, height, dtype=image.dtype, device=image.device)[:, None]
    x = torch.linspace(-1, 1, width, dtype=image.dtype, device=image.device)
    return image * (1 - strength * (x * x + y * y) / 2)


def blur(image: Image, sigma: float) -> Image:
    """A Gaussian of `sigma` pixels; borders are repeated."""
    radius = max(1, math.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    return _filtered(image, lambda plane: cv2.sepFilter2D(plane, -1, kernel, kernel, borderType=_REPEATED))


def sharpen(image: Image, sigma: float, amount: float) -> Image:
    """Unsharp masking, as most cameras do it: what a Gaussian of `sigma` pixels takes away, added again."""
    return (image + amount * (image - blur(image, sigma))).clamp(0, 1)


def defocus(image: Image, radius: float) -> Image:
    """A disc of `radius` pixels with a soft rim: the image of a point out of focus."""
    reach = math.ceil(radius)
    offsets = np.arange(-reach, reach + 1)
    distance = np.hypot(offsets[:, None], offsets)
    return _convolve(image, (radius + 0.5 - distance).clip(0, 1))


def motion_blur(image: Image, length: float, angle: float) -> Image:
    """A streak of `length` pixels at `angle` radians: the camera moved while the shutter was open."""
    reach = max(1, math.ceil(length / 2))
    offsets = np.arange(-reach, reach + 1)
    along = offsets * math.cos(angle) + offsets[:, None] * math.sin(angle)
    across = -offsets * math.sin(angle) + offsets[:, None] * math.cos(angle)
    return _convolve(image, (1 - abs(across)).clip(min=0) * (length / 2 + 0.5 - abs(along)).clip(0, 1))


_REPEATED = cv2.BORDER_REPLICATE


def _convolve(image: Image, kernel: np.ndarray) -> Image:
    """The same kernel, of odd sides and scaled to a sum of 1, on every channel; borders repeated."""
    kernel = kernel / kernel.sum()
    return _filtered(image, lambda plane: cv2.filter2D(plane, -1, kernel, borderType=_REPEATED))


def _filtered(image: Image, filter_plane: Callable[[np.ndarray], np.ndarray]) -> Image:
    """Every channel through OpenCV, whose small filters take a tenth of a grouped convolution's time."""
    planes = image.detach().reshape(-1, *image.shape[-2:]).float().cpu().numpy()
    filtered = np.stack([filter_plane(plane) for plane in planes])
    return torch.from_numpy(filtered).reshape(image.shape).to(image)


def add_noise(image: Image, *, shot: float, read: float, generator: torch.Generator) -> Image:
    """Sensor noise: variance `shot * image + read^2`. Drawn on the CPU, the same for every device."""
    noise = torch.randn(image.shape, generator=generator).to(image)
    return (image + noise * torch.sqrt(shot * image.clamp(0, 1) + read * read)).clamp(0, 1)


def quantise(image: Image, levels: int = 256) -> Image:
    """Rounded to `levels` steps, as files of images hold them."""
    return torch.round(image.clamp(0, 1) * (levels - 1)) / (levels - 1)


def jpeg(image: Float[Tensor, "*b 3 h w"], quality: int) -> Image:
    """The image after JPEG of `quality` (1..100), 4:2:0."""
    *batch, _, height, width = image.shape
    flat = (image.reshape(-1, 3, height, width).clamp(0, 1) * 255).round().byte().cpu()
    decoded = []
    for frame in flat.permute(0, 2, 3, 1).contiguous().numpy():
        _, code = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded.append(np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR))[..., ::-1].transpose(2, 0, 1))
    stacked = torch.from_numpy(np.ascontiguousarray(np.stack(decoded))).to(image.device)
    return stacked.reshape(*batch, 3, height, width).to(image.dtype) / 255


def misalign(
    image: Image, *, shift: float = 0.0, rotation: float = 0.0, about: tuple[float, float] | None = None
) -> Image:
    """A camera mounted `shift` pixels too high and rolled by `rotation` radians.

    about: the point (x, y) in pixels, inside the image or not; the image's centre where it is not given.
    What was at (x, y) appears at about (x, y + shift). Bicubic, borders repeated.
    """
    *batch, height, width = image.shape
    cosine, sine = math.cos(rotation), math.sin(rotation)
    middle = (width - 1) / 2, (height - 1) / 2
    right, down = (0.0, 0.0) if about is None else (about[0] - middle[0], about[1] - middle[1])
    y = torch.arange(height, dtype=image.dtype, device=image.device)[:, None] - middle[1] - shift - down
    x = torch.arange(width, dtype=image.dtype, device=image.device)[None, :] - middle[0] - right
    columns, rows = cosine * x + sine * y + right, cosine * y - sine * x + down
    grid = torch.stack((columns * (2 / width), rows * (2 / height)), dim=-1)
    planes = image.reshape(1, -1, height, width)
    moved = F.grid_sample(planes, grid[None], mode="bicubic", padding_mode="border", align_corners=False)
    return moved.reshape(*batch, height, width).clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class CameraEffects:
    """What one camera does; the defaults do nothing.

    shift, rotation: pixels and radians of a skewed mount; vignetting: light lost in the corners;
    blur, defocus: Gaussian sigma and disc radius in pixels; motion: length in pixels and angle in
    radians; exposure: stops; white_balance: gains; shot, read: see `add_noise`; gamma: exponent;
    contrast, saturation: factors; hue: turns; gray: one colour; jpeg: quality or None; seed: of the noise.
    """

    shift: float = 0.0
    rotation: float = 0.0
    vignetting: float = 0.0
    blur: float = 0.0
    defocus: float = 0.0
    motion: tuple[float, float] = (0.0, 0.0)
    exposure: float = 0.0
    white_balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    shot: float = 0.0
    read: float = 0.0
    gamma: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    gray: bool = False
    jpeg: int | None = None
    seed: int = 0

    @property
    def names(self) -> frozenset[str]:
        """The effects that do something."""
        changed = {f.name for f in dataclasses.fields(self) if getattr(self, f.name) != f.default}
        return frozenset(changed - {"seed"})


def apply_effects(image: Float[Tensor, "*b 3 h w"], effects: CameraEffects) -> Image:
    """The image as the camera delivers it: mount, lens, sensor, processing, file."""
    active = effects.names
    if active & {"shift", "rotation"}:
        image = misalign(image, shift=effects.shift, rotation=effects.rotation)
    if effects.defocus > 0.5:
        image = defocus(image, effects.defocus)
    if effects.blur > 0.1:
        image = blur(image, effects.blur)
    if effects.motion[0] > 1:
        image = motion_blur(image, *effects.motion)
    if "vignetting" in active:
        image = vignette(image, effects.vignetting)
    if "exposure" in active:
        image = expose(image, effects.exposure)
    if active & {"shot", "read"}:
        generator = torch.Generator().manual_seed(effects.seed)
        image = add_noise(image, shot=effects.shot, read=effects.read, generator=generator)
    return _develop(image, effects)


def _develop(image: Float[Tensor, "*b 3 h w"], effects: CameraEffects) -> Image:
    """From the sensor's values to the file's."""
    active = effects.names
    if "white_balance" in active:
        image = balance_white(image, effects.white_balance)
    if "gamma" in active:
        image = apply_gamma(image, effects.gamma)
    if "contrast" in active:
        image = adjust_contrast(image, effects.contrast)
    if "hue" in active:
        image = adjust_hue(image, effects.hue)
    if "saturation" in active:
        image = adjust_saturation(image, effects.saturation)
    if effects.gray:
        image = to_gray(image)
    return image if effects.jpeg is None else jpeg(image, effects.jpeg)


@dataclass(frozen=True, kw_only=True)
class EffectRanges:
    """How strong effects get and how often they occur.

    Each `*_chance` is the probability of an effect in a pair; `asymmetric` is the probability that an
    effect that occurs is drawn anew for the right camera. Shift (pixels) and rotation (pixels at the
    image's left and right border) are of the right camera alone.
    """

    asymmetric: float = 0.4
    exposure: float = 0.5
    exposure_chance: float = 0.5
    gamma: float = 0.3
    gamma_chance: float = 0.4
    white_balance: float = 0.12
    white_balance_chance: float = 0.4
    vignetting: float = 0.5
    vignetting_chance: float = 0.3
    blur: float = 0.9
    blur_chance: float = 0.3
    defocus: float = 2.0
    defocus_chance: float = 0.08
    motion: float = 5.0
    motion_chance: float = 0.08
    shot: float = 4e-4
    read: float = 0.02
    noise_chance: float = 0.6
    saturation: float = 0.5
    saturation_chance: float = 0.3
    gray_chance: float = 0.1
    jpeg: int = 60
    jpeg_chance: float = 0.25
    shift: float = 1.0
    shift_chance: float = 0.15
    rotation: float = 1.0
    rotation_chance: float = 0.12

    @classmethod
    def none(cls) -> EffectRanges:
        """Perfect cameras: nothing ever occurs."""
        chances = (f.name for f in dataclasses.fields(cls) if f.name.endswith("_chance"))
        return dataclasses.replace(cls(), **dict.fromkeys(chances, 0.0))


def draw_effects(
    rng: np.random.Generator, ranges: EffectRanges, *, width: int
) -> tuple[CameraEffects, CameraEffects]:
    """The effects of a pair's left and right camera, for images of `width` pixels."""
    occurring = _occurring(rng, ranges)
    left = _draw_camera(rng, ranges, occurring)
    other = _draw_camera(rng, ranges, occurring)
    own = {name: getattr(other, name) for name in sorted(left.names) if rng.random() < ranges.asymmetric}
    own.pop("gray", None)
    shift = rng.uniform(-ranges.shift, ranges.shift) if rng.random() < ranges.shift_chance else 0.0
    turn = rng.uniform(-ranges.rotation, ranges.rotation) if rng.random() < ranges.rotation_chance else 0.0
    right = dataclasses.replace(left, **own, seed=other.seed, shift=shift, rotation=turn / (width / 2))
    return left, right


def _occurring(rng: np.random.Generator, ranges: EffectRanges) -> dict[str, bool]:
    chances = [f.name for f in dataclasses.fields(ranges) if f.name.endswith("_chance")]
    return {name.removesuffix("_chance"): rng.random() < getattr(ranges, name) for name in chances}


def _draw_camera(rng: np.random.Generator, ranges: EffectRanges, occurring: dict[str, bool]) -> CameraEffects:
    """One camera's effects; draws the same count of numbers whatever occurs."""
    signed = {name: rng.uniform(-1, 1) for name in ("exposure", "gamma", "saturation")}
    share = {name: rng.uniform(0.1, 1) for name in ("vignetting", "blur", "defocus", "motion", "noise")}
    angle = rng.uniform(0, math.pi)
    gains = tuple(float(1 + ranges.white_balance * gain) for gain in rng.uniform(-1, 1, 3))
    quality = int(rng.integers(ranges.jpeg, 96))
    seed = int(rng.integers(2**31))
    on = occurring
    streak = 1.5 + (ranges.motion - 1.5) * share["motion"]
    return CameraEffects(
        exposure=ranges.exposure * signed["exposure"] if on["exposure"] else 0.0,
        gamma=math.exp(ranges.gamma * signed["gamma"]) if on["gamma"] else 1.0,
        saturation=1 + ranges.saturation * signed["saturation"] if on["saturation"] else 1.0,
        white_balance=(gains[0], gains[1], gains[2]) if on["white_balance"] else (1.0, 1.0, 1.0),
        vignetting=ranges.vignetting * share["vignetting"] if on["vignetting"] else 0.0,
        blur=0.3 + ranges.blur * share["blur"] if on["blur"] else 0.0,
        defocus=0.5 + (ranges.defocus - 0.5) * share["defocus"] if on["defocus"] else 0.0,
        motion=(streak, angle) if on["motion"] else (0.0, 0.0),
        shot=ranges.shot * share["noise"] if on["noise"] else 0.0,
        read=ranges.read * share["noise"] ** 2 if on["noise"] else 0.0,
        gray=on["gray"],
        jpeg=quality if on["jpeg"] else None,
        seed=seed,
    )
