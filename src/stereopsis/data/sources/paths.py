"""Paths beside paths: what the layouts of data sets have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def swapped(path: Path, root: Path, parts: Mapping[str, str], *, suffix: str | None = None) -> Path:
    """The path with some folder names below `root` replaced by others, and another suffix where given."""
    below = path.relative_to(root)
    folders = [parts.get(part, part) for part in below.parts[:-1]]
    changed = root.joinpath(*folders, below.name)
    return changed if suffix is None else changed.with_suffix(suffix)


def present(path: Path) -> Path | None:
    """The path where something lies there."""
    return path if path.exists() else None


def below(path: Path, root: Path) -> str:
    """The path below `root` without its suffix, with slashes: a name unique in the data set."""
    return path.relative_to(root).with_suffix("").as_posix()


def list_lines(path: Path, *, root: Path) -> list[list[Path]]:
    """A list file: paths relative to `root` in each line, parted by white space; empty lines left out."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [[root / word.lstrip("/") for word in line.split()] for line in lines if line.strip()]
