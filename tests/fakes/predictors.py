"""Predictors whose errors are known beforehand, and scenes on disk for them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fakes.tiny import tiny, unknown_as, write_image, write_pfm, write_text
from stereopsis.structures import Predictor, StereoOutput, StereoPair


@dataclass(frozen=True)
class Offset:
    """Answers a constant disparity, with a confidence that falls from left to right."""

    disparity: float

    def __call__(self, pair: StereoPair) -> StereoOutput:
        shape = pair.left.shape[-2:]
        confidence = torch.linspace(1, 0, shape[1]).expand(shape).contiguous()
        return StereoOutput(torch.full(shape, self.disparity), confidence)


@dataclass(frozen=True)
class ByName:
    """A constant disparity for each scene; raises for scenes that are not in it."""

    disparities: dict[str, float]

    def for_scene(self, name: str) -> Predictor:
        if name not in self.disparities:
            raise ValueError(f"no disparity of {name}")
        return Offset(self.disparities[name])


def write_scene(
    root: Path,
    name: str,
    *,
    truth: float = 10.0,
    dataset: str = "one",
    size: tuple[int, int] = (12, 16),
    known: np.ndarray | None = None,
    hidden: np.ndarray | None = None,
) -> None:
    """A scene folder whose true disparity is the same everywhere it is known."""
    scene = tiny(len(name), size=size)
    known = np.ones(size, bool) if known is None else known
    write_image(root / name / "left.png", scene.left)
    write_image(root / name / "right.png", scene.right)
    write_pfm(root / name / "disparity.pfm", unknown_as(np.full(size, truth), known, np.inf))
    described = {
        "name": name,
        "dataset": dataset,
        "left": "left.png",
        "right": "right.png",
        "disparity_left": {"file": "disparity.pfm", "encoding": "pfm"},
    }
    if hidden is not None:
        write_image(root / name / "hidden.png", hidden.astype(np.uint8) * 255)
        described["occlusion_mask"] = {"file": "hidden.png", "visible": [0], "occluded": [255], "unknown": []}
    write_text(root / name / "scene.json", json.dumps(described))
