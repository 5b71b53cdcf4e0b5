"""`stereopsis bench`: predictors beside each other on this machine, in time and memory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stereopsis.cli._sizes import parse_size

if TYPE_CHECKING:
    from stereopsis.bench.contender import Contender

RUNTIMES = (
    "torch",
    "torch-bf16",
    "compile",
    "onnx",
    "onnx-int8",
    "openvino",
    "openvino-bf16",
    "openvino-int8",
)
WIDTH = 132
"""Columns that the table needs; narrower terminals wrap its lines."""

DEFAULT = ("sgbm", "opencv-sgbm", "opencv-bm")


def bench(
    predictors: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names, weights files, exported files, opencv-sgbm, opencv-bm (default: OpenCV's)."
        ),
    ] = None,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the pair.")] = "640x480",
    threads: Annotated[int, typer.Option(min=1, help="Of the CPU.")] = 2,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...: of networks in PyTorch.")] = "cpu",
    runtimes: Annotated[
        str, typer.Option(help=f"How networks run, commas between: {', '.join(RUNTIMES)}.")
    ] = "torch",
    warmups: Annotated[int, typer.Option(min=1, help="Runs before timing.")] = 2,
    runs: Annotated[int, typer.Option(min=1, help="Timed runs of each.")] = 10,
    slow_above: Annotated[
        float, typer.Option(help="From so many seconds a pair: one warm-up and two runs.")
    ] = 2.0,
    exports: Annotated[
        Path | None, typer.Option(help="Keep and reuse the files that runtimes need here.")
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write everything measured here.")] = None,
) -> None:
    """Measure latency, memory, load time and size of predictors; runs are interleaved.

    Networks whose weights do not come with the package take random ones: they are as quick. int8 then
    tells of speed alone. Each row has a process of its own; the program ends with an error where one
    failed. Above one core's load from elsewhere, read the column of least times.

    Example: stereopsis bench fast sgbm stereonet --size 640x480 --threads 2 --json bench.json
    """
    import tempfile

    from rich.console import Console

    from stereopsis.bench.latency import Plan, measure
    from stereopsis.bench.machine import describe_machine
    from stereopsis.bench.report import bench_table, write_bench
    from stereopsis.cli._outputs import check_folder, make_folder
    from stereopsis.io.atomic import check_target

    wanted = [runtime.strip() for runtime in runtimes.split(",")]
    for runtime in wanted:
        if runtime not in RUNTIMES:
            raise ValueError(f"no runtime is called {runtime!r}: there are {', '.join(RUNTIMES)}")
    plan = Plan(size=parse_size(size), threads=threads, warmups=warmups, runs=runs, slow_above=slow_above)
    if json is not None:
        check_target(json)
    if exports is not None:
        check_folder(exports)
    console = Console()
    with tempfile.TemporaryDirectory() as temporary:
        folder = exports or Path(temporary)
        make_folder(folder)
        contenders = [
            row
            for name in predictors or DEFAULT
            for row in _rows(name, wanted, device=device, size=plan.size, threads=threads, folder=folder)
        ]
        before = describe_machine()
        rows = measure(contenders, plan, observe=lambda text: console.print(text, style="dim"))
        after = describe_machine()
    Console(width=max(console.width, WIDTH)).print(bench_table(rows, plan))
    if before.loaded or after.loaded:
        loads = f"{before.load_average[0]} before, {after.load_average[0]} after"
        console.print(f"the machine was busy with other things too (load {loads})", highlight=False)
    if json is not None:
        write_bench(json, rows, plan, command=_command(), before=before, after=after)
    if any(row.error for row in rows):
        raise typer.Exit(2)


def _command() -> str:
    """As given, without where files went: that is this machine's."""
    given = list(sys.argv[1:])
    for option in ("--exports", "--json"):
        if option in given:
            del given[given.index(option) : given.index(option) + 2]
    return " ".join(["stereopsis", *given])


def _rows(
    name: str, runtimes: list[str], *, device: str, size: tuple[int, int], threads: int, folder: Path
) -> list[Contender]:
    """One row for each runtime that a network can be exported for; one alone for anything else."""
    import dataclasses

    from stereopsis.bench.contender import contender

    plain = contender(name)
    if plain.runtime in ("ONNX Runtime", "OpenVINO"):
        return [dataclasses.replace(plain, options={"threads": threads})]
    if plain.runtime != "torch":
        return [plain]
    rows = []
    for runtime in runtimes:
        base, _, precision = runtime.partition("-")
        if base in ("torch", "compile"):
            options: dict[str, object] = {"device": device}
            if not plain.random and plain.predictor == name:
                options["runtime"] = "torch"
            if precision:
                options["precision"] = "bfloat16"
            if base == "compile":
                options["compile"] = "default"
            rows.append(dataclasses.replace(plain, runtime=runtime, options=options))
            continue
        try:
            path = _exported(plain, base, precision, size, folder)
        except ValueError as error:
            typer.echo(f"left out: {name} by {runtime}: {error}", err=True)
            continue
        options = {"threads": threads, "precision": "bfloat16" if precision == "bf16" else "float32"}
        rows.append(
            dataclasses.replace(plain, predictor=str(path), runtime=runtime, options=options, random=False)
        )
    return rows


def _exported(row: Contender, target: str, precision: str, size: tuple[int, int], folder: Path) -> Path:
    """The file that a runtime needs, made if it is not there; not proven, as speed does not depend on it."""
    from typing import cast

    from stereopsis.export.main import SUFFIX, Calibration, Target, with_precision
    from stereopsis.export.onnx import to_onnx
    from stereopsis.export.openvino import to_openvino
    from stereopsis.export.original import original, random_original

    suffix = SUFFIX[cast(Target, target)]
    storage = "int8" if precision == "int8" else "fp32"
    stem = f"{row.name}-{size[1]}x{size[0]}"
    path = folder / (f"{stem}-int8{suffix}" if storage == "int8" else f"{stem}{suffix}")
    if path.exists():
        return path
    source = random_original(row.predictor) if row.random else original(row.predictor)
    model = to_onnx(source, size=size, any_batch=False)
    calibration = Calibration(pairs=4, size=size)
    for other in ("onnx", "openvino"):
        made = model if other == "onnx" else to_openvino(model)
        plain = folder / f"{stem}{SUFFIX[cast(Target, other)]}"
        if not plain.exists():
            made.write(plain)
        if other == target and storage == "int8":
            with_precision(made, storage, calibration).write(path)
    return path
