"""Who does which piece of work: one small interface, and an engine that needs nothing but a shared folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from stereopsis.labelling.claims import Claims


@runtime_checkable
class Engine(Protocol):
    """Gets every piece of work done once, here or elsewhere.

    `run` yields each name when its work is finished, whoever did it. `work(name)` does it and leaves its
    result on disk; `finished(name)` tells from the disk whether that is so. Work may be begun again
    elsewhere where its worker died: it must give the same result, and replace it as a whole.
    """

    def run(
        self, names: Sequence[str], *, work: Callable[[str], None], finished: Callable[[str], bool]
    ) -> Iterator[str]: ...


@dataclass(frozen=True, kw_only=True)
class SharedFolder:
    """Any number of processes, on any machines that see one folder, each running this with the same names.

    Each takes what nobody holds; at the end it waits for what others hold, and takes over from those that
    died. folder: of the claims; expiry: seconds without a sign of life after which a claim is void;
    poll: seconds between looks while waiting.
    """

    folder: Path
    expiry: float = 60.0
    poll: float = 0.5
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    def run(
        self, names: Sequence[str], *, work: Callable[[str], None], finished: Callable[[str], bool]
    ) -> Iterator[str]:
        claims = Claims(self.folder, expiry=self.expiry)
        waiting = list(names)
        while waiting:
            held = []
            for name in waiting:
                if finished(name):
                    claims.clear(name)
                elif not self._done_here(claims, name, work, finished):
                    held.append(name)
                    continue
                yield name
            if len(held) == len(waiting):
                self.sleep(self.poll)
            waiting = held
        claims.remove_folder()

    def _done_here(
        self,
        claims: Claims,
        name: str,
        work: Callable[[str], None],
        finished: Callable[[str], bool],
    ) -> bool:
        """False where somebody else holds it."""
        with claims.taken(name) as mine:
            if not mine:
                return False
            # Between the look and the claim its last holder may have finished it.
            if not finished(name):
                try:
                    work(name)
                except OSError:
                    if not finished(name):  # else another took over, while we seemed dead, and was quicker
                        raise
            return True
