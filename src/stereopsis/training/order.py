"""Which pair comes when: a function of the seed and a counter alone, so that any run can go on anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from torch.utils.data import Dataset, Sampler

from stereopsis.structures import StereoSample

_BLOCK = 1000  # pairs over which the sources' shares are exact


class Mixture(Dataset[StereoSample]):
    """An endless mixture of data sets: item k is the same whoever asks for it, and when.

    Each source is gone through in a new random order every epoch, without repetition inside one;
    sources interleave at random in exact proportion to their weights, block by block. `transforms`, one for
    each source, get the sample and a generator seeded by (seed, k).
    """

    def __init__(
        self,
        sources: Sequence[Dataset[StereoSample]],
        weights: Sequence[float],
        *,
        seed: int,
        transforms: Sequence[Callable[[StereoSample, np.random.Generator], StereoSample]],
    ) -> None:
        lengths = [len(source) for source in sources]  # pyright: ignore[reportArgumentType]
        if not sources or min(lengths) == 0:
            raise ValueError("every source of a training must hold at least one pair")
        if len(transforms) != len(sources):
            raise ValueError(f"{len(sources)} sources need a transform each, not {len(transforms)}")
        if min(weights) <= 0:
            raise ValueError(f"the weights of the sources must be positive, they are {list(weights)}")
        self.sources = list(sources)
        self.lengths = lengths
        self.seed = seed
        self.transforms = list(transforms)
        self.counts = _shares(np.asarray(weights, dtype=np.float64))

    def __getitem__(self, k: int) -> StereoSample:
        source, position = self.locate(k)
        rng = np.random.default_rng([self.seed, 1, k])
        return self.transforms[source](self.sources[source][position], rng)

    def locate(self, k: int) -> tuple[int, int]:
        """(source, index in it) of item k."""
        block, slot = divmod(k, _BLOCK)
        slots = np.repeat(np.arange(len(self.counts)), self.counts)[_permutation(_BLOCK, self.seed, 2, block)]
        source = int(slots[slot])
        turn = block * int(self.counts[source]) + int((slots[:slot] == source).sum())
        epoch, index = divmod(turn, self.lengths[source])
        return source, int(_permutation(self.lengths[source], self.seed, 3 + source, epoch)[index])


def _shares(weights: np.ndarray) -> np.ndarray:
    """Whole numbers in proportion to the weights that add up to a block, none of them zero."""
    exact = weights / weights.sum() * _BLOCK
    counts = np.maximum(np.floor(exact).astype(int), 1)
    for index in np.argsort(np.floor(exact) - exact):
        counts[index] += counts.sum() < _BLOCK
    counts[np.argmax(counts)] += _BLOCK - counts.sum()
    return counts


@lru_cache(maxsize=16)
def _permutation(length: int, *seed: int) -> np.ndarray:
    return np.random.default_rng(list(seed)).permutation(length)


class Counter(Sampler[int]):
    """Items `first`, `first + 1`, ... of every step's global batch that belong to this process.

    A step takes `batch * processes` items in a row; process `rank` takes its `batch` of them. It has no
    length: Lightning would take that for an epoch's, and begin again in the middle of a resumed run.
    """

    def __init__(self, *, first_step: int, steps: int, batch: int, rank: int = 0, processes: int = 1) -> None:
        super().__init__()
        self.first_step = first_step
        self.steps = steps
        self.batch = batch
        self.rank = rank
        self.processes = processes

    def __iter__(self) -> Iterator[int]:
        for step in range(self.first_step, self.steps):
            start = (step * self.processes + self.rank) * self.batch
            yield from range(start, start + self.batch)
