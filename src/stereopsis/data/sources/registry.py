"""Every data set by its name: `source` on its function, its card, and where it lies on this disk."""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import stereopsis.data.sources
from stereopsis.data.files import PairFiles
from stereopsis.io.files import existing_folder

Source = Callable[[Path, str], list[PairFiles]]


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a user wants to know of a data set. splits: the first is the default; folder: its name
    under `$STEREOPSIS_DATA`, where that is not the data set's; pairs, image, disk: sizes as published."""

    title: str
    splits: tuple[str, ...]
    pairs: str
    image: str
    disk: str
    licence: str
    link: str
    folder: str | None = None


@dataclass(frozen=True)
class Entry:
    name: str
    card: Card
    list_pairs: Source


_entries: dict[str, Entry] = {}


def source(name: str, card: Card) -> Callable[[Source], Source]:
    """Decorator: the function lists the data set's pairs from (root, split)."""

    def add(function: Source) -> Source:
        known = _entries.get(name)
        if known and known.list_pairs.__qualname__ != function.__qualname__:
            raise ValueError(f"the data set name {name!r} is registered twice")
        _entries[name] = Entry(name, card, function)
        return function

    return add


def _all_entries() -> dict[str, Entry]:
    for module in pkgutil.iter_modules(stereopsis.data.sources.__path__):
        importlib.import_module(f"stereopsis.data.sources.{module.name}")
    return _entries


def list_datasets() -> list[str]:
    """Names of all data sets, sorted."""
    return sorted(_all_entries())


def dataset_entry(name: str) -> Entry:
    """The entry of a name; ValueError with the nearest names where there is none."""
    entries = _all_entries()
    if name not in entries:
        near = difflib.get_close_matches(name, entries, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "stereopsis datasets lists all"
        raise ValueError(f"no data set is called {name!r}: {hint}")
    return entries[name]


def locate(name: str, root: str | Path | None = None) -> Path:
    """The folder of a data set: `root` where given, else `$STEREOPSIS_DATA/<its folder>`."""
    folder = dataset_entry(name).card.folder or name
    if root is not None:
        return existing_folder(root)
    base = os.environ.get("STEREOPSIS_DATA")
    if not base:
        raise ValueError(
            f"where is {name}? Give its folder with --root, or set STEREOPSIS_DATA to the folder "
            f"that holds {folder}/"
        )
    return existing_folder(Path(base) / folder)


def list_pairs(name: str, split: str | None = None, *, root: str | Path | None = None) -> list[PairFiles]:
    """The pairs of a data set's split (None: its first), in a fixed order.

    Raises ValueError for an unknown name or split and where the folder holds no pair of it.
    """
    found = dataset_entry(name)
    wanted = split or found.card.splits[0]
    folder = locate(name, root)
    pairs = found.list_pairs(folder, wanted)
    if not pairs:
        raise ValueError(
            f"{folder} holds no pair of {name}, split {wanted!r} (splits: "
            f"{', '.join(found.card.splits)}); {found.list_pairs.__module__} tells its layout"
        )
    return pairs


def unknown_split(name: str, split: str) -> ValueError:
    """The error of a split that a data set has not."""
    splits = dataset_entry(name).card.splits
    return ValueError(f"{name} has no split {split!r}: it has {', '.join(splits)}")
