"""Combined geometry encoding volumes (IGEV-Stereo, CVPR 2023): lookups into aggregated cost volumes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stereopsis.layers.correlation import Levels, RowCorrelation, Storage, blend, columns


class GeometryPyramid:
    """A volume over disparity and its means of 2, 4, ... neighbours, looked up around a disparity."""

    def __init__(self, volume: Float[Tensor, "b g d h w"], *, levels: int, radius: int) -> None:
        pyramid = [volume.float()]
        for _ in range(levels - 1):
            pyramid.append(F.avg_pool3d(pyramid[-1], (2, 1, 1)))
        self.volume = torch.cat(pyramid, 2) if levels > 1 else pyramid[0]
        self._levels = Levels(volume.shape[2], levels, radius=radius, axis=1, device=volume.device)

    def __call__(self, disparity: Float[Tensor, "b h w"]) -> Float[Tensor, "b l k h w"]:
        """Per level, the volume's channels times the 2r + 1 positions `disparity / 2^l + k`, zero outside."""
        windows = self._levels.windows(disparity)
        batch, groups = self.volume.shape[:2]
        flat = windows.cells.flatten(1, 2)[:, None].expand(-1, groups, -1, -1, -1)
        samples = self.volume.gather(2, flat).view(batch, groups, *windows.cells.shape[1:])
        windows = windows._replace(inside=windows.inside[:, None], fraction=windows.fraction[:, None])
        return blend(samples, windows, axis=3).transpose(1, 2).flatten(2, 3)


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
        geometry = self.geometry(disparity)
        correlation = self.correlation(self._columns - disparity).unflatten(1, (self._levels, -1))
        return torch.cat([geometry, correlation], 2).flatten(1, 2)
