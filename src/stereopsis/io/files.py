"""Files that users name: found, or refused with one sentence that says what to do."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stereopsis.io.atomic import writing


def existing_file(path: str | Path, what: str) -> Path:
    """The path of a regular, non-empty file.

    Raises FileNotFoundError (naming the nearest file of the folder) and ValueError for a folder or an
    empty file; `what` names what was expected, as in "an image".
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name {what} file inside it")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}: {_hint(path)}")
    if path.is_file() and path.stat().st_size == 0:
        raise ValueError(f"{path} is empty: {what} file was expected, copy or export it again")
    return path


def existing_folder(path: str | Path) -> Path:
    """The path of a folder; FileNotFoundError or ValueError where there is none."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no folder {path}: {_hint(path)}")
    if not path.is_dir():
        raise ValueError(f"{path} is a file: a folder was expected")
    return path


def read_bytes(path: str | Path, what: str) -> bytes:
    """The content of `existing_file`."""
    return existing_file(path, what).read_bytes()


def read_text(path: str | Path, what: str) -> str:
    """The content of `existing_file` as UTF-8 text; ValueError where it is none."""
    try:
        return read_bytes(path, what).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file: {what} file was expected") from error


def read_json(path: str | Path, what: str) -> dict[str, Any]:
    """The object of a JSON file; ValueError where it is none."""
    try:
        value = json.loads(read_text(path, what))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no valid JSON ({error}): {what} file was expected") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no JSON object: {what} file was expected")
    return value


def _hint(path: Path) -> str:
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist either"
    near = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    return f"did you mean {path.with_name(near[0])}?" if near else "check the name"


def write_json(path: str | Path, content: Mapping[str, object]) -> None:
    """JSON for people and programs, whole or not at all; ValueError for NaN and infinity."""
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
