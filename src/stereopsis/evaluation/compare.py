"""Two evaluations of one protocol side by side: paired differences and how sure they are.

Differences are paired image by image, averaged as the protocol averages, with a 95 % interval from the
percentiles of a bootstrap over what the protocol averages last: images, or data sets. Few of these (ten
data sets) make intervals too narrow rather than too wide.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from stereopsis.evaluation.measure import poolable
from stereopsis.evaluation.protocols import Column, Part, protocol_of
from stereopsis.evaluation.results import Evaluation, Row
from stereopsis.evaluation.tables import formatted

_LEVEL = 0.95
_CHUNK = 250


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A column of both evaluations over the images that have it in both. difference: second - first;
    low, high: 95 % interval, NaN with fewer than two units; units: what was resampled; lower, higher:
    images where the second is below, above the first."""

    part: int
    column: str
    first: float
    second: float
    difference: float
    low: float
    high: float
    images: int
    units: str
    lower: int
    higher: int


@dataclass(frozen=True)
class Comparison:
    """notes: images that only one of the two has, and failures."""

    first: str
    second: str
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]


def compare(first: Evaluation, second: Evaluation, *, resamples: int = 10_000, seed: int = 0) -> Comparison:
    """Every column of both; ValueError where the protocols differ or no image is in both."""
    if first.protocol != second.protocol:
        raise ValueError(
            f"{first.predictor} was measured by {first.protocol}, {second.predictor} by {second.protocol}: "
            "only figures of one protocol can be compared"
        )
    protocol = protocol_of(first.protocol)
    others = {(row.part, row.name): row for row in second.rows}
    pairs = [(row, others[key]) for row in first.rows if (key := (row.part, row.name)) in others]
    if not pairs:
        raise ValueError(f"no image is in both {first.predictor} and {second.predictor}: nothing to compare")
    random = np.random.default_rng(seed)
    differences = []
    for index, part in enumerate(protocol.parts):
        own = [pair for pair in pairs if pair[0].part == index]
        for place, column in enumerate(part.columns):
            known = [pair for pair in own if not any(math.isnan(row.figures[place].value) for row in pair)]
            if known:
                differences.append(_difference(index, part, column, place, known, resamples, random))
    return Comparison(
        first.predictor, second.predictor, tuple(differences), _notes(first, second, len(pairs))
    )


def comparison_table(comparison: Comparison, *, part: int, title: str) -> Table:
    table = Table(title=f"{title}: {comparison.second} against {comparison.first}")
    table.add_column("metric, mask")
    for heading in (
        comparison.first,
        comparison.second,
        "difference",
        "95 % interval",
        "lower/higher",
        "units",
    ):
        table.add_column(heading, justify="right", overflow="fold")
    for found in comparison.differences:
        if found.part != part:
            continue
        numbers = (formatted(found.column, v) for v in (found.first, found.second, found.difference))
        interval = (
            "-"
            if math.isnan(found.low)
            else " to ".join(formatted(found.column, bound) for bound in (found.low, found.high))
        )
        table.add_row(found.column, *numbers, interval, f"{found.lower}/{found.higher}", found.units)
    return table


def changes_table(first: Evaluation, second: Evaluation, *, part: int, count: int) -> Table:
    """The images whose first column fell most, and those where it rose most."""
    column = first.columns[part][0]
    others = {row.name: row for row in second.rows if row.part == part}
    pairs = [(row, others[row.name]) for row in first.rows if row.part == part and row.name in others]
    changes = [(b.figures[0].value - a.figures[0].value, a, b) for a, b in pairs]
    known = sorted((c for c in changes if not math.isnan(c[0])), key=lambda change: change[0])
    shown = known if len(known) <= 2 * count else [*known[:count], *known[len(known) - count :]]
    table = Table(title=f"{column}, the images that changed most")
    table.add_column("image", overflow="fold")
    for heading in (first.predictor, second.predictor, "difference"):
        table.add_column(heading, justify="right", overflow="fold")
    for difference, a, b in shown:
        values = a.figures[0].value, b.figures[0].value, difference
        table.add_row(a.name, *(formatted(column, value) for value in values))
    return table


def _difference(
    index: int,
    part: Part,
    column: Column,
    place: int,
    pairs: Sequence[tuple[Row, Row]],
    resamples: int,
    random: np.random.Generator,
) -> Difference:
    values = np.array([[row.figures[place].value for row in pair] for pair in pairs])
    weights = np.ones_like(values)
    units = "images"
    if part.averaging == "pixels" and poolable(column.metric):
        weights = np.array([[row.figures[place].pixels for row in pair] for pair in pairs], float)
    elif part.averaging == "weighted":
        weights = np.array([[part.weights.get(row.name, 1.0) for row in pair] for pair in pairs])
    lower = int((values[:, 1] < values[:, 0]).sum())
    higher = int((values[:, 1] > values[:, 0]).sum())
    if part.averaging == "datasets":
        values = _grouped(values, [row.dataset for row, _ in pairs])
        weights, units = np.ones_like(values), "data sets"
    means = (values * weights).sum(0) / weights.sum(0)
    low, high = _interval(values, weights, resamples, random)
    return Difference(
        part=index,
        column=column.name,
        first=float(means[0]),
        second=float(means[1]),
        difference=float(means[1] - means[0]),
        low=low,
        high=high,
        images=len(pairs),
        units=f"{len(values)} {units}",
        lower=lower,
        higher=higher,
    )


def _grouped(values: np.ndarray, names: Sequence[str]) -> np.ndarray:
    groups: dict[str, list[np.ndarray]] = defaultdict(list)
    for name, value in zip(names, values, strict=True):
        groups[name].append(value)
    return np.array([np.mean(group, axis=0) for group in groups.values()])


def _interval(
    values: np.ndarray, weights: np.ndarray, resamples: int, random: np.random.Generator
) -> tuple[float, float]:
    """Percentiles of the difference over resampled units, a few resamples at a time."""
    count = len(values)
    if count < 2 or not np.isfinite(values).all():
        return math.nan, math.nan
    found = []
    for start in range(0, resamples, _CHUNK):
        drawn = random.integers(0, count, (min(_CHUNK, resamples - start), count))
        total = (values * weights)[drawn].sum(1) / weights[drawn].sum(1)
        found.append(total[:, 1] - total[:, 0])
    low, high = np.quantile(np.concatenate(found), [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


def _notes(first: Evaluation, second: Evaluation, paired: int) -> tuple[str, ...]:
    notes = []
    for evaluation in (first, second):
        alone = len(evaluation.rows) - paired
        if alone:
            notes.append(f"{alone} images are only in {evaluation.predictor} and are left out")
        if evaluation.failures:
            notes.append(f"{len(evaluation.failures)} images failed with {evaluation.predictor}")
        notes += [f"{evaluation.predictor}: {note}" for note in evaluation.notes if note.startswith("LEAK")]
    return tuple(notes)
