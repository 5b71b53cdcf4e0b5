"""Exports networks to both runtimes and records how they compare with the original: results/export/*.json.

Example: python benchmarks/export_parity.py stereonet psmnet --folder exported/ --count 2
Networks without weights of their own take random ones (fp32 is judged, nothing else).
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch

from stereopsis.export.main import SUFFIX, Target, plain, write_proven
from stereopsis.export.onnx import to_onnx
from stereopsis.export.openvino import to_openvino
from stereopsis.export.original import Original, original, random_original
from stereopsis.export.parity import rendered_samples
from stereopsis.io.files import write_json

SIZES = ((128, 192), (131, 213), (192, 160))
RESULTS = Path(__file__).resolve().parent / "results" / "export"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--folder", type=Path, required=True, help="where exported files go")
    parser.add_argument("--options", nargs="*", default=[], help="NAME=INTEGER fields of the config")
    parser.add_argument("--static", help="WIDTHxHEIGHT instead of any size")
    parser.add_argument("--count", type=int, default=1, help="rendered pairs of each size")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    given.folder.mkdir(parents=True, exist_ok=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    options = {key: int(value) for key, _, value in (text.partition("=") for text in given.options)}
    size = None
    if given.static:
        width, _, height = given.static.partition("x")
        size = (int(height), int(width))
    for name in given.networks:
        command = f"python benchmarks/export_parity.py {name} --folder FOLDER --count {given.count}"
        command += "".join(f" --options {text}" for text in given.options)
        command += f" --static {given.static}" if given.static else ""
        facts = record(source_of(name, options), given.folder, size, given.count)
        write_json(RESULTS / f"{name}.json", {"command": command, "network": name, **facts})
        print(name, "recorded", flush=True)


def source_of(name: str, options: dict[str, int]) -> Original:
    try:
        return original(name, **options)
    except (ValueError, FileNotFoundError):
        return random_original(name, **options)


def record(source: Original, folder: Path, size: tuple[int, int] | None, count: int) -> dict[str, object]:
    """Both runtimes' files of one network, written to the folder if they pass, and what was measured."""
    started = time.monotonic()
    model = to_onnx(source, size=size)
    seconds = time.monotonic() - started
    samples = list(rendered_samples([size] if size else SIZES, each=count, seed=0))
    facts: dict[str, object] = {
        "trained": source.trained,
        "config": source.config,
        "size": "any" if size is None else f"{size[1]}x{size[0]}",
        "batch": "any" if model.header.batch is None else model.header.batch,
        "export_seconds": round(seconds, 1),
        "load_average": os.getloadavg(),
    }
    targets: tuple[Target, ...] = ("onnx", "openvino")
    for target in targets:
        made = model if target == "onnx" else to_openvino(model)
        for proof in write_proven(made, source, folder / f"{source.network}{SUFFIX[target]}", samples):
            facts[f"{target} {proof.precision}"] = {
                "judged": proof.judged,
                "failures": list(proof.failures),
                **plain(proof.parity),
            }
    return facts


if __name__ == "__main__":
    main()
