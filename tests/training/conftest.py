"""A tiny data set of textured planes on disk, and settings that train a tiny network on it in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from stereopsis.io.disparity import write_disparity
from stereopsis.io.images import write_image
from stereopsis.training.config import TrainSettings, read_settings

HEIGHT, WIDTH = 48, 96


@pytest.fixture(scope="session")
def planes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pairs of textured planes, each at its own whole disparity."""
    root = tmp_path_factory.mktemp("planes")
    for index in range(8):
        rng = np.random.default_rng(index)
        noise = rng.random((HEIGHT, WIDTH + 40, 3), dtype=np.float32)
        texture = cv2.GaussianBlur(noise, (0, 0), 1.5)
        texture = (255 * (texture - texture.min()) / np.ptp(texture)).astype(np.uint8)
        disparity = 2 + 2 * index
        scene = root / f"plane{index}"
        scene.mkdir()
        write_image(scene / "left.png", texture[:, :WIDTH])
        write_image(scene / "right.png", texture[:, disparity : WIDTH + disparity])
        write_disparity(scene / "disparity.pfm", np.full((HEIGHT, WIDTH), disparity, np.float32))
    return root


@pytest.fixture
def tiny(planes: Path, tmp_path: Path) -> Callable[..., TrainSettings]:
    """Settings of a tiny StereoNet on these planes; arguments are further overrides."""

    def make(*overrides: str, output: str = "run") -> TrainSettings:
        source = f"{{name: folder, split: truth, root: {planes}}}"
        return read_settings(
            [
                "model.name=stereonet",
                "model.options.downsamplings=2",
                "model.options.refinements=1",
                "model.options.max_disparity=32",
                f"data.sources=[{source}]",
                "data.validation=[]",
                "data.batch_size=2",
                "data.workers=0",
                "data.crop=[32,64]",
                "data.augment.brightness=0.3",
                "data.augment.vertical_jitter=1",
                "optimizer.lr=1e-3",
                "optimizer.schedule=warmup-cosine",
                "trainer.max_steps=8",
                "trainer.checkpoint_every=3",
                "trainer.accelerator=cpu",
                "trainer.threads=1",
                f"output={tmp_path / output}",
                *overrides,
            ]
        )

    return make
