"""The scenes of a protocol's part: pairs of a data set on disk, or rendered ones, each opened when needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from stereopsis.data.dataset import Annotations, StereoDataset
from stereopsis.data.files import PairFiles
from stereopsis.data.sources.registry import list_pairs
from stereopsis.evaluation.protocols import SYNTHETIC, SYNTHETIC_PAIRS, SYNTHETIC_SEED, Part
from stereopsis.structures import SceneInfo, StereoPair, StereoSample
from stereopsis.synthesis.stream import SyntheticStream


@dataclass(frozen=True)
class PartScene:
    """A scene's name, its data set, and how to open it."""

    name: str
    dataset: str
    open: Callable[[], tuple[StereoSample, Annotations]]


def part_scenes(part: Part, root: Path | None) -> tuple[list[PartScene], list[str]]:
    """The scenes of a part in a fixed order, and what must be said of them.

    Raises ValueError or FileNotFoundError where the data set is not found, has no truth, or has two
    pairs of one name.
    """
    if part.dataset == SYNTHETIC:
        return _rendered(part.split), []
    notes = []
    pairs = list_pairs(part.dataset, part.split, root=root)
    known = [files for files in pairs if files.disparity is not None]
    twice = [name for name, count in Counter(files.name for files in known).items() if count > 1]
    if twice:
        raise ValueError(f"{part.label} has several pairs called {twice[0]!r}: names must be unique")
    if not known:
        raise ValueError(f"{part.label} has no truth: it can be predicted (stereopsis submit), not measured")
    if len(known) < len(pairs):
        notes.append(f"{part.label}: {len(pairs) - len(known)} pairs have no truth and are left out")
    if part.subset is not None and part.subset < len(known):
        order = np.random.RandomState(1000).permutation(len(known))[: part.subset]
        known = [known[place] for place in sorted(order)]
    if part.pairs is not None and part.pairs != len(known):
        notes.append(f"{part.label}: {len(known)} images where the protocol has {part.pairs}")
    return [PartScene(files.name, files.dataset, partial(_opened, files)) for files in known], notes


def _opened(files: PairFiles) -> tuple[StereoSample, Annotations]:
    dataset = StereoDataset([files])
    sample = dataset[0]
    if not files.regions and files.instances is None:
        return sample, Annotations()
    return sample, dataset.annotations(0, size=sample.pair.size)


def _rendered(distribution: str) -> list[PartScene]:
    stream = SyntheticStream(SYNTHETIC_SEED, distribution)
    return [
        PartScene(f"{distribution}-{index:04}", f"synthetic {distribution}", partial(_drawn, stream, index))
        for index in range(SYNTHETIC_PAIRS)
    ]


def _drawn(stream: SyntheticStream, index: int) -> tuple[StereoSample, Annotations]:
    return stream[index], Annotations()


def reduced(sample: StereoSample, annotations: Annotations, scale: float) -> tuple[StereoSample, Annotations]:
    """Images by bilinear interpolation, maps by the nearest pixel, disparity times `scale` (as SMD-Nets)."""
    height, width = sample.pair.size
    size = int(width * scale), int(height * scale)

    def shrink(tensor: torch.Tensor, interpolation: int) -> torch.Tensor:
        array = tensor.movedim(0, -1).numpy() if tensor.ndim == 3 else tensor.numpy()
        resized = cv2.resize(np.ascontiguousarray(array, np.float32), size, interpolation=interpolation)
        result = torch.from_numpy(resized)
        return result.movedim(-1, 0).contiguous() if tensor.ndim == 3 else result

    def nearest(tensor: torch.Tensor) -> torch.Tensor:
        result = shrink(tensor, cv2.INTER_NEAREST)
        return result > 0.5 if tensor.dtype == torch.bool else result

    pair = StereoPair(*(shrink(view, cv2.INTER_LINEAR) for view in (sample.pair.left, sample.pair.right)))
    info = tuple(
        SceneInfo(i.name, i.dataset, i.calibration and i.calibration.scaled(scale)) for i in sample.info
    )
    right = sample.disparity_right
    smaller = StereoSample(
        pair,
        nearest(sample.disparity) * scale,
        nearest(sample.valid),
        occluded=None if sample.occluded is None else nearest(sample.occluded),
        disparity_right=None if right is None else nearest(right) * scale,
        info=info,
    )
    regions = {name: nearest(region) for name, region in annotations.regions.items()}
    instances = None if annotations.instances is None else nearest(annotations.instances)
    return smaller, Annotations(regions, instances)
