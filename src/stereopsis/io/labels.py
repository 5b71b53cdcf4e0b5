"""A folder of pseudo-labels: what was done for all of its pairs, and one record for each of them.

`labels.json` holds the settings (teacher, filters) of the set. `pairs/<name>/` holds `disparity.pfm`
(pixels), `confidence.png` (255 is 1), `reasons.png` (0 where the pixel is a label, else one bit for each
reason) and, written last, `label.json`. Paths of images are relative to the set's folder.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from stereopsis.io.files import read_json, write_json

SET, RECORD, PAIRS = "labels.json", "label.json", "pairs"
DISPARITY, CONFIDENCE, REASONS = "disparity.pfm", "confidence.png", "reasons.png"
CONFIDENCE_ENCODING = "png8*255"
FORMAT = 1

Status = Literal["labelled", "dropped", "failed"]


@dataclass(frozen=True, kw_only=True)
class LabelRecord:
    """What became of one pair.

    status: `dropped` keeps too few pixels, `failed` could not be labelled, as `failure` says; left, right,
    calibration: paths relative to the set's folder; digests: SHA-256 of both images; size: (height,
    width); kept: share of the pixels that are labels; rejected: share of the pixels by reason; limits:
    smallest and largest disparity kept, pixels; confidence: mean over all pixels; runtime: what ran the
    teacher. stamps: size and time of a failed pair's images, so that it is tried again once they change.
    """

    name: str
    status: Status
    left: str
    right: str
    calibration: str | None = None
    digests: tuple[str, str] = ("", "")
    size: tuple[int, int] = (0, 0)
    kept: float = 0.0
    rejected: Mapping[str, float] = field(default_factory=dict)
    limits: tuple[float, float] = (0.0, 0.0)
    confidence: float = 0.0
    runtime: str = ""
    failure: str = ""
    stamps: tuple[str, str] = ("", "")


def pair_folder(root: Path, name: str) -> Path:
    """Where the labels of a pair lie."""
    return root / PAIRS / name


def relative_path(path: Path, root: Path) -> str:
    """As records hold it."""
    return Path(os.path.relpath(path.resolve(), root.resolve())).as_posix()


def write_record(root: Path, record: LabelRecord) -> None:
    """Writes `label.json`, whole or not at all: from then on the pair is finished."""
    write_json(pair_folder(root, record.name) / RECORD, {"format": FORMAT, **dataclasses.asdict(record)})


def read_record(root: Path, name: str) -> LabelRecord:
    """The record of a pair; FileNotFoundError without one, ValueError where it is damaged."""
    path = pair_folder(root, name) / RECORD
    facts = _checked(read_json(path, "a label"), path)
    try:
        for key in ("digests", "size", "limits", "stamps"):
            first, second = facts[key]
            facts[key] = first, second
        record = LabelRecord(**facts)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no whole record ({error}): remove it and label the pair again"
        ) from error
    if record.status not in get_args(Status):
        raise ValueError(f"{path} has the status {record.status!r}: remove it and label the pair again")
    return record


def list_records(root: Path) -> Iterator[LabelRecord]:
    """Every record of a set, sorted by name."""
    folder = root / PAIRS
    names = (path.parent.relative_to(folder).as_posix() for path in folder.rglob(RECORD))
    return (read_record(root, name) for name in sorted(names))


def write_set(root: Path, settings: Mapping[str, object]) -> None:
    """Writes `labels.json`, whole or not at all."""
    write_json(root / SET, {"format": FORMAT, **settings})


def read_set(root: Path) -> dict[str, Any]:
    """The settings of a set; FileNotFoundError or ValueError where the folder is none."""
    if not (root / SET).is_file():
        raise FileNotFoundError(
            f"{root} is no folder of labels, it has no {SET}: stereopsis label writes one"
        )
    return _checked(read_json(root / SET, "a label set"), root / SET)


def _checked(content: dict[str, Any], path: Path) -> dict[str, Any]:
    if content.pop("format", None) != FORMAT:
        raise ValueError(f"{path} is not of format {FORMAT}, which this version reads: label again")
    return content
