"""`stereopsis render`: a synthetic data set on disk, from a seed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def render(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the scene folders.")],
    distribution: Annotated[
        str,
        typer.Option(help="general, indoor, driving, close-range, low-texture, endoscopy-like or sanity."),
    ] = "general",
    count: Annotated[int, typer.Option(min=1, help="How many pairs.")] = 1000,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the images.")] = "640x480",
    seed: Annotated[int, typer.Option(min=0, help="The data set's seed.")] = 0,
    start: Annotated[int, typer.Option(min=0, help="Index of the first pair.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one a core.")] = None,
    photographs: Annotated[
        Path | None, typer.Option(help="A folder of photographs to cut textures from.")
    ] = None,
) -> None:
    """Render stereo pairs with exact truth of both views: a seed is a data set.

    Run again with the same arguments to continue a run that was stopped; scenes appear whole or not at
    all. The same seed, index and size give the same pair on every machine of the same kind, whatever
    the number of workers. The folder is read back as the data set `scenes`.

    Example: stereopsis render --distribution general --count 1000 --size 640x480 --seed 7 --output synthetic/
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from stereopsis.cli._outputs import check_folder
    from stereopsis.cli._sizes import parse_size
    from stereopsis.synthesis.folder import Order, render_folder

    order = Order(
        output=output,
        distribution=distribution,
        count=count,
        start=start,
        seed=seed,
        size=parse_size(size),
        photographs=photographs,
    )
    check_folder(output)
    with Progress("rendering", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as progress:
        task = progress.add_task("rendering", total=count)
        for _ in render_folder(order, workers=workers or os.cpu_count() or 1):
            progress.advance(task)
    typer.echo(f"{count} scenes in {output}")
