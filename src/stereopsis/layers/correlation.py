"""All-pairs correlation along image rows, its pyramid, and lookups around a moving position (RAFT-Stereo).

A lookup samples, on every level l, the 2r + 1 positions `x / 2^l + k`, k = -r..r, by linear interpolation,
zero outside. These share one fraction, so 2r + 2 neighbouring values are gathered and blended in pairs,
all levels in one gather. The pyramid comes from pooled right features instead of pooled correlations,
which is the same by linearity and needs one product of matrices for all levels.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Storage = Literal["stored", "recomputed"]

_BLOCK_BYTES = 2**24
_FAR = 2.0**24
"""Beyond every column, and a whole number in float32."""


class Windows(NamedTuple):
    """Where a lookup reads: cells of the concatenated levels, which of them count, and the fraction."""

    cells: Int[Tensor, "..."]
    inside: Bool[Tensor, "..."]
    fraction: Float[Tensor, "..."]


class Levels:
    """A pyramid's levels, `width >> l` long, one after the other along the last axis, and windows there."""

    def __init__(self, width: int, levels: int, *, radius: int, device: torch.device) -> None:
        self.widths = [width // 2**level for level in range(levels)]
        if self.widths[-1] < 1:
            raise ValueError(
                f"a pyramid of {levels} levels needs a width of {2 ** (levels - 1)}, not {width}"
            )
        starts = [sum(self.widths[:level]) for level in range(levels)]
        self._scale = torch.tensor([[0.5**level] for level in range(levels)], device=device)
        self._last = _column([w - 1 for w in self.widths], device)
        self._start = _column(starts, device)
        self._steps = torch.arange(-radius, radius + 2, device=device)

    def windows(self, position: Float[Tensor, "b h w"]) -> Windows:
        """The windows around a position in pixels of the finest level: [b h w level step]."""
        scaled = position[..., None, None] * self._scale
        whole = scaled.floor()
        near = whole.nan_to_num(_FAR).clamp(-_FAR, _FAR)
        cells = near.long() + self._steps
        inside = (cells >= 0) & (cells <= self._last)
        cells = torch.minimum(cells.clamp(min=0), self._last) + self._start
        return Windows(cells, inside, scaled - whole)


def _column(values: list[int], device: torch.device) -> Int[Tensor, "l 1"]:
    """One by one, as in an export of any size a width is a symbol, which `torch.tensor` would freeze."""
    return torch.cat([torch.full((1, 1), value, device=device) for value in values])


def blend(samples: Tensor, inside: Tensor, fraction: Tensor) -> Tensor:
    """Linear interpolation between neighbours along the last axis, zero outside: one value less."""
    samples = samples * inside.to(samples.dtype)
    first, second = samples[..., :-1], samples[..., 1:]
    return first + fraction * (second - first)


def pooled_levels(x: Float[Tensor, "b c h w"], levels: int) -> Float[Tensor, "b c h wl"]:
    """The map beside its means of 2, 4, ... neighbours along the row; odd last ones are dropped."""
    pyramid = [x]
    for _ in range(levels - 1):
        pyramid.append(F.avg_pool2d(pyramid[-1], (1, 2)))
    return torch.cat(pyramid, -1)


class RowCorrelation:
    """`sum_c left[c, y, x] * right[c, y, x'] * scale` for all x', its pyramid, and lookups, in float32.

    storage: "stored" keeps the whole volume, h * w * (w + w/2 + ...) values; "recomputed" keeps only the
    features and forms the products of a few rows at a time in every lookup, with the same values.
    """

    def __init__(
        self,
        left: Float[Tensor, "b c h w"],
        right: Float[Tensor, "b c h w"],
        *,
        levels: int,
        radius: int,
        scale: float = 1.0,
        storage: Storage = "stored",
    ) -> None:
        self._levels = Levels(left.shape[-1], levels, radius=radius, device=left.device)
        features = _Features(left.float(), right.float(), levels, scale)
        self.volume = features.all_products() if storage == "stored" else None
        self._features = features if storage == "recomputed" else None

    def __call__(self, position: Float[Tensor, "b h w"]) -> Float[Tensor, "b k h w"]:
        """The windows around `position` (a column of the right image), channels level by level."""
        if self.volume is not None:
            return _look_up(self.volume, self._levels.windows(position)).permute(0, 3, 1, 2)
        assert self._features is not None
        left, right = self._features.left, self._features.right
        learning = torch.is_grad_enabled() and (left.requires_grad or right.requires_grad)
        blocks = []
        for rows in self._features.blocks():
            if learning:  # the products are formed once more for the gradients
                block = checkpoint(self._recomputed, position[:, rows], rows, use_reentrant=False)
                assert isinstance(block, Tensor)
            else:
                block = self._recomputed(position[:, rows], rows)
            blocks.append(block)
        return torch.cat(blocks, 1).permute(0, 3, 1, 2)

    def _recomputed(self, position: Float[Tensor, "b r w"], rows: slice) -> Float[Tensor, "b r w k"]:
        assert self._features is not None
        return _look_up(self._features.products(rows), self._levels.windows(position))


class _Features(NamedTuple):
    """Both views' features, float32, and how they are multiplied."""

    left: Float[Tensor, "b c h w"]
    right: Float[Tensor, "b c h w"]
    levels: int
    scale: float

    def products(self, rows: slice) -> Float[Tensor, "b r w wl"]:
        """The products of some rows, all levels side by side."""
        with torch.autocast(self.left.device.type, enabled=False):
            right = pooled_levels(self.right[:, :, rows], self.levels)
            left = self.left[:, :, rows] * self.scale
            return torch.matmul(left.permute(0, 2, 3, 1), right.permute(0, 2, 1, 3))

    def all_products(self) -> Float[Tensor, "b h w wl"]:
        """The same of all rows, a few at a time where neither gradients nor compilation see it."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self.products(slice(None))
        batch, _, height, width = self.left.shape
        total = sum(width >> level for level in range(self.levels))
        volume = self.left.new_empty(batch, height, width, total)
        for rows in self.blocks():
            volume[:, rows] = self.products(rows)
        return volume

    def blocks(self) -> list[slice]:
        """Rows whose products are small together."""
        batch, _, height, width = self.left.shape
        step = max(1, _BLOCK_BYTES // (8 * batch * width * width))
        return [slice(start, start + step) for start in range(0, height, step)]


def _look_up(volume: Float[Tensor, "b h w wl"], windows: Windows) -> Float[Tensor, "b h w k"]:
    samples = volume.gather(-1, windows.cells.flatten(-2)).view(windows.cells.shape)
    return blend(samples, windows.inside, windows.fraction).flatten(-2)


def columns(like: Float[Tensor, "b c h w"]) -> Float[Tensor, "1 1 w"]:
    """The column numbers 0..w-1, to be subtracted from or added to fields [b h w]."""
    return torch.arange(like.shape[-1], device=like.device, dtype=torch.float32)[None, None]
