"""An endless, reproducible data set: the same pair for the same (seed, index, size), whoever renders it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from stereopsis.structures import StereoSample
from stereopsis.synthesis.distributions import Distribution, distribution
from stereopsis.synthesis.draw import draw_scene
from stereopsis.synthesis.patterns import photographs
from stereopsis.synthesis.render import Rendering, render_batch
from stereopsis.synthesis.scene import Scene

ENDLESS = 2**31 - 1


class SyntheticStream(Dataset[StereoSample]):
    """Pairs by index; a map-style data set, so that a DataLoader's batches do not depend on its workers.

    kind: a distribution or its name; size: (height, width) of the images; truth_size: of the truth in
    `rendering`, where it is to be another; folder: photographs to cut textures from; length: how many
    pairs there are.
    """

    def __init__(
        self,
        seed: int,
        kind: str | Distribution = "general",
        *,
        size: tuple[int, int] = (480, 640),
        truth_size: tuple[int, int] | None = None,
        folder: str | Path | None = None,
        length: int = ENDLESS,
        device: torch.device | str = "cpu",
    ) -> None:
        if truth_size is not None and truth_size[0] * size[1] != truth_size[1] * size[0]:
            raise ValueError(
                f"truth of {truth_size[1]}x{truth_size[0]} has another shape than images of "
                f"{size[1]}x{size[0]}: give both the same ratio of width to height"
            )
        self.seed = seed
        self.distribution = distribution(kind) if isinstance(kind, str) else kind
        self.size = size
        self.truth_size = truth_size
        self.photographs = photographs(Path(folder)) if folder is not None else ()
        self.length = length
        self.device = torch.device(device)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> StereoSample:
        if not 0 <= index < self.length:
            raise IndexError(f"there is no pair {index} in a stream of {self.length}")
        return self.rendering(index).sample

    def __iter__(self) -> Iterator[StereoSample]:
        return (self[index] for index in range(self.length))

    def scene(self, index: int) -> Scene:
        """The scene behind a pair."""
        return draw_scene(
            self.distribution, seed=self.seed, index=index, size=self.size, photographs=self.photographs
        )

    def rendering(self, index: int) -> Rendering:
        """The pair with everything that is known of it."""
        return self.renderings([index])[0]

    def renderings(self, indices: Sequence[int]) -> list[Rendering]:
        """Several pairs in one pass, which a GPU needs to be busy; each as `rendering` gives it."""
        scenes = [self.scene(index) for index in indices]
        return render_batch(scenes, self.size, truth_size=self.truth_size, device=self.device)

    def __getitems__(self, indices: Sequence[int]) -> list[StereoSample]:
        """What a DataLoader asks for: on a GPU in one pass."""
        if self.device.type == "cpu":
            return [self[index] for index in indices]
        return [rendering.sample for rendering in self.renderings(indices)]

    def sharded(self, *, start: int = 0) -> ShardedStream:
        """The same pairs as an iterable data set, from `start` on."""
        return ShardedStream(self, start=start)


class ShardedStream(IterableDataset[StereoSample]):
    """A stream in order, dealt out over a DataLoader's workers: worker k of n has start + k, + n, ..."""

    def __init__(self, stream: SyntheticStream, *, start: int = 0) -> None:
        self.stream = stream
        self.start = start

    def __iter__(self) -> Iterator[StereoSample]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for index in range(self.start + first, len(self.stream), step):
            yield self.stream[index]
