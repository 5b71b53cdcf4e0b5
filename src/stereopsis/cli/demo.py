"""`stereopsis demo`: a pair with exact truth, rendered, predicted, measured and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import numpy as np

    from stereopsis.structures import StereoOutput, StereoSample


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path("demo"),
    model: Annotated[
        str | None, typer.Option("--model", help="A name of stereopsis models, or a file.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another number, another scene.")] = 2,
) -> None:
    """Render a pair with known truth, predict it, print the error, write pictures and a point cloud.

    Writes left.png and right.png, truth.pfm, calibration.json, all that predict writes, and panel.png:
    the left image, truth, prediction, error.

    Example: stereopsis demo --output demo
    """
    from stereopsis.cli._outputs import check_folder, make_folder, named, write_outputs
    from stereopsis.io.calibration import write_calibration
    from stereopsis.io.disparity import write_disparity
    from stereopsis.io.images import write_image
    from stereopsis.prediction.loading import DEFAULT, load
    from stereopsis.prediction.mirrored import Mirrored
    from stereopsis.prediction.runtimes import runtime_of
    from stereopsis.synthesis import SyntheticStream
    from stereopsis.visual import image_picture

    check_folder(output)
    name = model or DEFAULT
    loaded = load(name)
    predictor = Mirrored(loaded)
    sample = SyntheticStream(seed, "indoor", size=(480, 640))[0]
    height, width = sample.pair.size
    calibration = sample.info[0].calibration
    if calibration is None:
        raise AssertionError("a rendered pair knows its cameras")
    result = predictor(sample.pair)
    make_folder(output)
    for side, view in (("left", sample.pair.left), ("right", sample.pair.right)):
        write_image(output / f"{side}.png", image_picture(view))
    write_disparity(output / "truth.pfm", sample.disparity.numpy(), valid=sample.valid.numpy())
    write_calibration(output / "calibration.json", calibration)
    files, count = write_outputs(output, sample.pair, result, calibration=calibration, both=True)
    write_image(output / "panel.png", _panel(sample, result))
    made = ("left.png", "right.png", "truth.pfm", "calibration.json", *files, "panel.png")
    by = named(name, runtime_of(loaded))
    typer.echo(f"rendered a pair of {width}x{height}, and predicted it with {by}")
    typer.echo(_measured(sample, result))
    typer.echo(f"wrote {count:,} points and {len(made)} files to {output}/: {', '.join(made)}")


def _measured(sample: StereoSample, output: StereoOutput) -> str:
    """End-point error and bad-1, over all pixels and over those that both cameras see."""
    from stereopsis.metrics.disparity import bad, epe

    parts = []
    visible = sample.valid if sample.occluded is None else sample.valid & ~sample.occluded
    for title, mask in (("all pixels", sample.valid), ("pixels that both cameras see", visible)):
        error = float(epe(output.disparity, sample.disparity, mask))
        share = float(bad(output.disparity, sample.disparity, mask, threshold=1.0))
        parts.append(f"{error:.3f} px over {title}, {share:.1%} of them wrong by more than 1 px")
    return f"error: {parts[0]}; {parts[1]}"


def _panel(sample: StereoSample, output: StereoOutput) -> np.ndarray:
    from stereopsis.visual import disparity_picture, error_picture, image_picture, panel, robust_range, titled

    limits = robust_range(sample.disparity)
    return panel(
        [
            titled(image_picture(sample.pair.left), "left image"),
            titled(disparity_picture(sample.disparity, limits=limits), "true disparity"),
            titled(disparity_picture(output.disparity, limits=limits), "predicted disparity"),
            titled(error_picture(output.disparity, sample.disparity, sample.valid), "error: red beyond 3 px"),
        ]
    )
