"""Pairs on disk to label, a teacher whose answers are known, and what a set's folder holds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from stereopsis.io.images import write_image
from stereopsis.labelling.label import CLAIMS, Order
from stereopsis.labelling.teacher import Teacher
from stereopsis.prediction.provenance import Provenance
from stereopsis.structures import StereoOutput, StereoPair

SIZE = (40, 72)


def write_planes(root: Path, count: int) -> Path:
    """Pairs of textured planes, each at its own whole disparity; every second one in a folder below."""
    for index in range(count):
        rng = np.random.default_rng(index)
        noise = cv2.GaussianBlur(rng.random((SIZE[0], SIZE[1] + 16, 3), dtype=np.float32), (0, 0), 1.0)
        texture = (20 + 215 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint8)
        folder = root / ("deep" if index % 2 else "") / f"plane{index}"
        folder.mkdir(parents=True)
        write_image(folder / "left.png", texture[:, : SIZE[1]])
        write_image(folder / "right.png", texture[:, index + 1 : SIZE[1] + index + 1])
    return root


@dataclass(frozen=True)
class Reading:
    """Answers the mean of the left image, in pixels, after some seconds."""

    seconds: float = 0.0

    def __call__(self, pair: StereoPair) -> StereoOutput:
        time.sleep(self.seconds)
        shape = pair.left.shape[-2:]
        disparity = torch.full(shape, float(pair.left.mean()) * 10)
        confidence = torch.linspace(0, 1, shape[1]).expand(shape).contiguous()
        return StereoOutput(disparity, confidence, right_disparity=disparity.clone())


def order(pairs: Path, output: Path, *, seconds: float = 0.0) -> Order:
    teacher = Teacher(predictor=Reading(seconds), provenance=Provenance(name="reading", licence="none"))
    return Order(input=pairs, output=output, teacher=teacher)


def snapshot(root: Path) -> dict[str, bytes]:
    """Every file of a set but its claims."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and CLAIMS not in path.parts
    }
