"""`stereopsis compare`: two evaluations of one protocol, paired image by image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compare(
    first: Annotated[Path, typer.Argument(help="JSON of stereopsis evaluate.")],
    second: Annotated[Path, typer.Argument(help="JSON of stereopsis evaluate, the same protocol.")],
    resamples: Annotated[int, typer.Option(min=100, help="Draws of the bootstrap.")] = 10_000,
    changes: Annotated[int, typer.Option(min=0, help="How many images to show at each end.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
) -> None:
    """Differences of the second to the first, 95 % intervals, and the images that changed most.

    Example: stereopsis compare sgbm.json fast.json
    """
    from rich.markup import escape

    from stereopsis.evaluation.compare import changes_table, comparison_table
    from stereopsis.evaluation.compare import compare as run
    from stereopsis.evaluation.results import read_evaluation
    from stereopsis.evaluation.tables import console

    evaluations = read_evaluation(first), read_evaluation(second)
    comparison = run(*evaluations, resamples=resamples, seed=seed)
    terminal = console()
    for part, label in enumerate(evaluations[0].parts):
        terminal.print(comparison_table(comparison, part=part, title=label))
        terminal.print(changes_table(*evaluations, part=part, count=changes))
    for note in comparison.notes:
        terminal.print(f"[bold]note[/bold]: {escape(note)}", highlight=False, soft_wrap=True)
