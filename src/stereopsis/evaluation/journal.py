"""Finished images, a line of JSON each, so that a run continues where it was interrupted."""

from __future__ import annotations

import json
import os
from pathlib import Path

from stereopsis.evaluation.protocols import Protocol
from stereopsis.evaluation.results import Row, row_from_plain, row_to_plain


class Journal:
    """Rows on disk: those of an earlier run at once in `rows`, new ones by `add`.

    A line is whole or ignored: each is written and synced by itself, and what an interruption cut off is
    dropped. Without a path nothing is kept. Raises ValueError where the file belongs to another
    predictor or protocol.
    """

    def __init__(self, path: Path | None, *, predictor: str, protocol: Protocol) -> None:
        self._path = path
        self.rows: list[Row] = []
        columns = [[column.name for column in part.columns] for part in protocol.parts]
        header = {"journal": 1, "predictor": predictor, "protocol": protocol.label, "columns": columns}
        if path is None:
            return
        if not path.exists():
            self._append(header)
            return
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if not whole and _line(header).startswith(content):
            path.unlink()
            self._append(header)
            return
        try:
            # What is no journal is somebody's file: never emptied, never appended to.
            found, *rows = (json.loads(line) for line in (whole or content).decode("utf-8").splitlines())
            owner = f"{found['predictor']} on {found['protocol']}"
            self.rows = [row_from_plain(row) for row in rows] if found == header else []
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} cannot be continued: it is damaged or no journal; name another with --journal"
            ) from error
        if found != header:
            raise ValueError(
                f"{path} cannot be continued: it belongs to {owner}; "
                "delete it, or name another with --journal"
            )
        os.truncate(path, len(whole))

    def add(self, row: Row) -> None:
        self._append(row_to_plain(row))

    def _append(self, content: object) -> None:
        if self._path is None:
            return
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, _line(content))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _line(content: object) -> bytes:
    return json.dumps(content, allow_nan=False).encode("utf-8") + b"\n"
