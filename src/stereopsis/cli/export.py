"""`stereopsis export`: a network as an ONNX or OpenVINO file, with the proof that it computes the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stereopsis.cli._sizes import parse_size

if TYPE_CHECKING:
    from stereopsis.export.main import Proof
    from stereopsis.structures import StereoSample

DYNAMIC = "dynamic"
TRIED_SIZES = ("320x240", "413x291", "256x352")
"""Where any size is taken: one of them odd."""


class Target(StrEnum):
    onnx = "onnx"
    openvino = "openvino"


class Storage(StrEnum):
    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


class Images(StrEnum):
    float32 = "float32"
    uint8 = "uint8"


def export(
    model: Annotated[str, typer.Argument(help="A network's name, or a weights file.")],
    to: Annotated[Target, typer.Option("--to", help="The runtime.")] = Target.onnx,
    precision: Annotated[
        Storage, typer.Option(help="fp16 stores weights in half; int8 also computes so.")
    ] = Storage.fp32,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the images, or dynamic.")] = DYNAMIC,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The .onnx or .xml to write (default: MODEL's name)."),
    ] = None,
    images: Annotated[
        Images, typer.Option(help="float32: RGB in [0, 1], [b 3 h w]; uint8: RGB, [b h w 3].")
    ] = Images.float32,
    weights: Annotated[Path | None, typer.Option("--weights", help="Weights for a network by name.")] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Random weights, to try speed and equality (fp32 only).")
    ] = False,
    iterations: Annotated[int | None, typer.Option(help="Refinement steps of an iterative network.")] = None,
    max_disparity: Annotated[int | None, typer.Option(help="Largest disparity searched, in pixels.")] = None,
    pairs: Annotated[
        str | None, typer.Option(help="Compare on the pairs of this folder, instead of rendered ones.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Rendered pairs of each size to compare on.")] = 2,
    compared: Annotated[
        list[str] | None, typer.Option("--compare-size", help="Sizes to compare at where any is taken.")
    ] = None,
    calibration: Annotated[
        int, typer.Option(min=1, max=32, help="Rendered pairs that int8 learns from.")
    ] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Of the rendered pairs.")] = 0,
    json: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Export a network; the file appears only if it gives what the original gives, on the same pairs.

    Tolerances: fp32, 99.9 % of pixels within 0.001 px; fp16 and bfloat16 arithmetic, EPE grows by at most
    0.05 px; int8, by at most 0.1 px, and bad-2 by 0.5 points. Ends with 1 where they are exceeded.

    Example: stereopsis export fast --to openvino --precision int8 --output fast.xml
    """
    from stereopsis.export.main import SUFFIX, Calibration, check_export_target, convert, write_proven
    from stereopsis.export.original import original, random_original
    from stereopsis.export.parity import rendered_samples
    from stereopsis.io.atomic import check_target

    fixed = None if size == DYNAMIC else parse_size(size)
    given = {"iterations": iterations, "max_disparity": max_disparity}
    options = {key: value for key, value in given.items() if value is not None}
    if random_weights:
        if precision is not Storage.fp32:
            raise ValueError(
                f"{precision.value} is judged by the accuracy it costs, and random weights have none: "
                f"give trained weights"
            )
        source = random_original(model, **options)
    else:
        source = original(model, weights=weights, **options)
    path = output or Path(source.network).with_suffix(SUFFIX[to.value])
    check_export_target(path, to.value)
    if json is not None:
        check_target(json)
    converted = convert(
        source,
        to.value,
        precision=precision.value,
        size=fixed,
        images=images.value,
        calibration=Calibration(pairs=calibration, seed=seed + 1),
    )
    sizes = [fixed] if fixed else [parse_size(text) for text in compared or TRIED_SIZES]
    samples: Iterable[StereoSample] = (
        _pairs_of(pairs) if pairs is not None else rendered_samples(sizes, each=count, seed=seed)
    )
    proofs = write_proven(converted, source, path, samples)
    _print(proofs, trained=source.trained)
    if json is not None:
        _write_json(json, path, proofs)
    failed = [failure for proof in proofs for failure in proof.failures]
    for failure in failed:
        typer.echo(f"not written: {failure}", err=True)
    if failed:
        raise typer.Exit(1)
    batch = "any number of pairs" if converted.header.batch is None else "one pair"
    typer.echo(f"{path}: takes {size if fixed else 'any size'}, {batch} at a time, {images.value} images")


def _pairs_of(folder: str) -> list[StereoSample]:
    from stereopsis.export.parity import without_truth
    from stereopsis.io.pairs import find_pairs
    from stereopsis.structures import StereoPair

    found = find_pairs(folder)
    return list(without_truth(StereoPair.open(pair.left, pair.right) for pair in found))


def _print(proofs: Sequence[Proof], *, trained: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"beside the original, {proofs[0].parity.pairs} pairs")
    for title in (
        "run by",
        "largest px",
        "mean px",
        "within 0.001 px",
        "EPE change",
        "bad-2 change",
        "verdict",
    ):
        table.add_column(title)
    for proof in proofs:
        p = proof.parity
        verdict = "passes" if not proof.failures else "fails"
        table.add_row(
            p.runtime,
            f"{p.largest:.2g}",
            f"{p.mean:.2g}",
            f"{100 * p.close:.2f} %",
            f"{p.epe_change:+.3f} px",
            f"{100 * p.bad2_change:+.2f} points",
            verdict if proof.judged else "not judged: " + ("no truth" if trained else "random weights"),
        )
    console = Console()
    console.print(table)
    console.print(f"compared at {', '.join(proofs[0].parity.sizes)}", highlight=False)


def _write_json(path: Path, exported: Path, proofs: Sequence[Proof]) -> None:
    from stereopsis.export.main import plain
    from stereopsis.io.files import write_json

    facts = {
        "file": exported.name,
        "proofs": [
            {
                "precision": proof.precision,
                "judged": proof.judged,
                "failures": list(proof.failures),
                **plain(proof.parity),
            }
            for proof in proofs
        ],
    }
    write_json(path, facts)
