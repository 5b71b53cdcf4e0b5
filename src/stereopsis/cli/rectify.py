"""`stereopsis rectify`: raw pairs of one rig and its calibration -> rectified pairs, maps, calibration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from stereopsis.cli._inputs import NamedPair, NamedPairs
    from stereopsis.rectification import Locations, Rectification
    from stereopsis.structures import RawCalibration, StereoPair

VIEWS = ("left.png", "right.png")
OF_THE_RIG = ("maps.npz", "calibration.json")
MEASURED = 10
"""Pairs, evenly spread, whose features tell how rows differ, and refine: cameras stay as they are."""


def rectify(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="LEFT RIGHT",
            help="Two raw images, or a folder, a glob, or a side-by-side video of one rig.",
        ),
    ],
    calibration: Annotated[
        Path | None,
        typer.Option("--calibration", help="Both cameras: OpenCV YAML or XML, or ROS camera_info."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path(
        "rectified"
    ),
    keep: Annotated[float, typer.Option(min=0, max=1, help="0: valid pixels only, 1: all raw pixels.")] = 0.0,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT of the rectified images.")] = None,
    parallel: Annotated[
        bool, typer.Option("--parallel/--shifted", help="Equal principal points, or the largest common area.")
    ] = True,
    crop: Annotated[bool, typer.Option("--crop", help="Cut to the area that is valid in both.")] = False,
    refine: Annotated[
        bool, typer.Option("--refine", help="Turn the right camera until matched features share rows.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Rectify raw pairs, and measure on matched features how well rows agree before and after.

    Writes left.png, right.png, maps.npz (raw x and y of each pixel, validity) and calibration.json, which
    `predict --calibration` takes. Many pairs of one rig share maps and calibration and get a folder each,
    which `predict` takes as it is; ten of them are measured. Rows that differ by more than half a pixel
    spoil matching: --refine.

    Example: stereopsis rectify left.png right.png --calibration calib.xml --output rectified/
    """
    from stereopsis.cli._inputs import named_pairs
    from stereopsis.cli._outputs import check_folder, make_folder
    from stereopsis.cli._sizes import parse_size
    from stereopsis.io.raw_calibration import read_raw_calibration
    from stereopsis.rectification import rectification, refined, vertical_offset

    check_folder(output)
    pairs = named_pairs(inputs)
    _check_apart(pairs, output)
    raw = _calibration_beside(pairs) if calibration is None else read_raw_calibration(calibration)
    wanted = None if size is None else parse_size(size)
    raw_size, matches = _raw_features(pairs)
    if refine:
        raw = refined(raw, *matches)
    found = rectification(raw, raw_size, output_size=wanted, keep=keep, parallel=parallel)
    if crop:
        found = found.cropped()
    make_folder(output)
    _write_rig(output, found)
    names, after = _rectified(pairs, found, raw_size, output)
    offsets = {"before": vertical_offset(*matches), "after": vertical_offset(*after)}
    _say(output, found, names, offsets, alone=pairs.alone, refine=refine, as_json=json)
    if pairs.rate is None and len(names) < pairs.count:
        raise typer.Exit(2)


def _check_apart(pairs: NamedPairs, output: Path) -> None:
    """ValueError where raw images lie in the folder for the results, which would overwrite or mix them."""
    for paths in pairs.paths:
        for view in (paths.left, paths.right):
            if view.resolve().is_relative_to(output.resolve()):
                raise ValueError(f"{view} lies in the folder for the results: name another --output")


def _calibration_beside(pairs: NamedPairs) -> RawCalibration:
    """The one that lies beside the pairs, in one file or in files that say the same."""
    from stereopsis.io.raw_calibration import read_raw_calibration

    files = {paths.calibration for paths in pairs.paths}
    rigs = {read_raw_calibration(file) for file in files if file is not None}
    if not rigs:
        raise ValueError("rectifying needs the cameras' calibration: give it with --calibration")
    if len(rigs) > 1 or None in files:
        raise ValueError("the pairs are not of one rig: give --calibration, or rectify each rig's apart")
    return rigs.pop()


def _opened(named: NamedPair) -> tuple[StereoPair, bool]:
    """The pair, and whether its images have more than eight bits."""
    from stereopsis.io.images import read_image
    from stereopsis.structures import StereoPair

    if named.paths is None:
        return named.open(), False
    images = read_image(named.paths.left), read_image(named.paths.right)
    return StereoPair.from_arrays(*images), any(image.dtype != "uint8" for image in images)


def _raw_features(pairs: NamedPairs) -> tuple[tuple[int, int], tuple[Locations, Locations]]:
    """(height, width) of the raw images, and the features that match in some of the pairs, all together.

    Pairs that cannot be read, or are of another size than the first that can, are told of later.
    """
    from stereopsis.rectification import match_features

    size, matches, failure = None, [], None
    for named in pairs.spread(MEASURED):
        try:
            pair, _ = _opened(named)
        except (ValueError, OSError) as error:
            failure = failure or error
            continue
        size = size or pair.size
        if pair.size == size:
            matches.append(match_features(pair))
    if size is None:
        raise failure or ValueError("there is no pair to rectify")
    return size, _together(matches)


def _together(matches: list[tuple[Locations, Locations]]) -> tuple[Locations, Locations]:
    import numpy as np

    left, right = zip(*matches, strict=True) if matches else ([np.zeros((0, 2))], [np.zeros((0, 2))])
    return np.concatenate(left), np.concatenate(right)


def _rectified(
    pairs: NamedPairs, found: Rectification, size: tuple[int, int], output: Path
) -> tuple[list[str], tuple[Locations, Locations]]:
    """Writes every pair; the names of those that could be, and the features that match in some of them."""
    from stereopsis.cli._inputs import complain, tracked
    from stereopsis.rectification import match_features

    measured = range(0, MEASURED * pairs.step(MEASURED), pairs.step(MEASURED))
    names, matches = [], []
    for index, named in enumerate(pairs if pairs.alone else tracked(pairs, "rectifying")):
        try:
            pair, deep = _opened(named)
            if pair.size != size:
                told = f"{pair.size[1]}x{pair.size[0]}, others are {size[1]}x{size[0]}"
                raise ValueError(f"the images are {told}: rectify each rig's pairs apart")
            result = found(pair)
            _write_views(output if pairs.alone else output / named.name, result, deep=deep)
        except (ValueError, FileNotFoundError) as error:
            if pairs.alone:
                raise
            complain(named, error)
            continue
        names.append(named.name)
        if index in measured:
            matches.append(match_features(result))
    return names, _together(matches)


def _write_rig(folder: Path, found: Rectification) -> None:
    from stereopsis.io.arrays import write_npz
    from stereopsis.io.calibration import write_calibration

    arrays = {
        "left_map": found.left_map,
        "right_map": found.right_map,
        "left_valid": found.left_valid,
        "right_valid": found.right_valid,
    }
    write_npz(folder / "maps.npz", arrays)
    write_calibration(folder / "calibration.json", found.calibration)


def _write_views(folder: Path, pair: StereoPair, *, deep: bool) -> None:
    import numpy as np

    from stereopsis.cli._outputs import make_folder
    from stereopsis.io.images import write_image

    make_folder(folder)
    kind, largest = (np.uint16, 65535) if deep else (np.uint8, 255)
    for name, view in zip(VIEWS, (pair.left, pair.right), strict=True):
        write_image(folder / name, (view * largest).round().permute(1, 2, 0).numpy().astype(kind))


def _say(
    folder: Path,
    found: Rectification,
    names: list[str],
    offsets: dict[str, tuple[int, float]],
    *,
    alone: bool,
    refine: bool,
    as_json: bool,
) -> None:
    from stereopsis.inspection import LARGEST_ROW_DIFFERENCE

    height, width = found.left_valid.shape
    top, left, rows, columns = found.area
    files = [*(VIEWS if alone else ()), *OF_THE_RIG]
    if as_json:
        import json

        report = {
            "size": f"{width}x{height}",
            "valid": {"left": left, "top": top, "width": columns, "height": rows},
            **{
                when: {"matches": count, "median_row_difference": _number(median)}
                for when, (count, median) in offsets.items()
            },
            "focal": found.calibration.focal,
            "baseline": found.calibration.baseline,
            "doffs": found.calibration.doffs,
            "pairs": names,
            "folder": str(folder),
            "files": files,
        }
        typer.echo(json.dumps(report, indent=1))
        return
    many = "" if alone else f"{len(names)} pair{'s' if len(names) != 1 else ''}, "
    each = "" if alone else f", and a folder each with {' and '.join(VIEWS)}"
    typer.echo(
        f"{many}{width}x{height}, valid {columns}x{rows} at ({left}, {top}); rows differ by "
        f"{_told(offsets['after'])} (raw: {_told(offsets['before'])}) -> {folder}/ ({', '.join(files)}{each})"
    )
    count, median = offsets["after"]
    if count >= 50 and median > LARGEST_ROW_DIFFERENCE:
        hint = "the calibration does not fit these images" if refine else "try --refine"
        typer.echo(f"warning: rows still differ by {median:.2f} px: {hint}", err=True)


def _told(offset: tuple[int, float]) -> str:
    count, median = offset
    return f"{median:.2f} px over {count} features" if count else "an unknown amount, no features match"


def _number(value: float) -> float | None:
    return None if value != value else round(value, 4)
