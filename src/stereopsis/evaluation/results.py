"""What an evaluation found: rows, averages, failures; as JSON and back.

Averages leave out images without the number (an empty or absent mask) and say how many those were.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from stereopsis.evaluation.measure import Curves, Figure, poolable
from stereopsis.evaluation.protocols import Column, Part, Protocol
from stereopsis.io.files import read_json, write_json

FORMAT = "stereopsis-evaluation/1"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image: `part` is the place of its part in the protocol; figures in the order of its columns;
    seconds: what the prediction took; pixels: height times width as predicted."""

    part: int
    name: str
    dataset: str
    figures: tuple[Figure, ...]
    curves: Curves
    seconds: float
    size: tuple[int, int]


@dataclass(frozen=True)
class Failure:
    """An image that gave no row, and why."""

    part: int
    name: str
    reason: str


@dataclass(frozen=True)
class Average:
    """A column's average over `images` images; `empty` images had no such number."""

    part: int
    column: str
    value: float
    images: int
    empty: int


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A protocol's outcome for a predictor; digest: SHA-256 of its weights, empty where it has none;
    notes: what the reader must know (a leak allowed, a count); description: what the figures mean."""

    predictor: str
    protocol: str
    digest: str = ""
    parts: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...]
    averages: tuple[Average, ...]
    rows: tuple[Row, ...]
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()
    description: tuple[str, ...] = field(default=())

    def value(self, column: str, *, part: int = 0) -> float:
        """The average of a column; ValueError where the protocol has none of that name."""
        for average in self.averages:
            if (average.part, average.column) == (part, column):
                return average.value
        raise ValueError(f"{self.protocol} has no column {column!r}: it has {', '.join(self.columns[part])}")


def averages(protocol: Protocol, rows: Sequence[Row]) -> tuple[Average, ...]:
    """Every column of every part, averaged as the part says."""
    found = []
    for index, part in enumerate(protocol.parts):
        own = [row for row in rows if row.part == index]
        for place, column in enumerate(part.columns):
            pairs = [(row, row.figures[place]) for row in own]
            known = [(row, figure) for row, figure in pairs if not math.isnan(figure.value)]
            value = _average(part, column, known)
            found.append(Average(index, column.name, value, len(known), len(pairs) - len(known)))
    return tuple(found)


def _average(part: Part, column: Column, known: Sequence[tuple[Row, Figure]]) -> float:
    if not known:
        return math.nan
    if part.averaging == "pixels" and poolable(column.metric):
        pixels = sum(figure.pixels for _, figure in known)
        return sum(figure.value * figure.pixels for _, figure in known) / pixels if pixels else math.nan
    if part.averaging == "datasets":
        grouped: dict[str, list[float]] = defaultdict(list)
        for row, figure in known:
            grouped[row.dataset].append(figure.value)
        return fmean(fmean(values) for values in grouped.values())
    if part.averaging == "weighted":
        weights = [part.weights.get(row.name, 1.0) for row, _ in known]
        return sum(w * figure.value for w, (_, figure) in zip(weights, known, strict=True)) / sum(weights)
    return fmean(figure.value for _, figure in known)


def write_evaluation(path: str | Path, evaluation: Evaluation) -> None:
    """JSON, whole or not at all; NaN and infinity are written as null and "inf"."""
    content = {"format": FORMAT, **_plain(asdict(evaluation))}
    write_json(path, content)


def read_evaluation(path: str | Path) -> Evaluation:
    """What `write_evaluation` wrote; ValueError where the file is something else."""
    content = read_json(path, "an evaluation")
    if content.get("format") != FORMAT:
        raise ValueError(f"{path} is no evaluation ({FORMAT}): name what stereopsis evaluate --json wrote")
    try:
        return Evaluation(
            predictor=content["predictor"],
            protocol=content["protocol"],
            digest=content["digest"],
            parts=tuple(content["parts"]),
            columns=tuple(tuple(names) for names in content["columns"]),
            averages=tuple(Average(**(a | {"value": number(a["value"])})) for a in content["averages"]),
            rows=tuple(row_from_plain(row) for row in content["rows"]),
            failures=tuple(Failure(**failure) for failure in content["failures"]),
            notes=tuple(content["notes"]),
            description=tuple(content["description"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is a damaged evaluation ({error}): run it again") from error


def row_to_plain(row: Row) -> Mapping[str, Any]:
    """The row in what JSON can hold."""
    return _plain(asdict(row))


def row_from_plain(content: Mapping[str, Any]) -> Row:
    """The row that `row_to_plain` gave; KeyError or TypeError where it is none."""
    curves = content["curves"]
    return Row(
        part=content["part"],
        name=content["name"],
        dataset=content["dataset"],
        figures=tuple(Figure(number(f["value"]), f["pixels"]) for f in content["figures"]),
        curves=Curves(
            tuple(curves["histogram"]), _numbers(curves["by_confidence"]), _numbers(curves["by_error"])
        ),
        seconds=content["seconds"],
        size=(content["size"][0], content["size"][1]),
    )


def number(value: float | str | None) -> float:
    """A number as JSON holds it: null is NaN, "inf" infinity."""
    return math.nan if value is None else float(value)


def _numbers(values: Iterable[float | str | None]) -> tuple[float, ...]:
    return tuple(number(value) for value in values)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
