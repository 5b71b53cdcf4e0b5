"""Which confidence knows best where a disparity is wrong, and does its number mean anything?

For each predictor every cue alone (bent by isotonic regression), test-time augmentation, and learned
combinations, all fitted on rendered pairs; measured on held-back rendered pairs and on the open scenes:
AUSE against random, AUROC and ECE of errors up to 1 px. The best by AUSE on held-back pairs is marked.

    python benchmarks/confidence.py sgbm fast --json benchmarks/results/confidence.json

Writes the figure (reliability before and after) beside the JSON. `--store` writes SGBM's best cheap fit
as the package's own.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

import stereopsis
from stereopsis.data.dataset import StereoDataset
from stereopsis.data.sources.registry import list_pairs
from stereopsis.io.atomic import writing
from stereopsis.io.files import write_json
from stereopsis.labelling.calibrate import CHEAP, Quality, answers, best, fitted, quality
from stereopsis.prediction.augmented import Augmented, Variants
from stereopsis.prediction.certainty import PLAIN, THRESHOLD, Certainty, available_cues
from stereopsis.prediction.classical import SGBM
from stereopsis.prediction.loading import load
from stereopsis.prediction.mirrored import Mirrored
from stereopsis.prediction.network import NetworkPredictor
from stereopsis.structures import Predictor, StereoOutput, StereoSample
from stereopsis.synthesis.stream import SyntheticStream

SEED = 977_000_017
SIZE = (384, 512)
LARGEST = 400_000
"""Pixels; larger open scenes are reduced, so that one does not outweigh all the others in time."""

Answers = list[tuple[StereoSample, StereoOutput]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("predictors", nargs="+")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--fit", type=int, default=24, help="pairs to fit on")
    parser.add_argument("--held", type=int, default=16, help="pairs held back")
    parser.add_argument("--distribution", default="general")
    parser.add_argument("--scenes", type=Path, help="rendered already, by stereopsis render")
    parser.add_argument("--store", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    stream = (
        SyntheticStream(SEED, arguments.distribution, size=SIZE)
        if arguments.scenes is None
        else StereoDataset(list_pairs("scenes", "truth", root=arguments.scenes))
    )
    samples = list(islice(stream, arguments.fit + arguments.held))
    results = {}
    reliability = {}
    for name in arguments.predictors:
        measured, curves, chosen = measure(name, samples[: arguments.fit], samples[arguments.fit :])
        label = Path(name).stem if Path(name).exists() else name
        results[label], reliability[label] = measured, curves
        if arguments.store and name == "sgbm":
            path = Path(stereopsis.__file__).parent / "weights" / "sgbm.certainty.json"
            path.parent.mkdir(exist_ok=True)
            write_json(path, chosen.plain())
    facts = {
        "fit": arguments.fit,
        "held_back": arguments.held,
        "data": [info.name for sample in samples[:1] for info in sample.info],
        "distribution": arguments.distribution,
        "size": list(samples[0].pair.size),
        "threshold": THRESHOLD,
    }
    write_json(arguments.json, {**facts, "predictors": results})
    with writing(arguments.json.with_suffix(".svg")) as temporary:
        temporary.write_text(figure(reliability), encoding="utf-8")
    print(table(results))


def measure(
    name: str, fit: Sequence[StereoSample], held: Sequence[StereoSample]
) -> tuple[dict[str, dict[str, dict[str, float]]], dict[str, list[tuple[float, float]]], Certainty]:
    """Figures by data and method, reliability before and after, and the chosen certainty."""
    bare = raw(load(name))
    both = Mirrored(bare)
    fitting, holding = list(answers(both, fit)), list(answers(both, held))
    opened = list(answers(both, open_scenes()))
    cues = available_cues(fitting[0][0].pair, fitting[0][1])
    figures: dict[str, dict[str, dict[str, float]]] = {"held-back": {}, "open": {}}

    def add(method: str, certainty: Certainty | None, sets: dict[str, Answers] | None = None) -> None:
        for data, answered in (sets or {"held-back": holding, "open": opened}).items():
            if answered:
                figures[data][method] = plain(quality(answered, certainty))

    add("as it comes", None)
    for one in cues:
        add(f"{one}, bent", fitted(fitting, cues=[one]))
    cheap = [one for one in cues if one in CHEAP]
    add("combined", fitted(fitting, cues=cheap))
    if "left-right" in cues:
        add("combined with left-right", fitted(fitting, cues=[*cheap, "left-right"]))
    for title, variants in (
        ("flip", Variants(flip=True)),
        ("scale", Variants(scales=(0.75,))),
        ("colour", Variants(gammas=(0.7,))),
    ):
        spread = Augmented(bare, variants)
        sets = {
            "held-back": list(answers(Spread(spread), held)),
            "open": list(answers(Spread(spread), open_scenes())),
        }
        add(f"spread by {title}", None, sets)
    # SGBM matches both views anyway; a network would need a second pass, and an export lacks its volume.
    allowed = ("left-right", *PLAIN) if isinstance(bare, SGBM) else CHEAP
    chosen, _ = best(fitting, holding, facts=told(fit), cues=allowed)
    add("default", chosen)
    curves = {"before": reliability(holding, None), "after": reliability(holding, chosen)}
    return figures, curves, chosen


@dataclasses.dataclass(frozen=True)
class Spread:
    """The plain answer with the confidence that its variants' spread alone gives."""

    augmented: Augmented

    def __call__(self, pair) -> StereoOutput:
        from stereopsis.confidence import from_pixels
        from stereopsis.prediction.augmented import spread

        outputs = list(self.augmented.answers(pair))
        deviation = spread(torch.stack([output.disparity for output in outputs]))
        return StereoOutput(outputs[0].disparity, from_pixels(deviation))


def raw(predictor: Predictor) -> Predictor:
    """Without any certainty that it was given already."""
    if isinstance(predictor, SGBM):
        return dataclasses.replace(predictor, certainty=None)
    if isinstance(predictor, NetworkPredictor):
        predictor.certainty = None
    return predictor


def open_scenes() -> Iterator[StereoSample]:
    """Those with truth, the larger ones reduced; none where they are not here."""
    if not os.environ.get("STEREOPSIS_DATA"):
        return
    from stereopsis.data.augment import zoom

    for sample in StereoDataset(list_pairs("open")):
        height, width = sample.pair.size
        scale = min(1.0, (LARGEST / (height * width)) ** 0.5)
        yield sample if scale == 1 else zoom(sample, scale, scale)


def told(samples: Sequence[StereoSample]) -> str:
    """Data set and first name of the pairs fitted on, for the record."""
    info = samples[0].info[0]
    return f"{info.dataset}, {len(samples)} pairs from {info.name} on"


def plain(found: Quality) -> dict[str, float]:
    return {name: round(value, 5) for name, value in dataclasses.asdict(found).items()}


def reliability(answered: Answers, certainty: Certainty | None, bins: int = 10) -> list[tuple[float, float]]:
    """(mean confidence, share right) of each tenth of the range that holds pixels."""
    sure, right = [], []
    for sample, output in answered:
        confidence = output.confidence if certainty is None else certainty(sample.pair, output)
        assert confidence is not None
        known = sample.valid & output.disparity.isfinite()
        sure.append(confidence[known].double().numpy())
        right.append(((output.disparity - sample.disparity).abs()[known] <= THRESHOLD).double().numpy())
    x, y = np.concatenate(sure), np.concatenate(right)
    place = np.clip((x * bins).astype(int), 0, bins - 1)
    there = [k for k in range(bins) if (place == k).sum() > 100]
    return [(float(x[place == k].mean()), float(y[place == k].mean())) for k in there]


def table(results: dict[str, dict[str, dict[str, dict[str, float]]]]) -> str:
    lines = [
        "| predictor | data | confidence | AUSE | random | AUROC | ECE |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, data in results.items():
        for part, methods in data.items():
            least = min((found["ause"] for found in methods.values()), default=0.0)
            for method, found in methods.items():
                mark = "**" if found["ause"] == least else ""
                numbers = (found["ause"], found["random"], found["auroc"], found["ece"])
                cells = [name, part, method, *(f"{number:.3f}" for number in numbers)]
                cells[3] = f"{mark}{cells[3]}{mark}"
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def figure(curves: dict[str, dict[str, list[tuple[float, float]]]]) -> str:
    """Reliability: share right over confidence, before (gray) and after (blue), a panel a predictor."""
    side, gap = 220, 50
    parts = []
    for place, (name, lines) in enumerate(curves.items()):
        left = gap + place * (side + gap)
        parts.append(f'<text x="{left}" y="20">{name}</text>')
        parts.append(f'<path d="M{left} 30V{30 + side}H{left + side}" fill="none" stroke="#444"/>')
        parts.append(f'<path d="M{left} {30 + side}L{left + side} 30" stroke="#bbb" stroke-dasharray="4"/>')
        for line, colour in (("before", "#999"), ("after", "#4575b4")):
            points = " ".join(f"{left + side * x:.1f},{30 + side * (1 - y):.1f}" for x, y in lines[line])
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{left + 40}" y="{side + 48}">confidence; share right to 1 px</text>')
    width = gap + len(curves) * (side + gap)
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {side + 60}" '
        f'font-family="sans-serif" font-size="12">\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    main()
