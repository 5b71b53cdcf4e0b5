"""`stereopsis doctor`: is the pair at fault? Rows, order, range, exposure, and the calibration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from stereopsis.cli._inputs import NamedPair
    from stereopsis.inspection import Inspection

FRAMES = 5
"""Of a video, evenly spread: rows do not change with time."""


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
    from stereopsis.cli._inputs import complain, named_pairs
    from stereopsis.cli._outputs import check_folder

    pairs = named_pairs(inputs)
    check_folder(output)
    reports, sound = [], True
    for pair in pairs if pairs.rate is None else pairs.spread(FRAMES):
        try:
            found, picture = _examined(pair, calibration, output)
        except (ValueError, OSError) as error:
            if pairs.alone:
                raise
            sound = False
            complain(pair, error)
            continue
        sound = sound and found.sound
        if json:
            reports.append(_report(pair.name, found, picture))
        else:
            typer.echo("\n".join(_lines(pair.name, found, picture)))
    if json:
        import json as json_

        typer.echo(json_.dumps(reports, indent=1))
    if not sound:
        raise typer.Exit(2)


def _examined(named: NamedPair, calibration: Path | None, folder: Path) -> tuple[Inspection, Path]:
    """What is found of a pair, and where its picture is."""
    from stereopsis.cli._outputs import make_folder
    from stereopsis.inspection import inspect
    from stereopsis.io.calibration import read_calibration
    from stereopsis.io.images import write_image
    from stereopsis.visual import matches_picture

    pair = named.open()
    calibration = calibration or named.calibration
    found = inspect(pair, None if calibration is None else read_calibration(calibration))
    target = folder / f"{named.name}.png"
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
