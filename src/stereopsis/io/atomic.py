"""Files appear whole or not at all: written under a temporary name beside the target, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """A temporary path with the same suffix; on success it is renamed to `path`, on any exception removed.

    A device or a pipe is written in place. Raises OSError that names the file (full disk, no permission)
    and ValueError (the folder is missing or a file, or `path` is a folder).
    """
    path = Path(path)
    check_target(path)
    with _naming(path):
        if path.exists() and not path.is_file():
            yield path
        else:
            yield from _beside(path)


def check_target(path: Path) -> None:
    """Fails where `writing` would because of what the path names: for programs that ask before their work."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file to write")
    if path.parent.exists() and not path.parent.is_dir():
        raise ValueError(f"{path.parent} is a file: name a folder to write into")
    if not path.parent.is_dir():
        raise ValueError(f"the folder {path.parent} does not exist: create it or name another")


def _beside(path: Path) -> Iterator[Path]:
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Says of a failed write which file could not be written and why."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"{path} could not be written ({reason}): free some space there or name another place"
        raise OSError(message) from error
