"""Claims on pieces of work by files that are created atomically; those of the dead expire.

The claims on a name are numbered files: `<name>.0`, then `<name>.1` by whoever takes over from a holder
that shows no life, and so on. Creating a file that must not exist succeeds for one process only, on one
machine or over a network, so that at any time the highest number is the one holder. Claims vanish when
the work is finished, or given up.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path


class Claims:
    """Claims in a folder. expiry: seconds without a sign of life after which one is void.

    A holder touches its file; others watch it by their own clock, from when they first saw it, so that
    machines' clocks need not agree. On the holder's own machine its death is seen at once.
    """

    def __init__(self, folder: Path, *, expiry: float) -> None:
        if expiry <= 0:
            raise ValueError(f"claims must expire after a positive number of seconds, not {expiry}")
        self._folder = folder
        self._expiry = expiry
        self._seen: dict[Path, tuple[int | None, float]] = {}

    @contextmanager
    def taken(self, name: str) -> Iterator[bool]:
        """True inside where the claim is ours, held alive until the end; False where another holds it."""
        number = self._take(name)
        if number is None:
            yield False
            return
        stopped = threading.Event()
        path = self._path(name, number)
        alive = threading.Thread(target=self._keep_alive, args=(path, stopped), daemon=True)
        alive.start()
        try:
            yield True
        finally:
            stopped.set()
            alive.join()
            self.clear(name, up_to=number)

    def clear(self, name: str, *, up_to: int | None = None) -> None:
        """Removes the claims on a name that is finished, or those up to the one that its holder gives up."""
        for number, path in self._of(name).items():
            if up_to is None or number <= up_to:
                path.unlink(missing_ok=True)

    def remove_folder(self) -> None:
        """Removes the folder if nothing is claimed in it."""
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def _of(self, name: str) -> dict[int, Path]:
        """The claims on a name by their number."""
        suffixes = ((path, path.suffix[1:]) for path in self._folder.glob(f"{_stem(name)}.*"))
        return {int(number): path for path, number in suffixes if number.isdigit()}

    def _path(self, name: str, number: int) -> Path:
        return self._folder / f"{_stem(name)}.{number}"

    def _take(self, name: str) -> int | None:
        """The number of a new claim of ours; None where somebody holds one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        numbered = self._of(name)
        number = max(numbered, default=-1) + 1
        if numbered and not self._is_dead(numbered[number - 1]):
            return None
        path = self._path(name, number)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except (FileExistsError, FileNotFoundError):  # taken, or all finished and the folder removed
            return None
        with os.fdopen(descriptor, "w") as file:
            json.dump({"name": name, "host": _host(), "process": os.getpid()}, file)
        if max(self._of(name), default=number) > number:  # others went on while we looked
            path.unlink(missing_ok=True)
            return None
        return number

    def _is_dead(self, path: Path) -> bool:
        try:
            beat = path.stat().st_mtime_ns
            holder = json.loads(path.read_text())
            if holder["host"] == _host() and not _runs(int(holder["process"])):
                return True
        except FileNotFoundError:
            return False  # just given back: the next look will tell
        except (OSError, ValueError, KeyError, TypeError):
            beat = -2  # its holder has not got to writing it, or died before
        now = time.monotonic()
        known, since = self._seen.get(path, (None, now))
        if known != beat:
            self._seen[path] = (beat, now)
            return False
        return now - since > self._expiry

    def _keep_alive(self, path: Path, stopped: threading.Event) -> None:
        while not stopped.wait(self._expiry / 4):
            with contextlib.suppress(OSError):
                os.utime(path)


def _stem(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@cache
def _host() -> str:
    """This machine, since when it runs, and the space in which its process numbers mean something."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # these two are Linux's
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return "/".join(parts)
