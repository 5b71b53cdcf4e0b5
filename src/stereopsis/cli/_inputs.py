"""The pairs that a command line names: two images, folders, globs, or a side-by-side video."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import track

from stereopsis.io.images import IMAGE_SUFFIXES
from stereopsis.io.pairs import PairPaths, find_pairs
from stereopsis.io.video import VIDEO_SUFFIXES, read_video_info, read_video_pairs
from stereopsis.structures import StereoPair

UNCOUNTED = 25
"""Every how many frames one is taken of a video whose container does not say how many there are."""


@dataclass(frozen=True)
class NamedPair:
    """One pair to come and how it is opened; paths: None for a frame of a video."""

    name: str
    open: Callable[[], StereoPair]
    paths: PairPaths | None = None

    @property
    def calibration(self) -> Path | None:
        """The file that lies beside a rectified pair."""
        return self.paths.calibration if self.paths is not None and self.paths.rectified else None


@dataclass(frozen=True)
class NamedPairs:
    """All of them in order, as often as they are asked for.

    every: those with index 0, step, 2 step, ...; count: 0 where a video does not say; rate: frames a second
    of a video, None for images.
    """

    every: Callable[[int], Iterator[NamedPair]]
    count: int
    rate: float | None = None

    def __iter__(self) -> Iterator[NamedPair]:
        return self.every(1)

    @property
    def alone(self) -> bool:
        """Whether this is one pair of images, whose faults are the whole command's."""
        return self.count == 1 and self.rate is None

    @property
    def paths(self) -> list[PairPaths]:
        """Those on disk: none of a video."""
        return [] if self.rate is not None else [named.paths for named in self if named.paths is not None]

    def step(self, count: int) -> int:
        """From one to the next of `count` that are evenly spread."""
        return max(self.count // count, 1) if self.count else UNCOUNTED

    def spread(self, count: int) -> Iterator[NamedPair]:
        """At most `count` of them, evenly spread."""
        return islice(self.every(self.step(count)), count)


def named_pairs(inputs: Sequence[str]) -> NamedPairs:
    """The pairs of a command line, opened when their turn comes.

    Two images are one pair, whether they are there or not. Raises ValueError for an empty input, for a
    single image, and for images among more inputs than two; what `find_pairs` and `read_video_info` raise.
    """
    check_inputs(inputs)
    first = Path(inputs[0])
    if len(inputs) == 1 and first.suffix.lower() in VIDEO_SUFFIXES:
        info = read_video_info(first)
        return NamedPairs(partial(_frames, first), info.frames, info.rate)
    found = _of_images(inputs)
    return NamedPairs(lambda step: map(_on_disk, found[::step]), len(found))


def check_inputs(inputs: Sequence[str]) -> None:
    """ValueError where one says nothing, as a shell's unset variable does: `find_pairs` would look here."""
    if not all(part.strip() for part in inputs):
        raise ValueError("one of the inputs is empty: give two images, a folder, a glob or a video")


def tracked(pairs: NamedPairs, doing: str) -> Iterable[NamedPair]:
    """All of them, with a bar of progress where a person looks on."""
    console = Console(stderr=True)
    return track(
        pairs,
        doing,
        total=pairs.count or None,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def complain(pair: NamedPair, error: Exception) -> None:
    """Of one pair among many, in one line; the others go on."""
    typer.echo(f"error: {pair.name}: {' '.join(str(error).split())}", err=True)


def _of_images(inputs: Sequence[str]) -> list[PairPaths]:
    images = [
        part for part in inputs if Path(part).suffix.lower() in IMAGE_SUFFIXES and not set(part) & {*"*?["}
    ]
    if len(inputs) == 1 and images:
        raise ValueError(f"{inputs[0]} is one image: give the right one too, or a folder of pairs")
    if len(inputs) > 2 and images:
        raise ValueError(
            f"{images[0]} is one of {len(inputs)} inputs: give two images, folders, or a glob in quotes"
        )
    if len(inputs) == 2 and not any(Path(part).is_dir() for part in inputs):
        left, right = map(Path, inputs)
        return [PairPaths(left.stem, left, right)]
    return [pair for part in inputs for pair in find_pairs(part)]


def _on_disk(paths: PairPaths) -> NamedPair:
    return NamedPair(paths.name, partial(StereoPair.open, paths.left, paths.right), paths)


def _frames(path: Path, step: int) -> Iterator[NamedPair]:
    for index, pair in enumerate(read_video_pairs(path, every=step)):
        yield NamedPair(f"frame-{index * step:06d}", lambda pair=pair: pair)
