"""`stereopsis doctor`: is the pair at fault? Rows, order, range, exposure, and the calibration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from stereopsis.inspection import Inspection
    from stereopsis.structures import StereoPair

FRAMES = 5
"""Of a video, evenly spread: rows do not change with time."""
UNCOUNTED = 25
"""Every how many frames one is taken where the container does not say how many there are."""


def doctor(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="LEFT RIGHT", help="Two images, or a folder, a glob, or a side-by-side video."
        ),
    ],
    calibration: Annotated[
        Path | None,
        typer.Option("--calibration", help="Of the pair; else the file that lies beside it."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pictures.")] = Path("doctor"),
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Whether a pair can be matched: what is wrong with it, and what to do, told by features that match.

    Faults (exit code 2): rows that differ, exchanged or converging views, views of different scenes, equal
    views, a calibration that cannot be theirs. Hints: large disparities, unlike exposure or focus.
    Writes a picture of each pair with matched features joined: level green lines are right. Of a video
    five frames are taken, evenly spread.

    Example: stereopsis doctor left.png right.png --calibration calib.txt
    """
    from stereopsis.cli._inputs import check_inputs
    from stereopsis.cli._outputs import check_folder

    check_inputs(inputs)
    check_folder(output)
    alone, patients = _patients(inputs, calibration)
    reports, sound = [], True
    for patient in patients:
        try:
            found, picture = _examined(patient, output)
        except (ValueError, OSError) as error:
            if alone:
                raise
            sound = False
            typer.echo(f"error: {patient.name}: {' '.join(str(error).split())}", err=True)
            continue
        sound = sound and found.sound
        if json:
            reports.append(_report(patient.name, found, picture))
        else:
            typer.echo("\n".join(_lines(patient.name, found, picture)))
    if json:
        import json as json_

        typer.echo(json_.dumps(reports, indent=1))
    if not sound:
        raise typer.Exit(2)


@dataclass(frozen=True)
class _Patient:
    """A pair to come, how it is opened, and the file of its calibration."""

    name: str
    open: Callable[[], StereoPair]
    calibration: Path | None


def _patients(inputs: list[str], calibration: Path | None) -> tuple[bool, Iterator[_Patient]]:
    """Whether there is one pair alone, and every pair; a calibration that is given is that of all."""
    from stereopsis.cli._inputs import named_pairs
    from stereopsis.io.video import VIDEO_SUFFIXES
    from stereopsis.structures import StereoPair

    first = Path(inputs[0])
    if len(inputs) == 1 and first.suffix.lower() in VIDEO_SUFFIXES:
        return False, _frames(first, calibration)
    pairs = named_pairs(inputs)
    return len(pairs) == 1, (
        _Patient(
            paths.name,
            lambda paths=paths: StereoPair.open(paths.left, paths.right),
            calibration or (paths.calibration if paths.rectified else None),
        )
        for paths in pairs
    )


def _frames(path: Path, calibration: Path | None) -> Iterator[_Patient]:
    from itertools import islice

    from stereopsis.io.video import read_video_info, read_video_pairs

    count = read_video_info(path).frames
    every = max(count // FRAMES, 1) if count else UNCOUNTED
    for index, pair in enumerate(islice(read_video_pairs(path, every=every), FRAMES)):
        yield _Patient(f"frame-{index * every:06d}", lambda pair=pair: pair, calibration)


def _examined(patient: _Patient, folder: Path) -> tuple[Inspection, Path]:
    """What is found of a pair, and where its picture is."""
    from stereopsis.cli._outputs import make_folder
    from stereopsis.inspection import inspect
    from stereopsis.io.calibration import read_calibration
    from stereopsis.io.images import write_image
    from stereopsis.visual import matches_picture

    pair = patient.open()
    known = None if patient.calibration is None else read_calibration(patient.calibration)
    found = inspect(pair, known)
    target = folder / f"{patient.name}.png"
    make_folder(target.parent)
    write_image(target, matches_picture(pair, found.left, found.right))
    return found, target


def _lines(name: str, found: Inspection, picture: Path) -> list[str]:
    height, width = found.size
    lines = [
        f"{name}: {width}x{height}, {found.matched} features match, {len(found.left)} agree -> {picture}"
    ]
    if found.rows is not None:
        lines.append(f"  {found.rows}")
    if found.disparities is not None:
        lines.append("  disparities {0:.1f} to {2:.1f} px, median {1:.1f}".format(*found.disparities))
    if found.depths is not None:
        lines.append("  depths {0:.2f} to {2:.2f} m, median {1:.2f}".format(*found.depths))
    if found.field_of_view is not None:
        lines.append(f"  field of view {found.field_of_view:.0f} degrees")
    lines += [f"  {'FAULT' if finding.fault else 'hint'}: {finding}" for finding in found.findings]
    return [*lines, *(["  no fault found"] if found.sound else [])]


def _report(name: str, found: Inspection, picture: Path) -> dict[str, Any]:
    import dataclasses
    import math

    left_out = ("left", "right")
    report = {key: value for key, value in dataclasses.asdict(found).items() if key not in left_out}
    if found.depths is not None:  # JSON knows no infinity
        report["depths"] = [depth if math.isfinite(depth) else None for depth in found.depths]
    return {
        "name": name,
        "sound": found.sound,
        "agreeing": len(found.left),
        **report,
        "picture": str(picture),
    }
