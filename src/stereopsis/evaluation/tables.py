"""Evaluations as text: the averages with what they mean, the images one by one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from rich.console import Console
from rich.table import Table

from stereopsis.evaluation.results import Evaluation, Row

_SHARES = ("bad-", "d1", "density", "delta-", "ece-")


def console() -> Console:
    """The terminal; where output goes into a file or a pipe, wide enough that names stay whole."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=150)


def formatted(column: str, value: float) -> str:
    """A number as people read it: shares in percent, pixels with two digits, a dash for none."""
    if math.isnan(value):
        return "-"
    if column.startswith(_SHARES):
        return f"{100 * value:.2f} %"
    return f"{value:.3f}"


def averages_table(evaluation: Evaluation, *, part: int) -> Table:
    """One line per column: its average, over how many images, how many had no such pixels."""
    seconds = [row.seconds for row in evaluation.rows if row.part == part]
    table = Table(
        title=f"{evaluation.predictor} on {evaluation.protocol}: {evaluation.parts[part]}",
        caption=f"{len(seconds)} images, median {median(seconds):.2f} s each" if seconds else None,
    )
    table.add_column("metric, mask")
    for heading in ("value", "images", "without"):
        table.add_column(heading, justify="right")
    for average in evaluation.averages:
        if average.part == part:
            value = formatted(average.column, average.value)
            table.add_row(average.column, value, str(average.images), str(average.empty or ""))
    return table


def rows_table(evaluation: Evaluation, *, part: int, columns: Sequence[str] | None = None) -> Table:
    """One line per image, the worst in the first column first."""
    names = evaluation.columns[part]
    shown = [name for name in names if columns is None or name in columns]
    table = Table(title=f"{evaluation.parts[part]}, image by image")
    table.add_column("image", overflow="fold")
    for name in shown:
        table.add_column(name, justify="right")
    table.add_column("s", justify="right")
    for row in worst_first(evaluation, part=part):
        values = [row.figures[names.index(name)].value for name in shown]
        cells = [formatted(name, value) for name, value in zip(shown, values, strict=True)]
        table.add_row(row.name, *cells, f"{row.seconds:.2f}")
    return table


def worst_first(evaluation: Evaluation, *, part: int) -> list[Row]:
    """The rows of a part by its first column, the largest first, those without a number last."""
    own = [row for row in evaluation.rows if row.part == part]
    return sorted(
        own, key=lambda row: -math.inf if math.isnan(v := row.figures[0].value) else v, reverse=True
    )
