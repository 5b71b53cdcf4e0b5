"""`stereopsis evaluate`: a predictor measured by a named protocol, or on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from stereopsis.evaluation.pictures import Pictures
    from stereopsis.evaluation.protocols import Protocol
    from stereopsis.evaluation.results import Evaluation, Row
    from stereopsis.structures import StereoOutput, StereoSample

ROWS_SHOWN = 40
"""Image by image up to here, unless asked for."""


def evaluate(
    predictor: Annotated[
        str,
        typer.Argument(help="A name, a weights or exported file, sgbm-oracle, or a folder of disparities."),
    ],
    protocol: Annotated[
        str, typer.Argument(help="A protocol, DATASET or DATASET:SPLIT, or synthetic:DISTRIBUTION.")
    ],
    root: Annotated[
        list[str] | None, typer.Option("--root", help="The data set's folder, or DATASET=FOLDER, repeated.")
    ] = None,
    weights: Annotated[Path | None, typer.Option("--weights", help="Weights for a network by name.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Refinement steps of an iterative network.")] = None,
    max_disparity: Annotated[int | None, typer.Option(help="Largest disparity searched, in pixels.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...")] = None,
    precision: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    record: Annotated[Path | None, typer.Option(help="The recorded baseline of sgbm-oracle.")] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write everything measured here.")] = None,
    report: Annotated[Path | None, typer.Option("--report", help="Write an HTML report here.")] = None,
    journal: Annotated[
        Path | None, typer.Option(help="Finished images; continued if it exists (else beside --json).")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first images of each part.")] = None,
    rows: Annotated[bool, typer.Option("--rows", help="Print every image, however many.")] = False,
    allow_leak: Annotated[
        bool, typer.Option("--allow-leak", help="Measure on images that the weights were trained on.")
    ] = False,
) -> None:
    """Measure a predictor: averages with their meaning, image by image, JSON, an HTML report.

    Ends with an error where an image could not be measured; the others are finished first. Run again
    with the same --json or --journal to continue an interrupted run.

    Example: stereopsis evaluate sgbm open --json sgbm.json --report sgbm.html
    """
    from stereopsis.evaluation.contestants import contestant, leak_note
    from stereopsis.evaluation.pictures import Pictures
    from stereopsis.evaluation.report import write_report
    from stereopsis.evaluation.results import write_evaluation
    from stereopsis.evaluation.run import evaluate as run
    from stereopsis.io.atomic import check_target

    for path in (json, report, journal):
        if path is not None:
            check_target(path)
    wanted = protocol_named(protocol)
    given = {
        "iterations": iterations,
        "max_disparity": max_disparity,
        "device": device,
        "precision": precision,
    }
    options = {key: value for key, value in given.items() if value is not None}
    found = contestant(predictor, weights=weights, record=record, **options)
    notes = leak_note(found, wanted, allowed=allow_leak)
    journal = journal or _beside(json or report)
    pictures = Pictures(report.with_name(f".{report.stem}.pictures")) if report else None
    with _Progress(pictures) as progress:
        evaluation = run(
            found.predictor,
            wanted,
            name=found.name,
            digest=found.digest,
            roots=roots_of(root or [], wanted),
            journal=journal,
            observe=progress.advance,
            on_start=progress.start,
            limit=limit,
            notes=notes,
        )
    _print(evaluation, rows=rows)
    if json is not None:
        write_evaluation(json, evaluation)
    if report is not None and pictures is not None:
        write_report(report, evaluation, pictures)
    if evaluation.failures:
        raise typer.Exit(2)
    if journal is not None:
        journal.unlink(missing_ok=True)
    if pictures is not None:
        pictures.remove()


class _Progress:
    """A progress bar on the terminal that also takes pictures."""

    def __init__(self, pictures: Pictures | None) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._pictures = pictures
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self._bar = Progress(*columns, transient=True)
        self._task = self._bar.add_task("measuring", total=None)

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def start(self, total: int, done: int) -> None:
        self._bar.update(self._task, total=total, completed=done)

    def advance(self, row: Row, sample: StereoSample, output: StereoOutput) -> None:
        if self._pictures is not None:
            self._pictures.add(row, sample, output)
        self._bar.advance(self._task)


def protocol_named(name: str) -> Protocol:
    from stereopsis.data.sources.registry import dataset_entry, list_datasets
    from stereopsis.evaluation.protocols import SYNTHETIC, dataset_protocol, list_protocols, protocol

    if name in list_protocols():
        return protocol(name)
    dataset, _, split = name.partition(":")
    if dataset == SYNTHETIC:
        return dataset_protocol(SYNTHETIC, split or "general")
    if split or dataset in list_datasets():
        return dataset_protocol(dataset, split or dataset_entry(dataset).card.splits[0])
    raise ValueError(
        f"{name!r} is neither a protocol ({', '.join(list_protocols())}) nor a data set (stereopsis datasets)"
    )


def roots_of(given: list[str], protocol: Protocol) -> dict[str, Path]:
    names = {part.dataset for part in protocol.parts}
    roots = {}
    for entry in given:
        name, equals, folder = entry.partition("=")
        if equals and name in names:
            roots[name] = Path(folder)
        elif len(names) == 1:
            roots[next(iter(names))] = Path(entry)
        else:
            raise ValueError(
                f"--root {entry}: the protocol has {', '.join(sorted(names))}: write NAME=FOLDER"
            )
    return roots


def _beside(path: Path | None) -> Path | None:
    return None if path is None else path.with_name(f".{path.stem}.journal.jsonl")


def _print(evaluation: Evaluation, *, rows: bool) -> None:
    from rich.markup import escape

    from stereopsis.evaluation.tables import averages_table, console, rows_table

    terminal = console()
    for part in range(len(evaluation.parts)):
        if rows or sum(row.part == part for row in evaluation.rows) <= ROWS_SHOWN:
            terminal.print(rows_table(evaluation, part=part, columns=evaluation.columns[part][:5]))
        terminal.print(averages_table(evaluation, part=part))
    for line in evaluation.description:
        terminal.print(escape(line), highlight=False, soft_wrap=True)
    for note in evaluation.notes:
        terminal.print(f"[bold]note[/bold]: {escape(note)}", highlight=False, soft_wrap=True)
    for failure in evaluation.failures:
        line = escape(f"{failure.name}: {failure.reason}")
        terminal.print(f"[bold red]failed[/bold red] {line}", highlight=False, soft_wrap=True)
