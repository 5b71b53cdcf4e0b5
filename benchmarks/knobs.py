"""One knob at a time: the same short training with one thing changed, of its scenes or of its recipe.

Every run goes on from the shipped `fast-tiny` and takes the same number of steps of `experiment=fast`, whose
rate falls to its end in each, on as many rendered pairs: of `general`, where the knob does not say otherwise,
from the same seed. Measured on the open scenes and on pairs of five distributions that no run has seen. "as
it is" with other seeds tells how much is chance. Pairs and runs that are there are not made again, runs that
were stopped go on, and `--knobs` lets two processes share the work.

    python benchmarks/knobs.py --work knobs/ --json benchmarks/results/knobs.json
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from diversity import measure, stereopsis
from stereopsis.evaluation.protocols import dataset_protocol
from stereopsis.evaluation.run import evaluate
from stereopsis.imaging import EffectRanges
from stereopsis.io.files import write_json
from stereopsis.prediction.loading import load, shipped_weights
from stereopsis.synthesis.distributions import (
    CLOSE_RANGE,
    DRIVING,
    GENERAL,
    INDOOR,
    LOW_TEXTURE,
    PATTERNS,
    SHAPES,
    Distribution,
    Weights,
)
from stereopsis.synthesis.folder import Order, render_folder

NETWORK = "fast-tiny"
COMMON = (
    "data.validation=[]",
    "optimizer.lr=3.0e-4",
    "trainer.average=0.98",
    "trainer.seed=1",
    "trainer.threads=1",
    "trainer.checkpoint_every=100000",
)
SEED, HELD_BACK_SEED = 401, 881
SIZE, HELD_BACK_SIZE = (576, 768), (480, 640)
ALL = (GENERAL, INDOOR, DRIVING, CLOSE_RANGE, LOW_TEXTURE)
START, BASE = "before", "as it is"


@dataclass(frozen=True)
class Knob:
    """What differs: numbers of `general`, the distributions, the share of the pairs, or the settings."""

    scenes: dict[str, Any] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    kinds: tuple[Distribution, ...] = (GENERAL,)
    share: float = 1.0
    hardest_of: int = 1
    """So many times the pairs are rendered, of which those stay on which the start errs most."""
    labels: str = ""
    """Who labels the pairs, whose truth is then not seen."""


def without(weights: Weights, *kinds: str) -> Weights:
    return {kind: weight for kind, weight in weights.items() if kind not in kinds}


THIN = ("rod", "fence", "leaf", "letter", "gear")
REPETITIVE = ("bricks", "weave", "stripes", "checks", "motif")


def taught_by(network: str) -> tuple[str, ...]:
    """Settings that add the divergence from a shipped network's distribution over planes."""
    return (f"teacher.weights={shipped_weights(network)}", "teacher.volume=1.0")


KNOBS: dict[str, Knob] = {
    START: Knob(),
    BASE: Knob(),
    "as it is, seed 2": Knob(settings=("trainer.seed=2",)),
    "as it is, seed 3": Knob(settings=("trainer.seed=3",)),
    "a quarter of the pairs": Knob(share=0.25),
    "all five distributions": Knob(kinds=ALL),
    "few objects": Knob(scenes={"objects": (2, 12)}),
    "nothing floats": Knob(scenes={"floating": 0.0}),
    "nothing thin": Knob(scenes={"shapes": without(SHAPES, *THIN)}),
    "nothing repetitive": Knob(scenes={"patterns": without(PATTERNS, *REPETITIVE)}),
    "plain things, four times as many": Knob(
        scenes={"patterns": {**PATTERNS, "plain": 4.4, "gradient": 3.2}}
    ),
    "fine textures": Knob(scenes={"texel": (0.5, 1.5)}),
    "no gloss, mirrors or glass": Knob(scenes={"glossy": 0.0, "mirrors": 0.0, "transparent": 0.0}),
    "no lamps, no shadows": Knob(scenes={"lamps": (0, 0)}),
    "ideal cameras": Knob(scenes={"effects": EffectRanges.none()}),
    "planes behind, nothing else": Knob(scenes={"layouts": {"planes": 1}}),
    "open air behind, nothing else": Knob(scenes={"layouts": {"ground": 1, "terrain": 1}}),
    "no large disparities": Knob(scenes={"nearest": (0.06, 0.12)}),
    "the harder half of twice as many": Knob(hardest_of=2),
    "no sharpening": Knob(settings=("data.augment.sharpen=0",)),
    "no noise of a pixel's size": Knob(settings=("data.augment.noise=0",)),
    "no patches erased": Knob(settings=("data.augment.erase=0",)),
    "colours of both views alike": Knob(settings=("data.augment.asymmetric=0",)),
    "rows in line": Knob(settings=("data.augment.vertical_jitter=0",)),
    "rows off by up to 3": Knob(settings=("data.augment.vertical_jitter=3",)),
    "never mirrored": Knob(settings=("data.augment.flip=0",)),
    "zoom 2^0.3 farther out": Knob(settings=("data.augment.scale=[-0.65,0.1]",)),
    "no zoom: disparities as rendered": Knob(
        settings=("data.augment.scale=[0.0,0.0]", "data.augment.stretch=0")
    ),
    "loss: exponent 1": Knob(settings=("loss.options.alpha=1.0",)),
    "loss: no cross entropy of planes": Knob(settings=("loss.options.cross_entropy=0",)),
    "AdamW": Knob(settings=("optimizer.name=adamw",)),
    "batch norms frozen": Knob(settings=("model.freeze_batch_norm=true",)),
    "occluded pixels left out": Knob(settings=("data.occluded=false",)),
    "a teacher: the distributions of `fast`": Knob(settings=taught_by("fast")),
    "the same, on clean pairs": Knob(settings=(*taught_by("fast"), "teacher.clean=true")),
    "the start as its own teacher": Knob(settings=taught_by(NETWORK)),
    "the same, it on clean pairs": Knob(settings=(*taught_by(NETWORK), "teacher.clean=true")),
    "labels of `fast`, never mirrored": Knob(labels="fast", settings=("data.augment.flip=0",)),
    "labels of `sgbm-refined`, never mirrored": Knob(
        labels="sgbm-refined", settings=("data.augment.flip=0",)
    ),
    "batches of four, as many windows": Knob(settings=("trainer.accumulate=2", "trainer.max_steps=125")),
    "a constant rate": Knob(settings=("optimizer.schedule=constant",)),
    "averaged twice as long": Knob(settings=("trainer.average=0.99",)),
    "not averaged": Knob(settings=("trainer.average=0",)),
    "half the rate": Knob(settings=("optimizer.lr=1.5e-4",)),
    "twice the rate": Knob(settings=("optimizer.lr=6.0e-4",)),
}


def render(
    folder: Path, kinds: Sequence[Distribution], *, count: int, seed: int, size: tuple[int, int]
) -> Path:
    """A folder with so many pairs of each distribution; those that are missing are rendered."""
    for kind in kinds:
        order = Order(output=folder, distribution=kind, count=count, seed=seed, size=size)
        collections.deque(render_folder(order), maxlen=0)
    return folder


def pairs(work: Path, name: str, count: int) -> Path:
    """The folder that a knob's run learns from; runs that see the same scenes share one."""
    knob = KNOBS[name]
    kinds = [dataclasses.replace(kind, **knob.scenes) for kind in knob.kinds]
    first = next(other for other in KNOBS if other != START and _scenes(other) == _scenes(name))
    folder = work / "pairs" / _file_name(first)
    each = round(count * knob.share / len(kinds))
    if knob.hardest_of == 1:
        return render(folder, kinds, count=each, seed=SEED, size=SIZE)
    pool = render(work / "pools" / folder.name, kinds, count=each * knob.hardest_of, seed=SEED, size=SIZE)
    return hardest(pool, folder, each * len(kinds))


def _scenes(name: str) -> Knob:
    return dataclasses.replace(KNOBS[name], settings=(), labels="")


def hardest(pool: Path, folder: Path, count: int) -> Path:
    """A folder of links to those of the pool's pairs on which the start has the largest end-point errors."""
    folder.mkdir(parents=True, exist_ok=True)
    report = evaluate(
        load(NETWORK), dataset_protocol("scenes", "truth"), name=NETWORK, roots={"scenes": pool}
    )
    errors = {row.name: row.figures[0].value for row in report.rows}  # end-point errors come first
    for name in sorted(errors, key=errors.__getitem__, reverse=True)[:count]:
        link = folder / name
        if not link.exists():
            link.symlink_to((pool / name).resolve())
    return folder


def source(work: Path, name: str, count: int) -> str:
    """What a knob's run learns from, as a setting: pairs with truth, or with what a teacher says of them."""
    scenes = pairs(work, name, count)
    teacher = KNOBS[name].labels
    if not teacher:
        return f"{{name: scenes, split: truth, root: '{scenes}'}}"
    labels = work / "labels" / _file_name(name)
    stereopsis("label", str(scenes), "--teacher", teacher, "--output", str(labels))
    return f"{{name: labelled, root: '{labels}'}}"


def train(data: str, output: Path, settings: Sequence[str]) -> Path:
    """The later of two settings of a key holds."""
    chosen = {setting.split("=", 1)[0]: setting for setting in settings}.values()
    stereopsis(
        "train",
        "experiment=fast",
        f"model.weights={shipped_weights(NETWORK)}",
        f"data.sources=[{data}]",
        *chosen,
        f"output={output}",
    )
    return output / "weights.safetensors"


def main() -> None:
    arguments = _arguments()
    work, steps = arguments.work, arguments.steps
    common = [f"model.name={NETWORK}", *COMMON, f"trainer.max_steps={steps}", *arguments.settings]
    settings = {"pairs": arguments.count, "training": common}
    held_back = render(work / "held-back", ALL, count=12, seed=HELD_BACK_SEED, size=HELD_BACK_SIZE)
    for name in arguments.knobs:
        if name in _runs(arguments.json, settings):
            continue
        output = work / "runs" / _file_name(name)
        if name == START:
            output.mkdir(parents=True, exist_ok=True)
            weights = shutil.copy(shipped_weights(NETWORK), output / "weights.safetensors")
        else:
            data = source(work, name, arguments.count)
            weights = train(data, output, [*common, *KNOBS[name].settings])
        run = {"open": measure(weights, "open"), "held back": measure(weights, "scenes", root=held_back)}
        runs = _runs(arguments.json, settings) | {name: run}
        write_json(arguments.json, {"settings": settings, "runs": runs})
        print(table(runs), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for pairs and runs")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--count", type=int, default=100, help="pairs to learn from")
    parser.add_argument("--knobs", nargs="+", choices=KNOBS, default=list(KNOBS), metavar="KNOB")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings of all runs")
    return parser.parse_intermixed_args()


def _runs(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The report so far, to which another process may have added; SystemExit if made with other settings."""
    if not path.exists():
        return {}
    report = json.loads(path.read_text())
    if report["settings"] != settings:
        raise SystemExit(f"{path} was made with other settings: name another file")
    return report["runs"]


def _file_name(knob: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in knob)


def table(runs: dict[str, Any]) -> str:
    """Markdown, in the order of the knobs; the last row says how much seeds alone do."""
    rows = {knob: _figures(runs[knob]) for knob in KNOBS if knob in runs}
    lines = [
        "| | open: EPE | bad-1 | bad-2 | photographs: bad-2 | held back: EPE | bad-2 |",
        "| --- " * 7 + "|",
    ]
    lines += [_line(knob, figures) for knob, figures in rows.items()]
    chance = [figures for knob, figures in rows.items() if knob.startswith(BASE)]
    if len(chance) > 1:
        spread = [statistics.stdev(values) for values in zip(*chance, strict=True)]
        lines.append(_line("standard deviation over seeds", spread))
    return "\n".join(lines)


def _figures(run: dict[str, Any]) -> list[float]:
    """Pixels and percent."""
    scenes, held = run["open"], run["held back"]
    shares = (scenes["bad-1 all"], scenes["bad-2 all"], scenes["photographs"]["bad-2 all"])
    return [scenes["epe all"], *(100 * share for share in shares), held["epe all"], 100 * held["bad-2 all"]]


def _line(name: str, figures: Sequence[float]) -> str:
    epe, bad1, bad2, photographs, held_epe, held_bad2 = figures
    return (
        f"| {name} | {epe:.2f} px | {bad1:.1f} % | {bad2:.1f} % | {photographs:.1f} % | {held_epe:.2f} px "
        f"| {held_bad2:.1f} % |"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
