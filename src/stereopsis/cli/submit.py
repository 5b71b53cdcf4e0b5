"""`stereopsis submit`: a benchmark's archive, written and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def submit(
    predictor: Annotated[
        str, typer.Argument(help="A name, a weights or exported file, or a folder of disparities.")
    ],
    benchmark: Annotated[str, typer.Argument(help="kitti2012, kitti2015, middlebury-v3-q, -h, -f or eth3d.")],
    output: Annotated[Path, typer.Option("--output", help="The .zip to write.")],
    root: Annotated[Path | None, typer.Option("--root", help="The data set's folder.")] = None,
    method: Annotated[str, typer.Option(help="The method's name in Middlebury's file names.")] = "stereopsis",
    weights: Annotated[Path | None, typer.Option("--weights", help="Weights for a network by name.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Refinement steps of an iterative network.")] = None,
    max_disparity: Annotated[int | None, typer.Option(help="Largest disparity searched, in pixels.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...")] = None,
    check_only: Annotated[
        bool, typer.Option("--check", help="Write nothing: check the archive that --output names.")
    ] = False,
) -> None:
    """Predict a benchmark's pairs, pack them as it wants, check the archive against its rules.

    Example: stereopsis submit fast kitti2015 --root kitti/data_scene_flow --output fast-kitti2015.zip
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    from stereopsis.evaluation import submission
    from stereopsis.evaluation.contestants import contestant

    wanted = submission.benchmark(benchmark)
    pairs = submission.submission_pairs(wanted, root)
    console = Console()
    if not check_only:
        given = {"iterations": iterations, "max_disparity": max_disparity, "device": device}
        options = {key: value for key, value in given.items() if value is not None}
        found = contestant(predictor, weights=weights, **options)
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("predicting", total=len(pairs))
            submission.write_submission(
                output, found.predictor, wanted, pairs, method=method, advance=lambda: progress.advance(task)
            )
    faults = submission.check_submission(output, wanted, pairs, method=method)
    for fault in faults:
        console.print(f"[bold red]wrong[/bold red]: {escape(fault)}", highlight=False, soft_wrap=True)
    if faults:
        raise typer.Exit(2)
    console.print(
        escape(f"{output}: {len(pairs)} pairs, as {wanted.name} wants them"), highlight=False, soft_wrap=True
    )
