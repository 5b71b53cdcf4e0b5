"""`stereopsis train`: settings as KEY=VALUE, on from wherever the same output stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    settings: Annotated[
        list[str] | None,
        typer.Argument(help="KEY=VALUE: experiment=NAME, model.name=..., data.batch_size=..., output=FOLDER"),
    ] = None,
    experiments: Annotated[bool, typer.Option("--experiments", help="List the recipes and stop.")] = False,
) -> None:
    """Train any registered network; the same command again goes on from the last checkpoint.

    Example: stereopsis train experiment=overfit output=runs/overfit
    """
    from stereopsis.training.config import list_experiments, read_settings

    if experiments:
        typer.echo("\n".join(list_experiments()))
        return
    from stereopsis.cli._outputs import check_folder
    from stereopsis.training.main import exit_code
    from stereopsis.training.main import train as run

    if not settings:
        raise ValueError(
            "say what to train: experiment=NAME (stereopsis train --experiments lists them), or "
            "model.name=... with data.sources=..."
        )
    chosen = read_settings(settings)
    check_folder(Path(chosen.output))
    result = run(chosen)
    figures = ", ".join(f"{name} {value:.4g}" for name, value in sorted(result.metrics.items()))
    if result.interrupted is not None:
        typer.echo(
            f"stopped at step {result.steps}: the same command goes on from {result.checkpoint}", err=True
        )
    else:
        typer.echo(f"{result.steps} steps: {figures}; weights in {result.weights}")
    raise typer.Exit(exit_code(result))
