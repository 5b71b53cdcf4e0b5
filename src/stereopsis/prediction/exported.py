"""An exported network as a predictor, run without the network's own code."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stereopsis import confidence, geometry
from stereopsis.models.base import Padding
from stereopsis.prediction.certainty import Certainty
from stereopsis.prediction.header import ExportHeader
from stereopsis.prediction.rescaled import enlarged
from stereopsis.prediction.runtimes import Precision, open_session
from stereopsis.structures import StereoOutput, StereoPair


class ExportedPredictor:
    """An `.onnx` or `.xml` file that `stereopsis export` wrote, called with pairs.

    A file of any size is given images padded as its header says; a file of one size takes that size
    only. device: "cpu", or what the runtime has; precision: of OpenVINO's arithmetic; threads: of the
    CPU, None for as many as PyTorch uses; batch_size, both: as in `NetworkPredictor`. Confidence is the
    file's, else left-right agreement, and what its header's certainty makes of it.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        device: str = "cpu",
        precision: Precision = "float32",
        threads: int | None = None,
        batch_size: int = 1,
        both: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, it is {batch_size}")
        self.path = Path(path)
        self._session = open_session(path, device=device, precision=precision, threads=threads)
        self.batch_size = self.header.batch or batch_size
        self.both = both
        stored = self.header.certainty
        self.certainty = Certainty.from_plain(stored) if stored else None

    @property
    def header(self) -> ExportHeader:
        return self._session.header

    @property
    def runtime(self) -> str:
        """What runs it, its version and its arithmetic."""
        return self._session.runtime

    @property
    def least_pixels(self) -> int:
        """Smaller pairs are enlarged; those of a file of one size never."""
        return self.header.least_pixels if self.header.size is None else 0

    def __call__(self, pair: StereoPair) -> StereoOutput:
        return enlarged(self.at_size, pair, self.least_pixels)

    @torch.inference_mode()
    def at_size(self, pair: StereoPair) -> StereoOutput:
        """The pair as it is, never enlarged."""
        size = self.header.size
        if size is not None and pair.size != size:
            raise ValueError(
                f"{self.path} was exported for {size[1]}x{size[0]}, this pair is {pair.size[1]}x"
                f"{pair.size[0]}: export it for that size, or with --size dynamic"
            )
        leading = pair.left.shape[:-3]
        flat = pair.map(lambda image: image.reshape(-1, *image.shape[-3:]))
        outputs = [
            self._predict(flat.map(lambda image, start=start: image[start : start + self.batch_size]))
            for start in range(0, flat.left.shape[0], self.batch_size)
        ]
        return StereoOutput.join(outputs).reshaped(leading)

    def _predict(self, pair: StereoPair) -> StereoOutput:
        height, width = pair.size
        padding = self.header.padding if self.header.size is None else Padding()
        top, _, left, _ = padding.amounts(height, width)
        padded = pair.map(padding.pad)
        disparity, certainty = self._run(padded)
        right, occluded = None, None
        if self.both or certainty is None:
            mirrored, _ = self._run(StereoPair(padded.right.flip(-1), padded.left.flip(-1)))
            right = mirrored.flip(-1)
            occluded = geometry.occlusion(disparity, right) if self.both else None
        if certainty is None:
            assert right is not None
            certainty = confidence.agreement(disparity, right)
        output = StereoOutput(disparity, certainty, right_disparity=right, occluded=occluded)
        if self.certainty is not None:
            output = dataclasses.replace(output, confidence=self.certainty(padded, output))
        return output.cropped(top, left, height, width)

    def _run(self, pair: StereoPair) -> tuple[Tensor, Tensor | None]:
        count = len(pair.left)
        missing = (self.header.batch or count) - count
        images = [self._as_taken(image, missing) for image in (pair.left, pair.right)]
        disparity, certainty = self._session.run(*images)
        if disparity.shape != (count + missing, *pair.size):
            raise ValueError(
                f"{self.path} answered images of {pair.size[1]}x{pair.size[0]} with maps of shape "
                f"{disparity.shape}: export the network for that size"
            )
        maps = [None if m is None else torch.from_numpy(m)[:count] for m in (disparity, certainty)]
        assert maps[0] is not None
        return maps[0], maps[1]

    def _as_taken(self, image: Float[Tensor, "b 3 h w"], missing: int) -> np.ndarray:
        """The images as the file takes them, the last one repeated where its batch size is fixed."""
        if missing:
            image = torch.cat([image, image[-1:].expand(missing, -1, -1, -1)])
        if self.header.images == "uint8":
            image = (image * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
        return np.ascontiguousarray(image.cpu().numpy())
