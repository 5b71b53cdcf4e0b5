"""Diversity pays: one small network trained equally long on two distributions, measured on the open scenes.

A narrow `fast` takes the same steps from the same seed, on as many pairs of `general` as of `sanity`, with
the same crops and augmentation on one thread each. Both are measured on the open scenes and on pairs that
neither has seen, of either distribution. The data sets are rendered where they are not there yet; a training
that was stopped goes on, and `--kinds` runs one of the two beside the other.

    python benchmarks/diversity.py --work diversity/ --json benchmarks/results/diversity.json
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from stereopsis.io.files import write_json

KINDS = ("general", "sanity")
SEEDS = {"general": 111, "sanity": 211}
HELD_BACK = {"general": 301, "sanity": 302}
"""Seeds of the pairs to train on, and of those to measure on."""
COLUMNS = ("epe all", "bad-1 all", "bad-2 all", "bad-3 all")
RENDERED = ("sceneflow", "synthetic")
"""The open scenes whose names begin so are rendered, not photographed."""

TRAINING = (
    "model.name=fast model.options.width=24 model.options.depth=1 data.validation=[] data.batch_size=4 "
    "data.crop=[192,256] data.workers=0 "
    "data.max_disparity=192 data.augment.flip=0.3 data.augment.vertical_flip=0.2 "
    "data.augment.brightness=0.3 data.augment.contrast=0.3 data.augment.gamma=[0.7,1.4] "
    "data.augment.asymmetric=0.2 data.augment.scale=[-0.2,0.6] loss=planes loss.options.alpha=0.5 "
    "loss.options.cross_entropy=2.0 optimizer.name=muon optimizer.momentum=0.95 optimizer.lr=1e-3 "
    "optimizer.schedule=warmup-cosine optimizer.warmup=0.02 optimizer.final=0.01 "
    "trainer.precision=bf16-mixed trainer.channels_last=true trainer.threads=1 trainer.gradient_clip=1.0 "
    "trainer.average=0.99 trainer.checkpoint_every=100 trainer.pictures_every=100000"
)


def stereopsis(*arguments: str) -> None:
    """The command line, shown as a user would type it."""
    print("stereopsis", shlex.join(arguments), flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "stereopsis", *arguments], check=True, env=environment)


def rendered(folder: Path, kind: str, *, count: int, seed: int, size: str) -> Path:
    """A folder of exactly `count` pairs, rendered where they are missing."""
    have = len(list(folder.glob("*/scene.json"))) if folder.exists() else 0
    if have < count:
        options = {"distribution": kind, "count": count, "size": size, "seed": seed, "output": folder}
        stereopsis("render", *(word for k, v in options.items() for word in (f"--{k}", str(v))))
    elif have > count:
        raise ValueError(f"{folder} holds {have} pairs, not {count}: name another --work")
    return folder


def train(data: Path, output: Path, *, steps: int, seed: int) -> Path:
    source = f"data.sources=[{{name: scenes, split: truth, root: '{data}'}}]"
    fixed = (f"trainer.max_steps={steps}", f"trainer.validate_every={steps}", f"trainer.seed={seed}")
    stereopsis("train", *TRAINING.split(), *fixed, source, f"output={output}")
    return output / "weights.safetensors"


def measure(weights: Path, protocol: str, *, root: Path | None = None) -> dict[str, Any]:
    """The protocol's averages, and of `open` those over photographs alone (mean of each data set first)."""
    path = weights.with_name(f"{root.name if root else protocol}.json")
    options = ("--root", str(root)) if root else ()
    stereopsis("evaluate", str(weights), protocol, "--json", str(path), *options)
    record = json.loads(path.read_text())
    result: dict[str, Any] = {
        row["column"]: round(row["value"], 4) for row in record["averages"] if row["column"] in COLUMNS
    }
    if protocol == "open":
        photographs = [row for row in record["rows"] if not row["name"].startswith(RENDERED)]
        result["photographs"] = {column: _mean(record, photographs, column) for column in COLUMNS}
        first = record["columns"][0].index("epe all")
        result["epe by image"] = {r["name"]: round(r["figures"][first]["value"], 3) for r in record["rows"]}
    return result


def _mean(record: dict[str, Any], rows: list[dict[str, Any]], column: str) -> float:
    index = record["columns"][0].index(column)
    groups: dict[str, list[float]] = {}
    for row in rows:
        groups.setdefault(row["dataset"], []).append(row["figures"][index]["value"])
    return round(statistics.mean(statistics.mean(values) for values in groups.values()), 4)


def _processor_minutes() -> float:
    """Of all programs started here that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) / 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for pairs and weights")
    parser.add_argument("--count", type=int, default=400, help="pairs to train on, of each distribution")
    parser.add_argument("--held-back", type=int, default=40, help="pairs to measure on, of each distribution")
    parser.add_argument("--size", default="512x384")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    work, size = arguments.work, arguments.size
    held = {
        kind: rendered(work / f"{kind}-held", kind, count=arguments.held_back, seed=seed, size=size)
        for kind, seed in HELD_BACK.items()
    }
    trained = {
        kind: rendered(work / kind, kind, count=arguments.count, seed=seed, size=size)
        for kind, seed in SEEDS.items()
        if kind in arguments.kinds
    }
    runs = []
    for seed in arguments.seeds:
        for kind in arguments.kinds:
            begun = _processor_minutes()
            output = work / f"{kind}-{seed}"
            weights = train(trained[kind], output, steps=arguments.steps, seed=seed)
            minutes = round(_processor_minutes() - begun, 1)
            run: dict[str, Any] = {"trained on": kind, "seed": seed, "processor minutes": minutes}
            run["open"] = measure(weights, "open")
            for name, folder in held.items():
                run[f"held back {name}"] = measure(weights, "scenes", root=folder)
            print(json.dumps(run, indent=1), flush=True)
            runs.append(run)
    if arguments.json:
        if arguments.json.exists():
            known = json.loads(arguments.json.read_text())["runs"]
            ours = [(run["trained on"], run["seed"]) for run in runs]
            runs = [run for run in known if (run["trained on"], run["seed"]) not in ours] + runs
        settings = {"pairs": arguments.count, "size": size, "steps": arguments.steps, "training": TRAINING}
        write_json(arguments.json, {"settings": settings, "runs": runs})


if __name__ == "__main__":
    main()
