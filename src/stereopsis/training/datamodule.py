"""The pairs of a training: sources mixed, augmented, counted; and those held back for validation."""

from __future__ import annotations

import dataclasses
import math
import signal
from typing import Any

import cv2
import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Subset

from stereopsis import geometry
from stereopsis.data.augment import augment
from stereopsis.data.dataset import StereoDataset
from stereopsis.data.sources.registry import list_pairs
from stereopsis.structures import StereoSample
from stereopsis.synthesis.stream import SyntheticStream
from stereopsis.training.config import DataSettings, SourceSettings, TrainSettings, augmentation
from stereopsis.training.order import Counter, Mixture

_HELD_BACK = 1_000_000_000
"""Rendered pairs from this index on are for validation, whatever the seed of the training ones."""

TWO_SIDED_LOSSES = frozenset({"adaptive_robust"})
"""The losses that supervise the right view's disparity too, where network and data give it."""
OCCLUSION_LOSSES = frozenset({"matching"})
"""The losses that ask what the right camera does not see, where every source tells it."""


class Data(LightningDataModule):
    """Loaders that begin at `first_step` of the run and give this process its share of every batch."""

    def __init__(self, settings: TrainSettings, *, first_step: int, rank: int, processes: int) -> None:
        super().__init__()
        self.settings = settings
        self.first_step = first_step
        self.rank = rank
        self.processes = processes

    def train_dataloader(self) -> DataLoader[StereoSample]:
        data, trainer = self.settings.data, self.settings.trainer
        sources, told = self._sources()
        weighted = any(is_weighted(source) for source in sources)
        mixture = Mixture(
            sources,
            [source.weight for source in data.sources],
            seed=trainer.seed,
            transforms=[
                Preparation(
                    dataclasses.replace(data, augment=augmentation(data, source)),
                    weighted=weighted,
                    occlusion=told and self.settings.loss.name in OCCLUSION_LOSSES,
                    clean=bool(self.settings.teacher.weights) and self.settings.teacher.clean,
                )
                for source in data.sources
            ],
        )
        counter = Counter(
            first_step=self.first_step,
            steps=trainer.max_steps,
            batch=data.batch_size * trainer.accumulate,
            rank=self.rank,
            processes=self.processes,
        )
        return self._loader(mixture, data.batch_size, sampler=counter)

    def _sources(self) -> tuple[list[Dataset[StereoSample]], bool]:
        """The training's sources, and whether their samples say what is occluded.

        Raises ValueError where occluded pixels are to be left out and a source does not tell them.
        """
        data = self.settings.data
        asked = not data.occluded or self.settings.loss.name in OCCLUSION_LOSSES
        opened = self._opened(occlusion=asked)
        if not asked:
            return opened, False
        silent = [
            settings.name
            for settings, source in zip(data.sources, opened, strict=True)
            if not tells_occlusion(source)
        ]
        if not silent:
            return opened, True
        if not data.occluded:
            raise ValueError(
                f"data.occluded=false leaves occluded pixels out of the losses, and {silent[0]} does not say "
                f"which they are: leave that source out, or set data.occluded=true"
            )
        return self._opened(occlusion=False), False

    def _opened(self, *, occlusion: bool) -> list[Dataset[StereoSample]]:
        return [
            open_source(source, both_views=_uses_both_views(self.settings, source), occlusion=occlusion)
            for source in self.settings.data.sources
        ]

    def val_dataloader(self) -> list[DataLoader[StereoSample]]:
        """One pair at a time, since they may differ in size; every process takes its own."""
        data = self.settings.data
        if not data.validation:
            return []
        parts = [open_source(source, held_back=True) for source in data.validation]
        each = max(1, data.validation_count // max(1, len(parts)))
        pairs = torch.utils.data.ConcatDataset([_first(part, each) for part in parts])
        share = Subset(pairs, range(self.rank, len(pairs), self.processes))
        return [self._loader(share, 1)]

    def _loader(self, dataset: Dataset[StereoSample], batch: int, **options: Any) -> DataLoader[StereoSample]:
        return DataLoader(
            dataset,
            batch_size=batch,
            num_workers=self.settings.data.workers,
            collate_fn=StereoSample.stack,
            drop_last=False,
            worker_init_fn=_begin_worker,
            multiprocessing_context="fork" if self.settings.data.workers else None,
            generator=torch.Generator().manual_seed(self.settings.trainer.seed),
            **options,
        )


@dataclasses.dataclass(frozen=True)
class Preparation:
    """What happens to a sample on its way into a batch: augmentation, crop, the range of the truth.

    weighted: whether some source weighs its pixels; the others' then count fully. occlusion: whether the
    batch says what is occluded. Every sample must know it for that, and where occluded truth is left out.
    clean: whether the batch also holds the pair as it was, for a teacher.
    """

    settings: DataSettings
    weighted: bool = False
    occlusion: bool = False
    clean: bool = False

    def __call__(self, sample: StereoSample, rng: np.random.Generator) -> StereoSample:
        settings = self.settings
        crop = None if settings.crop is None else (settings.crop[0], settings.crop[1])
        sample = augment(sample, settings.augment, crop=crop, rng=rng, clean=self.clean)
        valid = sample.valid
        if settings.max_disparity > 0:
            valid = valid & (sample.disparity < settings.max_disparity)
        right = sample.disparity_right
        if not settings.occluded:
            assert sample.occluded is not None
            if right is not None:
                left = torch.where(sample.valid, sample.disparity, math.inf)
                right = right.masked_fill(geometry.occlusion(right, left, view="right"), math.inf)
            valid = valid & ~sample.occluded
        # Sources differ in what else they know; in a batch every pair has the same fields.
        if right is None:
            right = torch.full_like(sample.disparity, math.inf)
        weight = sample.weight
        if weight is None and self.weighted:
            weight = torch.ones_like(sample.disparity)
        return StereoSample(
            sample.pair,
            sample.disparity,
            valid,
            occluded=sample.occluded if self.occlusion else None,
            disparity_right=right,
            weight=weight,
            clean=sample.clean,
            info=sample.info,
        )


def _uses_both_views(settings: TrainSettings, source: SourceSettings) -> bool:
    """Whether anything reads the right view's truth: reading it takes a fifth of the time to open a pair."""
    return augmentation(settings.data, source).flip > 0 or settings.loss.name in TWO_SIDED_LOSSES


def open_source(
    settings: SourceSettings, *, held_back: bool = False, both_views: bool = False, occlusion: bool = False
) -> Dataset[StereoSample]:
    """The data set that a setting names; of `synthetic`, pairs that no training sees where `held_back`.

    Masks of occlusion are not read unless `occlusion`, nor the right view's truth unless `both_views`.
    """
    if settings.name == "synthetic":
        stream = SyntheticStream(
            settings.seed,
            settings.distribution,
            size=(settings.size[0], settings.size[1]),
            length=_HELD_BACK + settings.count,
        )
        first = _HELD_BACK if held_back else 0
        return Subset(stream, range(first, first + settings.count))
    pairs = list_pairs(settings.name, settings.split, root=settings.root)
    if not occlusion:
        pairs = [dataclasses.replace(files, occluded=(), nonoccluded=None) for files in pairs]
    if not both_views:
        # Sources that are cut to the smallest of their maps need all of them.
        pairs = [
            files if files.centre_crop else dataclasses.replace(files, disparity_right=None)
            for files in pairs
        ]
    return StereoDataset(pairs)


def is_weighted(source: Dataset[StereoSample]) -> bool:
    """Whether its samples say how much each of their pixels counts."""
    return isinstance(source, StereoDataset) and any(files.weight is not None for files in source.files)


def tells_occlusion(source: Dataset[StereoSample]) -> bool:
    """Whether its samples say what the right camera does not see; rendered ones always do."""
    if not isinstance(source, StereoDataset):
        return True
    return all(files.occluded or files.nonoccluded is not None for files in source.files)


def _first(dataset: Dataset[StereoSample], count: int) -> Dataset[StereoSample]:
    length = len(dataset)  # pyright: ignore[reportArgumentType]
    return Subset(dataset, range(min(count, length)))


def _begin_worker(_worker: int) -> None:
    """One thread, and no end before the main process's: terminals and schedulers signal the whole group."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
