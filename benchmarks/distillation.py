"""What a student gains from a teacher's labels on pairs of a style that it was not trained on.

    python benchmarks/distillation.py fast --weights fast.safetensors --work /path --pairs 500 --steps 500

Renders pairs of a shifted style, labels them without their truth,
fine-tunes the student once a seed, and measures student before and after, the teacher and SGBM on
held-back pairs of that style. Run again to continue. The weights that come out are for this figure alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean, stdev

from stereopsis.evaluation.results import Evaluation, read_evaluation
from stereopsis.io.files import write_json

SEEDS = (5001, 5002)
"""Of the pairs that are labelled, and of those held back."""

FIGURES = ("epe all", "bad-1 all", "bad-3 all")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("student")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--teacher", default="sgbm")
    parser.add_argument("--style", default="endoscopy-like")
    parser.add_argument("--size", default="512x384")
    parser.add_argument("--crop", default="[256,384]")
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--held", type=int, default=100)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--mix", default="synthetic:general")
    parser.add_argument("--ratio", type=float, default=0.5)
    chosen = parser.parse_args()
    work: Path = chosen.work
    together = ThreadPoolExecutor(max_workers=4)
    rendered = [
        together.submit(
            stereopsis,
            "render",
            "--distribution",
            chosen.style,
            "--count",
            str(count),
            "--size",
            chosen.size,
            "--seed",
            str(seed),
            "--workers",
            "1",
            "--output",
            str(work / name),
        )
        for name, count, seed in (("unlabelled", chosen.pairs, SEEDS[0]), ("held", chosen.held, SEEDS[1]))
    ]
    for done in rendered:
        done.result()
    stereopsis("label", str(work / "unlabelled"), "--teacher", chosen.teacher, "-o", str(work / "labels"))
    others = {name: together.submit(measured, name, work) for name in dict.fromkeys((chosen.teacher, "sgbm"))}
    for done in [together.submit(distilled, chosen, seed) for seed in range(chosen.seeds)]:
        done.result()
    runs = [work / f"seed{seed}" for seed in range(chosen.seeds)]
    before = figures(read_evaluation(runs[0] / "before.json"))
    after = [figures(read_evaluation(run / "after.json")) for run in runs]
    gains = {name: [before[name] - one[name] for one in after] for name in FIGURES}
    results = {
        "student": chosen.student,
        "teacher": chosen.teacher,
        "style": chosen.style,
        "size": chosen.size,
        "pairs": chosen.pairs,
        "held_back": chosen.held,
        "steps": chosen.steps,
        "ratio": chosen.ratio,
        "mix": chosen.mix,
        "before": before,
        "after": after,
        "gain": {name: spread(values) for name, values in gains.items()},
        **{name: figures(done.result()) for name, done in others.items()},
    }
    write_json(chosen.json, results)
    print(json.dumps(results, indent=1))


def distilled(chosen: argparse.Namespace, seed: int) -> None:
    stereopsis(
        "distil",
        f"student={chosen.student}",
        f"weights={chosen.weights}",
        f"labels={chosen.work / 'labels'}",
        f"output={chosen.work / f'seed{seed}'}",
        f"mix={chosen.mix}",
        f"ratio={chosen.ratio}",
        "protocol=scenes:truth",
        f"root={chosen.work / 'held'}",
        f"trainer.max_steps={chosen.steps}",
        f"trainer.seed={seed}",
        f"data.crop={chosen.crop}",
        "trainer.threads=1",
        "trainer.accelerator=cpu",
        "data.workers=0",
        "data.batch_size=2",
        "allow_leak=true",
    )


def measured(predictor: str, work: Path) -> Evaluation:
    path = work / f"{Path(predictor).stem}.json"
    stereopsis("evaluate", predictor, "scenes:truth", "--root", str(work / "held"), "--json", str(path))
    return read_evaluation(path)


def spread(values: list[float]) -> dict[str, float]:
    return {"mean": fmean(values), "deviation": stdev(values) if len(values) > 1 else 0.0}


def figures(evaluation: Evaluation) -> dict[str, float]:
    return {name: evaluation.value(name) for name in FIGURES}


def stereopsis(*arguments: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "stereopsis", *arguments]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)


if __name__ == "__main__":
    main()
