"""`stereopsis predict`: disparity, confidence, depth and points of a pair, a folder, a glob or a video."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from stereopsis.cli._inputs import NamedPair, NamedPairs
    from stereopsis.cli._outputs import Summary
    from stereopsis.prediction.composition import Wrapping
    from stereopsis.structures import Calibration, Predictor, StereoOutput

LARGEST_DISPARITY = 16384
"""Pixels; no camera has more."""
DOUBTFUL = 0.5
"""Mean confidence below which the pair is to be looked at: of open scenes the default gives 0.72 or more to
each, 0.21 to 0.51 with exchanged views, 0.22 to 0.64 with rows that differ by 8 px."""


def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="LEFT RIGHT", help="Two images, or a folder, a glob, or a side-by-side video."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path("out"),
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration", help="For depth and points: Middlebury, KITTI, OpenCV, ROS, JSON, K.txt."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="A name of stereopsis models, or a file.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", help="Weights of a network given by name.")
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Refinement steps of iterative networks.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(help="What iterative networks start from: sgbm, coarse or previous (frame of a video)."),
    ] = None,
    stop_below: Annotated[
        float | None,
        typer.Option(min=0, help="Iterations end once the mean update is smaller, in pixels."),
    ] = None,
    min_disparity: Annotated[int, typer.Option(help="Smallest disparity, pixels; may be negative.")] = 0,
    max_disparity: Annotated[int | None, typer.Option(help="Largest disparity searched, pixels.")] = None,
    both: Annotated[
        bool, typer.Option("--both", help="Also the right view's disparity, and occlusion.")
    ] = False,
    superresolution: Annotated[
        float | None,
        typer.Option(help="Also disparity_superresolved.pfm, this many times as fine (smd-...; up to 32)."),
    ] = None,
    mono: Annotated[
        bool,
        typer.Option("--mono", help="Relative depth of single images, with depth-anything-v2."),
    ] = False,
    mixture: Annotated[
        bool, typer.Option("--mixture", help="Also the modes, scales and weights of a mixture, as pictures.")
    ] = False,
    scale: Annotated[float, typer.Option(help="Predict at this scale of the images.")] = 1.0,
    max_memory: Annotated[
        str | None, typer.Option(help="Such as 2G: larger pairs go through in tiles.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, ...; by default a GPU if there is one.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    min_confidence: Annotated[
        float | None, typer.Option(min=0, max=1, help="Of points in the cloud; 0.3 if not given.")
    ] = None,
    near: Annotated[float | None, typer.Option(min=0, help="Of points in the cloud, metres.")] = None,
    far: Annotated[float | None, typer.Option(min=0, help="Of points in the cloud, metres.")] = None,
    normals: Annotated[
        bool, typer.Option("--normals", help="Also the surface's normal (nx, ny, nz) at points of the cloud.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Disparity and confidence of rectified pairs; with a calibration also depth in metres and points.

    Writes disparity.pfm, disparity.png (colour) and confidence.png; with a calibration depth.npy (metres),
    depth_deviation.npy (metres of one standard deviation, from the confidence), depth.png (16-bit
    millimetres, 0 = unknown) and cloud.ply. A folder's pairs get a folder each.

    Example: stereopsis predict left.png right.png --calibration calib.txt --output out/
    """
    from stereopsis.cli._inputs import check_inputs, named_pairs
    from stereopsis.cli._outputs import check_folder
    from stereopsis.prediction.composition import Wrapping
    from stereopsis.prediction.runtimes import runtime_of
    from stereopsis.prediction.superresolution import enlarged_size

    check_inputs(inputs)
    options = _given(iterations=iterations, start=start, stop_below=stop_below, precision=precision)
    of_the_cloud = _given(min_confidence=min_confidence, near=near, far=far, normals=normals)
    if mono:
        others = _given(
            calibration=calibration,
            min_disparity=min_disparity != 0,
            max_disparity=max_disparity,
            both=both,
            superresolution=superresolution,
            mixture=mixture,
            scale=scale != 1,
            max_memory=max_memory,
            json=json,
        )
        _predict_mono(inputs, output, model, weights, device, unused={**options, **of_the_cloud, **others})
        return
    _check_range(min_disparity, max_disparity)
    if superresolution is not None:
        enlarged_size((1, 1), superresolution)  # refuses factors out of range before any work
    wrapping = Wrapping(
        scale=scale,
        max_memory=None if max_memory is None else parse_memory(max_memory),
        min_disparity=min_disparity,
        both=both,
    )
    _check_start(start, wrapping)
    if (superresolution is not None or mixture) and (scale != 1 or min_disparity):
        raise ValueError(
            "--superresolution and --mixture show what the network itself gives: leave out --scale and "
            "--min-disparity"
        )
    check_folder(output)
    pairs = named_pairs(inputs)
    span = None if max_disparity is None else max_disparity - min_disparity
    name, predictor = _load(model, weights, options | _given(max_disparity=span, device=device))
    known = None if calibration is None else _calibration(calibration)
    work = _Work(predictor, wrapping, output, known, of_the_cloud, superresolution, mixture)
    summaries, failures = _run(pairs, work)
    _say(summaries, name, runtime_of(predictor), output, as_json=json)
    if failures:
        raise typer.Exit(2)


def _given(**options: Any) -> dict[str, Any]:
    """Those that were given, by name."""
    return {name: value for name, value in options.items() if value is not None and value is not False}


def _flags(options: Iterable[str]) -> str:
    return ", ".join("--" + option.replace("_", "-") for option in options)


def _predict_mono(
    inputs: list[str],
    output: Path,
    model: str | None,
    weights: Path | None,
    device: str | None,
    *,
    unused: dict[str, Any],
) -> None:
    from stereopsis.cli._monocular import predict_images

    if unused:
        raise ValueError(
            f"--mono gives relative depth of single images, no disparity: leave out {_flags(unused)}"
        )
    for path in predict_images(inputs, output, model=model, weights=weights, device=device):
        typer.echo(str(path))


@dataclass(frozen=True)
class _Work:
    predictor: Predictor
    wrapping: Wrapping
    output: Path
    calibration: Calibration | None
    of_the_cloud: dict[str, Any]
    superresolution: float | None = None
    mixture: bool = False

    def __call__(self, named: NamedPair, folder: Path, limits: tuple[float, float] | None) -> Summary:
        import time
        import warnings

        from stereopsis.cli._outputs import Cloud, summarised, write_outputs

        if named.paths is not None and not named.paths.rectified:
            raise ValueError(
                f"{named.paths.left} and its partner are not rectified: run stereopsis rectify first"
            )
        pair = named.open()
        calibration = self.calibration
        if calibration is None and named.calibration is not None:
            calibration = _calibration(named.calibration)
        if calibration is None and self.of_the_cloud:
            raise ValueError(
                f"the cloud of {named.name} takes a calibration: give --calibration, or leave out "
                + _flags(self.of_the_cloud)
            )
        _check_size(calibration, pair.size)
        start = time.perf_counter()
        output = self.wrapping.around(self.predictor, pair.size)(pair)
        seconds = time.perf_counter() - start
        if not bool(output.disparity.isfinite().any()):
            warnings.warn(
                f"no pixel of {named.name} has a disparity: the weights hold NaN, or --precision is too low",
                stacklevel=1,
            )
        files, count = write_outputs(
            folder,
            pair,
            output,
            calibration=calibration,
            both=self.wrapping.both,
            cloud=Cloud(**self.of_the_cloud),
            limits=limits,
        )
        if self.superresolution is not None:
            files = (*files, _write_superresolved(folder, output, self.superresolution))
        if self.mixture:
            files = (*files, *_write_mixture(folder, output))
        summary = summarised(
            named.name,
            pair,
            output,
            seconds=seconds,
            calibration=calibration,
            folder=folder,
            files=files,
            count=count,
        )
        if limits is None and summary.disparity is not None and summary.confidence < DOUBTFUL:
            warnings.warn(
                f"the confidence of {named.name} is {summary.confidence:.2f} in the mean: "
                "run stereopsis doctor on the pair, whose views may be exchanged or not rectified",
                stacklevel=1,
            )
        return summary


def _write_superresolved(folder: Path, output: StereoOutput, factor: float) -> str:
    """The name of the file, in the folder, that holds the disparity at `factor` times the resolution."""
    from stereopsis.prediction.superresolution import write_superresolved

    name = "disparity_superresolved.pfm"
    write_superresolved(folder / name, output, factor)
    return name


def _write_mixture(folder: Path, output: StereoOutput) -> tuple[str, ...]:
    """The files, in the folder, that show what a mixture network saw."""
    from stereopsis.evaluation.mixtures import mixture_pictures, write_mixture_pictures
    from stereopsis.structures import MixtureOutput

    if not isinstance(output, MixtureOutput):
        raise ValueError("--mixture needs a network that gives one: smd-psmnet, smd-hsmnet, smd-stereodepth")
    return write_mixture_pictures(folder, mixture_pictures(output))


def parse_memory(text: str) -> int:
    """Bytes from `2G`, `1.5GiB`, `800M` or a plain number; ValueError for anything else."""
    import re

    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None or float(match[1]) == 0:
        raise ValueError(f"--max-memory {text!r} is no amount of memory: write it like 2G or 800M")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


def _check_range(smallest: int, largest: int | None) -> None:
    if abs(smallest) > LARGEST_DISPARITY:
        raise ValueError(f"--min-disparity {smallest} is absurd: no pair has such disparities, in pixels")
    if largest is not None and not smallest < largest <= LARGEST_DISPARITY:
        raise ValueError(
            f"--max-disparity must lie between --min-disparity ({smallest}) and {LARGEST_DISPARITY} pixels: "
            f"it is {largest}"
        )


def _check_start(start: str | None, wrapping: Wrapping) -> None:
    if start == "previous" and (wrapping.both or wrapping.max_memory is not None):
        raise ValueError(
            "--start previous follows whole frames of the left view: leave out --both and --max-memory"
        )


def _load(model: str | None, weights: Path | None, options: dict[str, Any]) -> tuple[str, Predictor]:
    """What the summary calls it, and the predictor; networks in PyTorch go to a GPU if there is one."""
    import torch

    from stereopsis.prediction.loading import CLASSICAL, DEFAULT, load
    from stereopsis.prediction.runtimes import SUFFIXES

    name = model or (DEFAULT if weights is None else str(weights))
    in_torch = name not in CLASSICAL and Path(name).suffix not in SUFFIXES
    if in_torch and "device" not in options and torch.cuda.is_available():
        options["device"] = "cuda"
    return name, load(name, weights=weights if model else None, **options)


def _run(pairs: NamedPairs, work: _Work) -> tuple[list[Summary], int]:
    """Every pair in turn; where there are many, one that cannot be read is reported and left out."""
    from stereopsis.cli._inputs import complain, tracked

    if pairs.alone:
        return [work(named, work.output, None) for named in pairs], 0
    listed = tracked(pairs, "predicting")
    if pairs.rate is not None:
        return _run_video(listed, work, pairs.rate), 0
    summaries, failures = [], 0
    for named in listed:
        try:
            summaries.append(work(named, work.output / named.name, None))
        except (ValueError, FileNotFoundError) as error:
            failures += 1
            complain(named, error)
    return summaries, failures


def _run_video(frames: Iterable[NamedPair], work: _Work, rate: float) -> list[Summary]:
    """Frame by frame, all in the colours of the first, also as a video of disparity."""
    from stereopsis.cli._outputs import make_folder
    from stereopsis.io.images import read_image
    from stereopsis.io.video import write_video

    summaries: list[Summary] = []

    def pictures() -> Iterator[Any]:
        for named in frames:
            folder = work.output / named.name
            limits = summaries[0].disparity if summaries else None
            summaries.append(work(named, folder, limits))
            yield read_image(folder / "disparity.png")

    make_folder(work.output)
    write_video(work.output / "disparity.mp4", pictures(), rate=rate or 25.0)
    return summaries


def _calibration(path: Path) -> Calibration:
    from stereopsis.io.calibration import read_calibration

    return read_calibration(path)


def _check_size(calibration: Calibration | None, size: tuple[int, int]) -> None:
    from stereopsis.inspection import size_finding

    other = None if calibration is None else size_finding(calibration, size)
    if other is not None:
        raise ValueError(str(other))


def _say(summaries: list[Summary], model: str, runtime: str | None, output: Path, *, as_json: bool) -> None:
    from stereopsis.cli._outputs import named
    from stereopsis.prediction.memory import peak_resident_bytes

    if as_json:
        import dataclasses
        import json

        pairs = [dataclasses.asdict(summary) for summary in summaries]
        report = {
            "model": model,
            "runtime": runtime,
            "peak_memory": peak_resident_bytes(),
            "pairs": pairs,
        }
        typer.echo(json.dumps(report, indent=1))
        return
    by = named(model, runtime)
    if len(summaries) == 1:
        typer.echo(_line(summaries[0], by))
    elif summaries:
        seconds = sum(summary.seconds for summary in summaries)
        typer.echo(f"{len(summaries)} pairs with {by} in {seconds:.1f} s -> {output}/")


def _line(summary: Summary, by: str) -> str:
    parts = [f"{summary.name}: {summary.size} with {by} in {summary.seconds:.2f} s"]
    if summary.disparity is not None:
        parts.append("disparity {:.1f} to {:.1f} px".format(*summary.disparity))
    if summary.depth is not None:
        parts.append("depth {:.2f} to {:.2f} m".format(*summary.depth))
    if summary.points is not None:
        parts.append(f"{summary.points:,} points")
    return f"{', '.join(parts)} -> {summary.folder}/ ({', '.join(summary.files)})"
