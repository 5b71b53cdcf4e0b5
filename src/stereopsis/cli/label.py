"""`stereopsis label`: a folder of pairs labelled by a teacher, as far as it can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from stereopsis.io.labels import LabelRecord
    from stereopsis.labelling.label import Order
    from stereopsis.labelling.report import LabelSummary


def label(
    input: Annotated[str, typer.Argument(help="A folder or a glob of rectified pairs.")],  # noqa: A002
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the labels.")],
    teacher: Annotated[
        str, typer.Option("--teacher", help="A name of stereopsis models, or a file.")
    ] = "sgbm",
    weights: Annotated[Path | None, typer.Option("--weights", help="Weights of a teacher by name.")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Refinement steps of the teacher.")] = None,
    max_disparity: Annotated[
        int | None, typer.Option(help="Largest disparity that the teacher searches, and that is kept.")
    ] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Average with the pair turned upside down.")] = False,
    scales: Annotated[str, typer.Option(help="Average with these scales of the pair, such as 0.5,1.5.")] = "",
    scale: Annotated[float, typer.Option(help="Predict at this scale of the images.")] = 1.0,
    max_memory: Annotated[
        str | None, typer.Option(help="Such as 2G: larger pairs go through in tiles.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...")] = None,
    precision: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    confidence: Annotated[float, typer.Option(help="Smallest confidence kept; 0 keeps all.")] = 0.5,
    left_right: Annotated[
        float, typer.Option(help="Pixels by which both views may differ; 0 switches off.")
    ] = 1.0,
    min_disparity: Annotated[float, typer.Option(help="Smallest disparity kept, pixels.")] = 0.0,
    photometric: Annotated[
        float, typer.Option(help="Largest difference of the matched images, 0..1; 0 switches off.")
    ] = 0.1,
    sky: Annotated[bool, typer.Option("--sky/--keep-sky", help="Drop what looks like sky.")] = True,
    saturated: Annotated[
        bool, typer.Option("--saturated/--keep-saturated", help="Drop burnt out and black areas.")
    ] = True,
    min_kept: Annotated[float, typer.Option(help="Drop pairs of which a smaller share is kept.")] = 0.1,
    expiry: Annotated[
        float, typer.Option(help="Seconds after which a silent process elsewhere counts as dead.")
    ] = 60.0,
    retry: Annotated[bool, typer.Option("--retry", help="Try the pairs that failed again.")] = False,
) -> None:
    """Label pairs with a teacher: disparity, confidence, a reason for every rejected pixel, a report.

    Run again to continue; run in several processes, or on several machines that share the folder, to be
    done sooner. The folder is read as the data set `labelled`, with confidence as weight.

    Example: stereopsis label pairs/ --teacher selective-igev --weights sceneflow.pth --output labels/
    """
    from stereopsis.cli._outputs import check_folder
    from stereopsis.cli.predict import parse_memory
    from stereopsis.labelling.filters import Filters
    from stereopsis.labelling.label import Order
    from stereopsis.labelling.teacher import Teacher
    from stereopsis.prediction.augmented import Variants
    from stereopsis.prediction.composition import Wrapping

    if not 0 <= min_kept <= 1:
        raise ValueError(f"--min-kept is a share between 0 and 1, not {min_kept:g}")
    check_folder(output)
    filters = Filters(
        confidence=confidence or None,
        left_right=left_right or None,
        min_disparity=min_disparity,
        max_disparity=None if max_disparity is None else float(max_disparity),
        photometric=photometric or None,
        sky=sky,
        saturated=saturated,
    )
    given = {
        "iterations": iterations,
        "max_disparity": max_disparity,
        "device": device,
        "precision": precision,
    }
    loaded = Teacher.load(
        teacher,
        weights=weights,
        options={key: value for key, value in given.items() if value is not None},
        wrapping=Wrapping(scale=scale, max_memory=None if max_memory is None else parse_memory(max_memory)),
        variants=Variants(flip=flip, scales=_numbers(scales, "--scales")),
        both=filters.left_right is not None,
    )
    order = Order(input=input, output=output, teacher=loaded, filters=filters, min_kept=min_kept)
    summary = _run(order, expiry=expiry, retry=retry)
    _say(summary, output)
    if summary.labelled == 0:
        raise ValueError(f"no pair of {input} is labelled: see {output / 'report.html'}")


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ValueError(f"{option} takes numbers with commas between, not {text!r}") from None


def _run(order: Order, *, expiry: float, retry: bool) -> LabelSummary:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from stereopsis.io.pairs import find_pairs
    from stereopsis.labelling.engine import SharedFolder
    from stereopsis.labelling.label import CLAIMS, forget_failures, label
    from stereopsis.labelling.report import write_summary

    if retry:
        forget_failures(order.output)
    engine = SharedFolder(folder=order.output / CLAIMS, expiry=expiry)
    with Progress("labelling", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as progress:
        task = progress.add_task("labelling", total=len(find_pairs(order.input)))
        for record in label(order, engine=engine):
            progress.advance(task)
            _warn(record)
    return write_summary(order.output, engine=engine)


def _warn(record: LabelRecord) -> None:
    if record.status == "failed":
        typer.echo(f"failed {record.name}: {record.failure}", err=True)


def _say(summary: LabelSummary, output: Path) -> None:
    typer.echo(
        f"{summary.labelled} of {summary.pairs} pairs labelled, {summary.kept:.1%} of their pixels kept; "
        f"{len(summary.dropped)} dropped, {len(summary.failed)} failed: {output / 'report.html'}"
    )
