"""The few types that everything speaks: a calibration, a pair, a sample with truth, an output.

Shapes are written with one alphabet: b batch, c channels, h w image, d disparities, k mixture or
iteration; `*b` is any number of leading axes, none included. Disparity is in pixels of the image
that it belongs to, on the left view, and positive: left (x, y) matches right (x - d, y).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

Record = TypeVar("Record", bound="TensorRecord")
Array = TypeVar("Array", Tensor, np.ndarray)


class TensorRecord:
    """What the frozen dataclasses of tensors share: moving, stacking and mapping over their tensors.

    Fields may be tensors, records, tuples of these, None, or anything else (left as it is).
    """

    def map(self: Record, function: Callable[[Tensor], Tensor]) -> Record:
        """The same record with `function` applied to every tensor in it."""
        fields = dataclasses.fields(cast(Any, self))
        changed = {f.name: _map_value(getattr(self, f.name), function) for f in fields if f.init}
        return dataclasses.replace(cast(Any, self), **changed)

    def to(self: Record, *args: Any, **kwargs: Any) -> Record:
        """The record with every tensor moved as by `Tensor.to`; a dtype changes floating tensors only."""

        def move(tensor: Tensor) -> Tensor:
            if tensor.is_floating_point():
                return tensor.to(*args, **kwargs)
            positional = [a for a in args if not isinstance(a, torch.dtype)]
            named = {name: value for name, value in kwargs.items() if name != "dtype"}
            return tensor.to(*positional, **named) if positional or named else tensor

        return self.map(move)

    def pin_memory(self: Record) -> Record:
        return self.map(Tensor.pin_memory)

    def detach(self: Record) -> Record:
        return self.map(Tensor.detach)

    @classmethod
    def stack(cls: type[Record], records: Sequence[Record]) -> Record:
        """One record with a new leading axis from records of equal shapes (DataLoader's `collate_fn`)."""
        return _combine(records, torch.stack)


def _map_value(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, TensorRecord):
        return value.map(function)
    if isinstance(value, tuple):
        return tuple(_map_value(item, function) for item in value)
    return value


def _combine(values: Sequence[Any], join: Callable[[list[Tensor]], Tensor]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return join(list(values))
    if isinstance(first, TensorRecord):
        names = [f.name for f in dataclasses.fields(cast(Any, first)) if f.init]
        joined = {name: _combine([getattr(value, name) for value in values], join) for name in names}
        return dataclasses.replace(cast(Any, first), **joined)
    if isinstance(first, SceneInfo):
        return tuple(values)
    if isinstance(first, tuple):
        if any(len(value) != len(first) for value in values):
            raise ValueError("records with tuples of different lengths cannot be stacked")
        if first and isinstance(first[0], SceneInfo):
            return tuple(info for value in values for info in value)
        return tuple(_combine(items, join) for items in zip(*values, strict=True))
    if any((value is None) != (first is None) for value in values):
        raise ValueError("a field is missing in some records and present in others: they cannot be stacked")
    return first


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A rectified pair's geometry, on the left image.

    focal, focal_y: pixels (`focal_y` is `focal` unless the image was stretched); cx, cy: principal
    point of the left camera in pixels, pixel centres at integers; baseline: metres; doffs:
    `cx_right - cx` in pixels; size: (height, width) of the image, where known.
    """

    focal: float
    baseline: float
    cx: float = 0.0
    cy: float = 0.0
    doffs: float = 0.0
    focal_y: float | None = None
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name in ("focal", "baseline"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"calibration: {name} must be a positive number, it is {value}")
        for name in ("cx", "cy", "doffs"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"calibration: {name} must be finite, it is {getattr(self, name)}")
        if self.focal_y is not None and not (math.isfinite(self.focal_y) and self.focal_y > 0):
            raise ValueError(f"calibration: focal_y must be a positive number, it is {self.focal_y}")

    def scaled(self, sx: float, sy: float | None = None) -> Calibration:
        """The calibration of the image resized by `sx` (and `sy`, else the same), edges kept on edges."""
        sy = sx if sy is None else sy
        vertical = (self.focal_y or self.focal) * sy
        horizontal = self.focal * sx
        size = self.size and (max(1, round(self.size[0] * sy)), max(1, round(self.size[1] * sx)))
        return dataclasses.replace(
            self,
            focal=horizontal,
            focal_y=None if math.isclose(vertical, horizontal, rel_tol=1e-12) else vertical,
            cx=(self.cx + 0.5) * sx - 0.5,
            cy=(self.cy + 0.5) * sy - 0.5,
            doffs=self.doffs * sx,
            size=size,
        )

    def cropped(self, top: int, left: int, height: int, width: int) -> Calibration:
        """The calibration of rows top.. and columns left.. of both images."""
        return dataclasses.replace(self, cx=self.cx - left, cy=self.cy - top, size=(height, width))

    def padded(self, top: int, left: int, bottom: int = 0, right: int = 0) -> Calibration:
        """The calibration of both images with rows and columns added on each side."""
        size = self.size and (self.size[0] + top + bottom, self.size[1] + left + right)
        return dataclasses.replace(self, cx=self.cx + left, cy=self.cy + top, size=size)

    def depth(self, disparity: Array) -> Array:
        """Metres from pixels: `focal * baseline / (disparity + doffs)`, infinite where the sum is <= 0.

        Unknown disparity (infinite or NaN) gives infinite depth too.
        """
        shifted = disparity + self.doffs
        where = np.where if isinstance(shifted, np.ndarray) else torch.where
        positive = (shifted > 0) & (shifted < math.inf)
        ones = np.ones_like(shifted) if isinstance(shifted, np.ndarray) else torch.ones_like(shifted)
        safe = cast(Any, where)(positive, shifted, ones)
        return cast(Any, where)(positive, self.focal * self.baseline / safe, ones * math.inf)

    def disparity(self, depth: Array) -> Array:
        """Pixels from metres: `focal * baseline / depth - doffs`; infinite depth gives `-doffs`."""
        return self.focal * self.baseline / depth - self.doffs

    def depth_uncertainty(self, disparity: Array, sigma: Array) -> Array:
        """Metres of one standard deviation of depth, from `sigma` pixels of disparity's."""
        depth = self.depth(disparity)
        return depth * depth / (self.focal * self.baseline) * sigma


@dataclass(frozen=True)
class StereoPair(TensorRecord):
    """Two rectified views, float32 RGB in [0, 1]."""

    left: Float[Tensor, "*b 3 h w"]
    right: Float[Tensor, "*b 3 h w"]

    def __post_init__(self) -> None:
        _check_same_size(self.left, self.right)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.left.shape[-2], self.left.shape[-1]

    @classmethod
    def open(cls, left: str | Path, right: str | Path) -> StereoPair:
        """A pair from two image files of equal size; errors name the file and what to do."""
        from stereopsis.io.images import read_image

        images = read_image(left), read_image(right)
        try:
            return cls.from_arrays(*images)
        except ValueError as error:
            raise ValueError(f"{left} and {right}: {error}") from error

    @classmethod
    def from_arrays(cls, left: np.ndarray | Tensor, right: np.ndarray | Tensor) -> StereoPair:
        """A pair from arrays ([h w] or [h w c]) or tensors ([h w] or [*b c h w]).

        c is 1 (gray), 3 (RGB) or 4 (alpha is dropped); uint8 and uint16 are divided by their range,
        floats are taken as [0, 1]. Raises ValueError on anything else, and where sizes differ.
        """
        images = _to_image(left, "left"), _to_image(right, "right")
        _check_same_size(*images)
        return cls(*images)


def _check_same_size(left: Tensor, right: Tensor) -> None:
    if left.shape != right.shape:
        sizes = [f"{image.shape[-1]}x{image.shape[-2]}" for image in (left, right)]
        raise ValueError(f"the two images must have the same size: left is {sizes[0]}, right is {sizes[1]}")


def _to_image(value: np.ndarray | Tensor, name: str) -> Tensor:
    """[*b 3 h w] float32 in [0, 1] from what `StereoPair.from_arrays` takes."""
    if isinstance(value, np.ndarray):
        native = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("="))
        image = torch.from_numpy(native.copy())
        image = image.movedim(-1, 0) if image.ndim == 3 else image
    else:
        image = value
    if image.ndim == 2:
        image = image[None]
    if image.ndim < 3 or image.shape[-3] not in (1, 3, 4):
        raise ValueError(
            f"the {name} image must be gray, RGB or RGBA (arrays [h w c], tensors [c h w]): "
            f"its shape is {tuple(value.shape)}"
        )
    if min(image.shape) == 0:
        raise ValueError(f"the {name} image is empty: its shape is {tuple(value.shape)}")
    if image.dtype == torch.uint8:
        image = image.float() / 255
    elif image.dtype == torch.uint16:
        image = image.float() / 65535
    elif image.is_floating_point():
        image = image.float()
        if not bool(torch.isfinite(image).all()):
            raise ValueError(f"the {name} image holds NaN or infinite values: replace them before matching")
        low, high = float(image.min()), float(image.max())
        if low < -0.5 or high > 1.5:  # more than resampling overshoots: another unit
            raise ValueError(f"the {name} image ranges from {low:g} to {high:g}: rescale floats to [0, 1]")
    else:
        raise ValueError(f"the {name} image must be uint8, uint16 or float in [0, 1]: it is {value.dtype}")
    image = image[..., :3, :, :]
    return image.expand(*image.shape[:-3], 3, *image.shape[-2:]).contiguous()


@dataclass(frozen=True)
class SceneInfo:
    """Where a sample comes from: its name, its data set, its geometry."""

    name: str = ""
    dataset: str = ""
    calibration: Calibration | None = None


@dataclass(frozen=True)
class StereoSample(TensorRecord):
    """A pair with its truth: what data sets, the renderer and labelling all yield.

    disparity: pixels of this image, left view, >= 0; 0 may be valid (sky). What would be negative or is
    unknown has `valid = False` (its disparity is then 0). occluded: seen by the left camera only;
    disparity_right: positive pixels on the right view, infinite where unknown; weight: how much each pixel
    counts in training, 0..1 (None: all alike); clean: the pair before augmentation changed its colours or
    rows (None: nobody asked for it); info: one SceneInfo per image.
    """

    pair: StereoPair
    disparity: Float[Tensor, "*b h w"]
    valid: Bool[Tensor, "*b h w"]
    occluded: Bool[Tensor, "*b h w"] | None = None
    disparity_right: Float[Tensor, "*b h w"] | None = None
    weight: Float[Tensor, "*b h w"] | None = None
    clean: StereoPair | None = None
    info: tuple[SceneInfo, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class StereoOutput(TensorRecord):
    """What a predictor says of a pair, at the full resolution of its left image.

    disparity: pixels; confidence: 0..1 (networks may leave it None, predictors always give it);
    right_disparity: pixels, positive, on the right view; occluded: seen by the left camera only.
    """

    disparity: Float[Tensor, "*b h w"]
    confidence: Float[Tensor, "*b h w"] | None = None
    right_disparity: Float[Tensor, "*b h w"] | None = None
    occluded: Bool[Tensor, "*b h w"] | None = None

    def cropped(self: Output, top: int, left: int, height: int, width: int) -> Output:
        """Rows top.. and columns left.. of every full-resolution map."""
        full = self.disparity.shape[-2:]

        def crop(tensor: Tensor) -> Tensor:
            if tensor.ndim < 2 or tensor.shape[-2:] != full:
                return tensor
            return tensor[..., top : top + height, left : left + width]

        return self.map(crop)

    def reshaped(self: Output, leading: Sequence[int]) -> Output:
        """The batch axis replaced by these leading axes (none: one pair's output)."""
        batch = self.disparity.shape[0]

        def reshape(tensor: Tensor) -> Tensor:
            if tensor.ndim < 3 or tensor.shape[0] != batch:
                return tensor
            return tensor.reshape(*leading, *tensor.shape[1:])

        return self.map(reshape)

    @classmethod
    def join(cls: type[Output], outputs: Sequence[Output]) -> Output:
        """One batch from several: what has no batch axis (a volume's levels) is the first's."""

        def join(tensors: list[Tensor]) -> Tensor:
            return tensors[0] if tensors[0].ndim < 3 else torch.cat(tensors)

        return outputs[0] if len(outputs) == 1 else _combine(outputs, join)


Output = TypeVar("Output", bound=StereoOutput)


@dataclass(frozen=True)
class VolumeOutput(StereoOutput):
    """Of a network that regresses from a volume.

    probabilities: over `levels` disparities, at the resolution of the volume (which need not be the
    image's); levels: the disparity, in full-resolution pixels, that each plane stands for; stages:
    the disparities that training supervises beside the last, first to last, at their own resolution;
    right_stages: the same of the right view, where the network gives it in training.
    """

    probabilities: Float[Tensor, "*b d hv wv"] | None = None
    levels: Float[Tensor, " d"] | None = None
    stages: tuple[Float[Tensor, "*b _ _"], ...] = ()
    right_stages: tuple[Float[Tensor, "*b _ _"], ...] = ()


@dataclass(frozen=True)
class IterativeOutput(StereoOutput):
    """Of a network that refines: iterates are its disparities in order, full resolution, the last included.

    In evaluation networks keep only what `convergence` needs: see each network. initial: the
    disparity before the first iteration, where the network regresses one, at full resolution;
    wider: those regressed over wider ranges beside it (IGEV++). Both serve the loss, in training only, as
    does vertical: the vertical displacements of the iterates, where the network searches them too.
    """

    iterates: tuple[Float[Tensor, "*b h w"], ...] = ()
    initial: Float[Tensor, "*b h w"] | None = None
    wider: tuple[Float[Tensor, "*b h w"], ...] = ()
    vertical: tuple[Float[Tensor, "*b h w"], ...] = ()


@dataclass(frozen=True)
class FusedOutput(IterativeOutput):
    """Of a network that fuses monocular and binocular sight: also the monocular branch's disparity."""

    monocular: Float[Tensor, "*b h w"] | None = None
    monocular_iterates: tuple[Float[Tensor, "*b h w"], ...] = ()


@dataclass(frozen=True)
class Mixture(TensorRecord):
    """Laplacian mixtures of k = 1 or 2 components at any points, everything in pixels.

    disparity: of the component with the highest peak; mu, b: location and scale of each; pi: weight of
    the first. A single component has no pi; a network that regresses has neither pi nor b.
    """

    disparity: Float[Tensor, "*s"]
    mu: Float[Tensor, "*s k"]
    pi: Float[Tensor, "*s"] | None = None
    b: Float[Tensor, "*s k"] | None = None


@runtime_checkable
class MixtureField(Protocol):
    """A mixture at every point of a pair's left image: what `MixtureOutput.query` asks."""

    @property
    def max_disparity(self) -> float:
        """In pixels of the pair: what the network cannot exceed."""
        ...

    def query(self, positions: Float[Tensor, "*b n 2"], *, scale: float | int) -> Mixture: ...

    def shifted(self, top: float, left: float) -> MixtureField: ...


@dataclass(frozen=True)
class MixtureOutput(StereoOutput):
    """Of a mixture-density network: a Laplacian mixture at each pixel of its own output grid.

    pi: weight of the first of two components (None for one); mu, b: location and scale of each
    (k = 2 or 1; b is None of a network that regresses). scale: pixels of this grid per pixel of the
    pair; disparities are in pixels of the grid. field: answers queries at any position.
    """

    pi: Float[Tensor, "*b h w"] | None = None
    mu: Float[Tensor, "*b k h w"] | None = None
    b: Float[Tensor, "*b k h w"] | None = None
    scale: float = 1.0
    field: MixtureField | None = None

    def query(self, positions: Float[Tensor, "*b n 2"], *, scale: float | int = 1) -> Mixture:
        """The mixtures at positions (x, y), in pixels of this grid enlarged by `scale`; so are disparities.

        Raises ValueError where the output no longer holds its field.
        """
        if self.field is None:
            raise ValueError("this output cannot be queried: it holds its grid only")
        return self.field.query(positions, scale=self.scale * scale)

    def select(self, index: int) -> MixtureOutput:
        """One pair of a batch, without the batch axis."""
        return self.map(lambda tensor: tensor[index])

    def cropped(self, top: int, left: int, height: int, width: int) -> MixtureOutput:
        grid = super(MixtureOutput, dataclasses.replace(self, field=None)).cropped(top, left, height, width)
        shifted = self.field and self.field.shifted(top / self.scale, left / self.scale)
        return dataclasses.replace(grid, field=shifted)


@dataclass(frozen=True)
class MatchingOutput(StereoOutput):
    """Of a network that matches the pixels of two rows by optimal transport.

    occlusion: probability of having no match, full resolution. In training also `matched`, the disparity
    (pixels) of the matched columns before their adjustment, and `transport`, the mass between left and
    right columns of a row, the last row and column being the dustbins. grid: (first, step) of the rows and
    columns that are matched.
    """

    occlusion: Float[Tensor, "*b h w"] | None = None
    matched: Float[Tensor, "*b hm wm"] | None = None
    transport: Float[Tensor, "*b hm wl wr"] | None = None
    grid: tuple[int, int] = (0, 1)


@dataclass(frozen=True)
class MonoOutput(TensorRecord):
    """Of a monocular network: relative inverse depth (larger is nearer), no unit, image resolution."""

    inverse_depth: Float[Tensor, "*b h w"]


@runtime_checkable
class Predictor(Protocol):
    """Anything that turns a pair into an output: a network, an exported file, SGBM, or a wrapper of these."""

    def __call__(self, pair: StereoPair) -> StereoOutput: ...


def luma(images: Float[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b 1 h w"]:
    """Gray by the weights of ITU-R 601 (0.299, 0.587, 0.114), for networks of one channel."""
    weights = images.new_tensor([0.299, 0.587, 0.114])
    return (images * weights[:, None, None]).sum(-3, keepdim=True)


Matrix3 = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True, kw_only=True)
class RawCalibration:
    """Two cameras before rectification, in OpenCV's conventions.

    left_matrix, right_matrix: intrinsics in pixels, pixel centres at integers; left_distortion,
    right_distortion: OpenCV's coefficients (k1, k2, p1, p2, k3, ...; of a fisheye lens k1..k4);
    rotation, translation (metres): a point X of the left camera is `rotation X + translation` in the
    right one; size: (height, width) of both images, where known; fisheye: OpenCV's fisheye model
    instead of the pinhole's.
    """

    left_matrix: Matrix3
    right_matrix: Matrix3
    left_distortion: tuple[float, ...]
    right_distortion: tuple[float, ...]
    rotation: Matrix3
    translation: tuple[float, float, float]
    size: tuple[int, int] | None = None
    fisheye: bool = False

    def __post_init__(self) -> None:
        for name in ("left_matrix", "right_matrix"):
            (fx, _, cx), (_, fy, cy), _ = getattr(self, name)
            if not (0 < fx < math.inf and 0 < fy < math.inf and math.isfinite(cx) and math.isfinite(cy)):
                raise ValueError(
                    f"raw calibration: {name} needs positive focal lengths and a principal point"
                )
        vectors = (self.left_distortion, self.right_distortion, self.translation, *self.rotation)
        if not all(math.isfinite(value) for vector in vectors for value in vector):
            raise ValueError("raw calibration: distortion, rotation and translation must be finite")
        if not any(self.translation):
            raise ValueError("raw calibration: the baseline is zero, the two cameras are at one place")
        gram = np.asarray(self.rotation) @ np.asarray(self.rotation).T
        if not np.allclose(gram, np.eye(3), atol=1e-3):
            raise ValueError("raw calibration: rotation is not a rotation matrix (rows not orthonormal)")
