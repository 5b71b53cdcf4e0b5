"""`stereopsis rectify`: a raw pair and its calibration -> a rectified pair, maps, calibration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from stereopsis.rectification import Rectification
    from stereopsis.structures import StereoPair

FILES = ("left.png", "right.png", "maps.npz", "calibration.json")


def rectify(
    left: Annotated[Path, typer.Argument(help="Raw image, or a folder that holds one raw pair.")],
    right: Annotated[Path | None, typer.Argument(help="Raw image of the right camera.")] = None,
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
    """Rectify a raw pair, and measure on matched features how well rows agree before and after.

    Writes left.png, right.png, maps.npz (raw x and y of each pixel, validity) and calibration.json, which
    `predict --calibration` takes. Rows that differ by more than half a pixel spoil matching: --refine.

    Example: stereopsis rectify left.png right.png --calibration calib.xml --output rectified/
    """
    from stereopsis.cli._outputs import check_folder, make_folder
    from stereopsis.cli._sizes import parse_size
    from stereopsis.io.images import read_image
    from stereopsis.io.raw_calibration import read_raw_calibration
    from stereopsis.rectification import match_features, rectification, refined, vertical_offset
    from stereopsis.structures import StereoPair

    check_folder(output)
    left, right, calibration = _inputs(left, right, calibration)
    raw = read_raw_calibration(calibration)
    images = read_image(left), read_image(right)
    deep = any(image.dtype != "uint8" for image in images)
    pair = StereoPair.from_arrays(*images)
    wanted = None if size is None else parse_size(size)
    matches = match_features(pair)
    if refine:
        raw = refined(raw, *matches)
    found = rectification(raw, pair.size, output_size=wanted, keep=keep, parallel=parallel)
    if crop:
        found = found.cropped()
    result = found(pair)
    after = vertical_offset(*match_features(result))
    make_folder(output)
    _write(output, result, found, deep=deep)
    _say(output, found, before=vertical_offset(*matches), after=after, refine=refine, as_json=json)


def _inputs(left: Path, right: Path | None, calibration: Path | None) -> tuple[Path, Path, Path]:
    if right is None:
        from stereopsis.io.images import IMAGE_SUFFIXES
        from stereopsis.io.pairs import find_pairs

        if left.suffix.lower() in IMAGE_SUFFIXES:
            raise ValueError(f"{left} is one image: give the right one too, or a folder that holds one pair")
        pairs = find_pairs(left)
        if len(pairs) > 1:
            raise ValueError(f"{left} holds {len(pairs)} pairs: name the two images of one")
        left, right = pairs[0].left, pairs[0].right
        calibration = calibration or pairs[0].calibration
    if calibration is None:
        raise ValueError("rectifying needs the cameras' calibration: give it with --calibration")
    return left, right, calibration


def _write(folder: Path, pair: StereoPair, found: Rectification, *, deep: bool) -> None:
    import numpy as np

    from stereopsis.io.arrays import write_npz
    from stereopsis.io.calibration import write_calibration
    from stereopsis.io.images import write_image

    kind, largest = (np.uint16, 65535) if deep else (np.uint8, 255)
    for name, view in (("left.png", pair.left), ("right.png", pair.right)):
        write_image(folder / name, (view * largest).round().permute(1, 2, 0).numpy().astype(kind))
    arrays = {
        "left_map": found.left_map,
        "right_map": found.right_map,
        "left_valid": found.left_valid,
        "right_valid": found.right_valid,
    }
    write_npz(folder / "maps.npz", arrays)
    write_calibration(folder / "calibration.json", found.calibration)


def _say(
    folder: Path,
    found: Rectification,
    *,
    before: tuple[int, float],
    after: tuple[int, float],
    refine: bool,
    as_json: bool,
) -> None:
    from stereopsis.inspection import LARGEST_ROW_DIFFERENCE

    height, width = found.left_valid.shape
    top, left, rows, columns = found.area
    if as_json:
        import json

        report = {
            "size": f"{width}x{height}",
            "valid": {"left": left, "top": top, "width": columns, "height": rows},
            "before": {"matches": before[0], "median_row_difference": _number(before[1])},
            "after": {"matches": after[0], "median_row_difference": _number(after[1])},
            "focal": found.calibration.focal,
            "baseline": found.calibration.baseline,
            "doffs": found.calibration.doffs,
            "folder": str(folder),
            "files": FILES,
        }
        typer.echo(json.dumps(report, indent=1))
        return
    typer.echo(
        f"{width}x{height}, valid {columns}x{rows} at ({left}, {top}); rows differ by {_told(after)} "
        f"(raw: {_told(before)}) -> {folder}/ ({', '.join(FILES)})"
    )
    if after[0] >= 50 and after[1] > LARGEST_ROW_DIFFERENCE:
        hint = "the calibration does not fit these images" if refine else "try --refine"
        typer.echo(f"warning: rows still differ by {after[1]:.2f} px: {hint}", err=True)


def _told(offset: tuple[int, float]) -> str:
    count, median = offset
    return f"{median:.2f} px over {count} features" if count else "an unknown amount, no features match"


def _number(value: float) -> float | None:
    return None if value != value else round(value, 4)
