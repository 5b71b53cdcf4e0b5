"""Small pictures of each measured image, kept on disk until the report is written."""

from __future__ import annotations

import hashlib
import math
import shutil
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stereopsis.evaluation.results import Row
from stereopsis.html import encoded
from stereopsis.io.atomic import writing
from stereopsis.structures import StereoOutput, StereoSample
from stereopsis.visual import (
    confidence_picture,
    disparity_picture,
    error_picture,
    image_picture,
    robust_range,
)

KINDS = ("left", "disparity", "truth", "error", "confidence")
_WIDTH = 400
_SUFFIX = {"left": ".jpg"}


class Pictures:
    """A folder of small pictures by image; `add` is an observer of `evaluate`.

    Disparity and truth of an image share their colours, from the truth's range; errors have KITTI's
    colours, the same for all images. Sparse truth shows the largest error of each block of pixels.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, row: Row, sample: StereoSample, output: StereoOutput) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        step = max(1, math.ceil(sample.disparity.shape[-1] / _WIDTH))
        truth, known = _thinned(sample.disparity, sample.valid, step)
        error = (output.disparity - sample.disparity).abs().nan_to_num(nan=math.inf)
        worst, _ = _thinned(error, sample.valid, step)
        limits = robust_range(sample.disparity, valid=sample.valid)
        pictures = {
            "left": _shrunk(image_picture(sample.pair.left), step),
            "disparity": disparity_picture(_nearest(output.disparity, step), limits=limits),
            "truth": disparity_picture(truth, limits=limits, valid=known),
            "error": error_picture(truth + worst, truth, known),
        }
        if output.confidence is not None:
            pictures["confidence"] = confidence_picture(_nearest(output.confidence, step))
        for kind, picture in pictures.items():
            with writing(self._path(row, kind)) as temporary:
                temporary.write_bytes(encoded(picture, self._path(row, kind).suffix))

    def get(self, row: Row, kind: str) -> bytes | None:
        """The encoded picture (JPEG of the left view, PNG of maps), None where there is none."""
        path = self._path(row, kind)
        return path.read_bytes() if path.exists() else None

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, row: Row, kind: str) -> Path:
        key = hashlib.sha1(f"{row.part}/{row.name}".encode()).hexdigest()[:16]
        return self.folder / f"{key}-{kind}{_SUFFIX.get(kind, '.png')}"


def _nearest(values: Tensor, step: int) -> Tensor:
    return values[step // 2 :: step, step // 2 :: step]


def _thinned(values: Tensor, known: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Every step-th pixel of dense maps, the largest known value of each block of sparse ones."""
    if step == 1 or float(known.float().mean()) > 0.5:
        return _nearest(values, step), _nearest(known, step)
    lowest = torch.where(known, values, -math.inf)
    pooled = F.max_pool2d(lowest[None, None], step, ceil_mode=True)[0, 0]
    return torch.where(pooled == -math.inf, 0.0, pooled), pooled > -math.inf


def _shrunk(picture: np.ndarray, step: int) -> np.ndarray:
    size = max(1, picture.shape[1] // step), max(1, picture.shape[0] // step)
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
