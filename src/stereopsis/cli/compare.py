"""`stereopsis compare`: two evaluations of one protocol, paired image by image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compare(
    first: Annotated[Path, typer.Argument(help="JSON of stereopsis evaluate.")],
    second: Annotated[Path, typer.Argument(help="JSON of stereopsis evaluate, the same protocol.")],
    resamples: Annotated[int, typer.Option(min=100, help="Draws of the bootstrap.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
) -> None:
    """Differences of the second to the first, with 95 % confidence intervals.

    Example: stereopsis compare sgbm.json fast.json
    """
    from rich.console import Console
    from rich.markup import escape

    from stereopsis.evaluation.compare import compare as run
    from stereopsis.evaluation.compare import comparison_table
    from stereopsis.evaluation.results import read_evaluation

    evaluations = read_evaluation(first), read_evaluation(second)
    comparison = run(*evaluations, resamples=resamples, seed=seed)
    console = Console()
    for part, label in enumerate(evaluations[0].parts):
        console.print(comparison_table(comparison, part=part, title=label))
    for note in comparison.notes:
        console.print(f"[bold]note[/bold]: {escape(note)}", highlight=False)
