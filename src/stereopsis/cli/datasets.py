"""`stereopsis datasets`: what there is and where; `check`: is truth true; `convert`: quicker files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def datasets(
    action: Annotated[str, typer.Argument(help="list, check, convert, or fetch.")] = "list",
    name: Annotated[str | None, typer.Argument(help="What to check: a data set, or DATASET:SPLIT.")] = None,
    root: Annotated[Path | None, typer.Option("--root", help="The data set's folder.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="How many pairs to check, evenly spread.")] = 8,
    scenes: Annotated[
        list[int] | None, typer.Option("--scene", help="Of fetch: which scenes, repeated.")
    ] = None,
    sheet: Annotated[Path | None, typer.Option("--sheet", help="Write a contact sheet here (PNG).")] = None,
) -> None:
    """List the data sets that can be read, or check that one's truth explains its images.

    `check` opens samples, moves the right image by the truth, and says if scale, sign or side is wrong.

    `convert unrealstereo4k` writes a .raw beside every PNG image, which loads many times faster;
    `fetch unrealstereo4k --scene 3` downloads a scene from its authors' server.

    Example: stereopsis datasets check kitti2015 --root kitti/data_scene_flow --sheet kitti.png
    """
    if action == "list" and name is None:
        _list()
    elif action == "check" and name is not None:
        _check(name, root, samples, sheet)
    elif action == "convert" and name is not None:
        _convert(name, root)
    elif action == "fetch" and name is not None:
        _fetch(name, root, scenes or [])
    else:
        raise ValueError(
            "type `stereopsis datasets`, or `stereopsis datasets check NAME` (or convert, fetch)"
        )


def _fetch(name: str, root: Path | None, scenes: list[int]) -> None:
    from rich.progress import Progress, TaskID

    from stereopsis.data.download import fetch_scene
    from stereopsis.data.sources.registry import dataset_entry

    if name != "unrealstereo4k":
        raise ValueError(f"{name} is fetched from its own page, {dataset_entry(name).card.link}")
    if root is None or not scenes:
        raise ValueError("type `stereopsis datasets fetch unrealstereo4k --scene 3 --root FOLDER`")
    for scene in scenes:
        with Progress(transient=True) as bar:
            task = bar.add_task(f"scene {scene}", total=None)

            def show(here: int, total: int | None, task: TaskID = task, bar: Progress = bar) -> None:
                bar.update(task, completed=here, total=total)

            files = fetch_scene(root, scene, progress=show)
        print(f"scene {scene}: {len(files)} files in {root}")


def _convert(name: str, root: Path | None) -> None:
    from stereopsis.data.conversion import convert_to_raw
    from stereopsis.data.sources.registry import locate

    if name not in ("unrealstereo4k", "unrealstereo4k-active"):
        raise ValueError(f"{name} needs no conversion: only unrealstereo4k has a quicker form, .raw")
    results = [converted.written for converted in convert_to_raw(locate(name, root))]
    print(f"{sum(results)} images written as .raw, {len(results) - sum(results)} were there")


def _list() -> None:
    from rich.console import Console
    from rich.markup import escape

    from stereopsis.data.sources.registry import dataset_entry, list_datasets, locate

    console = Console(soft_wrap=True)
    for name in list_datasets():
        card = dataset_entry(name).card
        try:
            where = f"in {locate(name)}"
        except (ValueError, OSError):
            where = "not found"
        console.print(
            f"[bold]{name}[/bold]  {escape(f'{card.title} ({where})')}", highlight=False, soft_wrap=True
        )
        for line in (
            f"splits: {', '.join(card.splits)}",
            f"pairs: {card.pairs}; images: {card.image}; on disk: {card.disk}",
            f"licence: {card.licence}; {card.link}",
        ):
            console.print(f"    {escape(line)}", highlight=False, soft_wrap=True)


def _check(name: str, root: Path | None, samples: int, sheet: Path | None) -> None:
    from rich.console import Console
    from rich.markup import escape

    from stereopsis.data.dataset import StereoDataset
    from stereopsis.data.sources.registry import list_pairs
    from stereopsis.evaluation.check import AS_GIVEN, check_sample, contact_sheet, verdict
    from stereopsis.io.atomic import check_target
    from stereopsis.io.images import write_image

    if sheet is not None:
        check_target(sheet)
    dataset, _, split = name.partition(":")
    pairs = list_pairs(dataset, split or None, root=root)
    chosen = pairs[:: max(1, len(pairs) // samples)][:samples]
    console, checks, opened, broken = Console(), [], [], []
    for files in chosen:
        try:
            sample = StereoDataset([files])[0]
            found = check_sample(sample)
        except (ValueError, OSError) as error:
            broken.append(f"{files.name}: {error}")
            continue
        checks.append(found)
        opened.append(sample)
        line = (
            f"{found.name}: {found.size[1]}x{found.size[0]}, truth {100 * found.density:.1f} %, "
            f"{found.smallest:.2f} to {found.largest:.2f} px, difference {found.differences[AS_GIVEN]:.3f}, "
            f"with no disparity {found.differences['no disparity']:.3f}"
        )
        console.print(escape(line), highlight=False, soft_wrap=True)
    for line in broken:
        console.print(f"[bold red]broken[/bold red] {escape(line)}", highlight=False, soft_wrap=True)
    if sheet is not None and opened:
        write_image(sheet, contact_sheet(opened))
    result = verdict(checks)
    for fault in result.faults:
        console.print(f"[bold red]wrong[/bold red]: {escape(fault)}", highlight=False, soft_wrap=True)
    if result.faults or broken:
        raise typer.Exit(2)
    console.print(f"{len(checks)} of {len(pairs)} pairs checked: the truth explains the images")
