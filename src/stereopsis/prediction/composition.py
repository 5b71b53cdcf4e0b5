"""A predictor wrapped as a user's choices ask: scale, memory limit, start of the range, right view."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from stereopsis.prediction.classical import SGBM, Filled
from stereopsis.prediction.memory import window_pixels
from stereopsis.prediction.mirrored import Mirrored
from stereopsis.prediction.refined import RefinedSGBM
from stereopsis.prediction.rescaled import Rescaled
from stereopsis.prediction.shifted import Shifted
from stereopsis.prediction.tiled import Tiled
from stereopsis.structures import Predictor


@dataclass(frozen=True, kw_only=True)
class Wrapping:
    """scale: of the images; max_memory: bytes of main memory; min_disparity: pixels; both: right view too."""

    scale: float = 1.0
    max_memory: int | None = None
    min_disparity: int = 0
    both: bool = False

    def around(self, predictor: Predictor, size: tuple[int, int]) -> Predictor:
        """The predictor for pairs of (height, width) `size`.

        Raises ValueError where the memory limit leaves nothing to work with.
        """
        wrapped = predictor if self.scale == 1 else Rescaled(predictor, self.scale)
        if self.max_memory is not None:
            wrapped = self._limited(predictor, wrapped, size, self.max_memory)
        if self.min_disparity:
            wrapped = Shifted(wrapped, self.min_disparity)
        return Mirrored(wrapped) if self.both else wrapped

    def _limited(
        self, predictor: Predictor, wrapped: Predictor, size: tuple[int, int], max_memory: int
    ) -> Predictor:
        """Tiled if the pair is too large; a pair that fits is left whole."""
        smaller = round(size[0] * self.scale), round(size[1] * self.scale)
        pixels = window_pixels(predictor, smaller, max_memory) / self.scale**2
        if pixels >= size[0] * size[1]:
            return wrapped
        if isinstance(predictor, SGBM) and self.scale == 1:
            holes = dataclasses.replace(predictor.for_width(size[1]), fill=None)
            tiled = Tiled(holes, int(pixels), coarse=predictor)
            return tiled if predictor.fill is None else Filled(tiled, predictor.median)
        if isinstance(predictor, RefinedSGBM) and self.scale == 1:
            return Tiled(predictor.for_width(size[1]), int(pixels), coarse=predictor)
        return Tiled(wrapped, int(pixels))
