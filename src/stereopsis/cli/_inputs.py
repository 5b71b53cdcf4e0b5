"""The pairs that a command line names: two images, folders, or globs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stereopsis.io.images import IMAGE_SUFFIXES
from stereopsis.io.pairs import PairPaths, find_pairs


def check_inputs(inputs: Sequence[str]) -> None:
    """ValueError where one says nothing, as a shell's unset variable does: `find_pairs` would look here."""
    if not all(part.strip() for part in inputs):
        raise ValueError("one of the inputs is empty: give two images, a folder, a glob or a video")


def named_pairs(inputs: Sequence[str]) -> list[PairPaths]:
    """Two images as one pair, whether they are there or not, else `find_pairs` of each input.

    Raises ValueError for a single image and for images among more inputs than two.
    """
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
