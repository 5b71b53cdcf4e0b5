"""Combined geometry encoding volumes (IGEV-Stereo, CVPR 2023): lookups into aggregated cost volumes."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from stereopsis.layers.correlation import Levels, RowCorrelation, Storage, blend, columns


class GeometryPyramid:
    """A volume over disparity and its means of 2, 4, ... neighbours, looked up around a disparity.

    It is kept with disparity innermost, so that a window is read from one place in memory.
    """

    def __init__(self, volume: Float[Tensor, "b g d h w"], *, levels: int, radius: int) -> None:
        pyramid = [volume.float().permute(0, 3, 4, 1, 2)]
        for _ in range(levels - 1):
            finer = pyramid[-1]
            even = finer[..., : finer.shape[-1] // 2 * 2]
            pyramid.append((even[..., ::2] + even[..., 1::2]) / 2)
        self.volume = torch.cat(pyramid, -1) if levels > 1 else pyramid[0].contiguous()
        self._levels = Levels(volume.shape[2], levels, radius=radius, device=volume.device)

    def __call__(self, disparity: Float[Tensor, "b h w"]) -> Float[Tensor, "b k h w"]:
        """Level by level and channel by channel the positions `disparity / 2^l + k`, zero outside."""
        return self.sample(disparity).flatten(-2).permute(0, 3, 1, 2)

    def sample(self, disparity: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w l k"]:
        """The same with levels apart."""
        windows = self._levels.windows(disparity)
        cells = windows.cells.flatten(-2).unsqueeze(-2).expand(*self.volume.shape[:-1], -1)
        samples = self.volume.gather(-1, cells).unflatten(-1, windows.cells.shape[-2:])
        values = blend(samples, windows.inside.unsqueeze(-3), windows.fraction.unsqueeze(-3))
        return values.transpose(-3, -2).flatten(-2)


class CombinedGeometry:
    """The geometry volume's pyramid beside the all-pairs correlation's, as IGEV-Stereo looks them up.

    left, right: matching features; their correlation is not scaled; storage: as RowCorrelation's.
    Channels: per level the geometry's (volume channel by volume channel), then the correlation's.
    """

    def __init__(
        self,
        volume: Float[Tensor, "b g d h w"],
        left: Float[Tensor, "b c h w"],
        right: Float[Tensor, "b c h w"],
        *,
        levels: int,
        radius: int,
        storage: Storage = "stored",
    ) -> None:
        self.geometry = GeometryPyramid(volume, levels=levels, radius=radius)
        self.correlation = RowCorrelation(left, right, levels=levels, radius=radius, storage=storage)
        self._columns = columns(left)
        self._levels = levels

    def __call__(self, disparity: Float[Tensor, "b h w"]) -> Float[Tensor, "b k h w"]:
        geometry = self.geometry.sample(disparity)
        correlation = self.correlation(self._columns - disparity).permute(0, 2, 3, 1)
        correlation = correlation.unflatten(-1, (self._levels, -1))
        return torch.cat([geometry, correlation], -1).flatten(-2).permute(0, 3, 1, 2)
