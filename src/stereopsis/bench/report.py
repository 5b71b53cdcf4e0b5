"""Rows as a table to read and as JSON to keep."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from stereopsis.bench.latency import Plan, Row
from stereopsis.bench.machine import Machine
from stereopsis.io.files import write_json


def bench_table(rows: Sequence[Row], plan: Plan) -> Table:
    """Quickest first; failures last."""
    height, width = plan.size
    table = Table(title=f"{width}x{height}, {plan.threads} threads")
    table.add_column("predictor")
    table.add_column("runtime")
    for title in (
        "median ms",
        "quartiles",
        "least",
        "pairs/s",
        "CPU s",
        "peak MB",
        "load s",
        "Mparam",
        "GMAC",
    ):
        table.add_column(title, justify="right")
    done = sorted((row for row in rows if row.seconds), key=lambda row: row.quantile(0.5))
    for row in [*done, *(row for row in rows if not row.seconds)]:
        if row.error:
            table.add_row(row.contender.name, row.contender.runtime, f"failed: {row.error}")
            continue
        name = row.contender.name + (" (random weights)" if row.contender.random else "")
        table.add_row(
            name,
            row.contender.runtime,
            f"{1000 * row.quantile(0.5):.0f}",
            f"{1000 * row.quantile(0.25):.0f}-{1000 * row.quantile(0.75):.0f}",
            f"{1000 * min(row.seconds):.0f}",
            f"{1 / row.quantile(0.5):.2f}",
            f"{min(row.cpu_seconds):.2f}",
            f"{row.peak_bytes / 1e6:.0f}",
            f"{row.load_seconds:.1f}",
            "" if row.parameters is None else f"{row.parameters / 1e6:.1f}",
            "" if row.multiply_adds is None else f"{row.multiply_adds / 1e9:.1f}",
        )
    return table


def write_bench(
    path: str | Path, rows: Sequence[Row], plan: Plan, *, command: str, before: Machine, after: Machine
) -> None:
    """Everything measured, the machine before and after, and the command that did it."""
    facts = {
        "command": command,
        "plan": dataclasses.asdict(plan),
        "machine": dataclasses.asdict(before),
        "load_average_after": after.load_average,
        "loaded": before.loaded or after.loaded,
        "rows": [_row(row) for row in rows],
    }
    write_json(path, facts)


def _row(row: Row) -> dict[str, object]:
    facts = dataclasses.asdict(row)
    facts["contender"]["predictor"] = Path(row.contender.predictor).name
    if row.seconds:
        facts["summary"] = {
            "median": row.quantile(0.5),
            "quartiles": [row.quantile(0.25), row.quantile(0.75)],
            "least": min(row.seconds),
            "least_cpu": min(row.cpu_seconds),
            "pairs_per_second": 1 / row.quantile(0.5),
        }
    return facts
