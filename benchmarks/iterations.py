"""Error against iterations of a recurrent network, by what it starts from, and with an early stop.

    python benchmarks/iterations.py WEIGHTS --json benchmarks/results/iterations.json

On the open scenes ($STEREOPSIS_DATA/real), averaged over the images of each data set, then over data sets:
EPE and bad-2 after every iteration from the network's own start, from SGBM (with and without its holes
filled), and from the network at half size; what an early stop saves; and, on a pan over each scene, what
starting from the frame before saves. The figure is written beside the JSON.

The pan: two frames of each pair, the second `--pan` pixels further right in both images, so that content
moves by so much while its disparity stays. One forward pass gives all the iterates of a scene.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple, cast, get_args

import torch
from torch import Tensor, nn

from stereopsis.data.augment import zoom
from stereopsis.data.dataset import StereoDataset
from stereopsis.data.sources.registry import list_pairs
from stereopsis.io.atomic import writing
from stereopsis.io.files import write_json
from stereopsis.metrics.disparity import bad, epe
from stereopsis.models.base import StartableModel
from stereopsis.prediction.classical import SGBM
from stereopsis.prediction.loading import load
from stereopsis.prediction.network import NetworkPredictor, Precision
from stereopsis.prediction.rescaled import Rescaled
from stereopsis.prediction.started import COARSE
from stereopsis.structures import IterativeOutput, StereoPair, StereoSample

THRESHOLDS = (2.0, 1.0, 0.5, 0.3, 0.2, 0.1, 0.05)
"""Pixels of mean update below which iterations end."""

WITHIN = 1.01
"""An EPE is reached where it is at most so many times as large."""


class Course(NamedTuple):
    """Of one scene, after each iteration: EPE in pixels, bad-2 (0..1), the mean update in pixels."""

    epe: list[float]
    bad2: list[float]
    update: list[float]


Courses = dict[str, dict[str, list[Course]]]
"""By start, then by data set."""


class Iterates:
    """A network that gives every iterate, and tells how far each update moved."""

    def __init__(self, predictor: NetworkPredictor) -> None:
        self.predictor = predictor
        self.model = predictor.model
        self._updates: list[float] = []
        head = "flow_head" if hasattr(self.model, "flow_head") else "delta_head"
        self.model.get_submodule(head).register_forward_hook(self._note)

    def _note(self, _head: nn.Module, _inputs: tuple[Tensor, ...], delta: Tensor) -> None:
        self._updates.append(float(delta[:, 0].float().abs().mean()) / delta.shape[-1])

    def final(self, pair: StereoPair, *, iterations: int, initial: Tensor | None = None) -> Tensor:
        """The disparity after so many iterations."""
        self.model.eval()
        self._set(iterations)
        return self.predictor(pair, initial=initial).disparity

    def course(self, sample: StereoSample, *, iterations: int, initial: Tensor | None = None) -> Course:
        self._set(iterations)
        # The flag of the network alone makes it upsample every iterate; its layers stay in evaluation.
        self.model.eval().training = True
        self._updates = []
        output = self.predictor(sample.pair, initial=initial)
        self.model.eval()
        if not isinstance(output, IterativeOutput):
            raise TypeError("the network gives no iterates")
        amounts = self.model.padding.amounts(*sample.pair.size)
        width = sample.pair.size[1] + amounts[2] + amounts[3]
        truth, mask = sample.disparity, sample.valid
        return Course(
            [float(epe(found, truth, mask)) for found in output.iterates],
            [float(bad(found, truth, mask, threshold=2.0)) for found in output.iterates],
            [update * width for update in self._updates],
        )

    def _set(self, iterations: int) -> None:
        self.model.config = dataclasses.replace(self.model.config, iterations=iterations, stop_below=None)


def measure(
    network: Iterates, samples: Sequence[StereoSample], *, usual: int, most: int, started: int, pan: int
) -> Iterator[Courses]:
    """After every scene the courses so far: `most` iterations of the network alone, `started` started."""

    def coarse(pair: StereoPair) -> Tensor:
        half = Rescaled(lambda small: network.predictor(small), COARSE)
        network.model.eval()
        network._set(usual)
        return half(pair).disparity

    starts: Mapping[str, Callable[[StereoPair], Tensor]] = {
        "sgbm": lambda pair: SGBM(fill=None)(pair).disparity,
        "sgbm, filled": lambda pair: SGBM()(pair).disparity,
        "coarse": coarse,
    }
    courses: Courses = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        dataset = sample.info[0].dataset
        courses["own"][dataset].append(network.course(sample, iterations=most))
        for name, start in starts.items():
            found = network.course(sample, iterations=started, initial=start(sample.pair))
            courses[name][dataset].append(found)
        width = sample.pair.size[1]
        before, after = columns(sample, 0, width - pan), columns(sample, pan, width)
        last = network.final(before.pair, iterations=usual)
        courses["pan, own"][dataset].append(network.course(after, iterations=started))
        found = network.course(after, iterations=started, initial=last)
        courses["pan, previous"][dataset].append(found)
        print(sample.info[0].name, *(f"{k} {v[dataset][-1].epe[0]:.2f}" for k, v in courses.items()))
        yield courses


def shrunk(sample: StereoSample, pixels: int | None) -> StereoSample:
    """The scene with at most about so many pixels."""
    scale = 1.0 if pixels is None else min(1.0, (pixels / sample.disparity.numel()) ** 0.5)
    return sample if scale == 1 else zoom(sample, scale, scale)


def columns(sample: StereoSample, start: int, end: int) -> StereoSample:
    """That part of both images, which keeps every disparity (matches may leave it on the left)."""
    pair = sample.pair.map(lambda image: image[..., start:end].contiguous())
    return StereoSample(
        pair, sample.disparity[..., start:end], sample.valid[..., start:end], info=sample.info
    )


def averaged(values: Mapping[str, Sequence[float]]) -> float:
    """Over the images of each data set, then over data sets."""
    return fmean(fmean(found) for found in values.values())


def curve(courses: Mapping[str, Sequence[Course]]) -> dict[str, list[float]]:
    """EPE in pixels and bad-2 in percent after 1, 2, ... iterations."""
    count = len(next(iter(courses.values()))[0].epe)
    return {
        "epe": [
            round(averaged({k: [c.epe[n] for c in v] for k, v in courses.items()}), 4) for n in range(count)
        ],
        "bad-2": [
            round(100 * averaged({k: [c.bad2[n] for c in v] for k, v in courses.items()}), 3)
            for n in range(count)
        ],
    }


def stopped(courses: Mapping[str, Sequence[Course]], most: int) -> list[dict[str, float]]:
    """What ending below each threshold, after `most` iterations at the latest, leaves."""

    def end(course: Course, below: float) -> int:
        settled = (n for n, update in enumerate(course.update[:most]) if update < below)
        return next(settled, most - 1)

    rows = []
    for below in THRESHOLDS:
        ends = {name: [(c, end(c, below)) for c in found] for name, found in courses.items()}
        rows.append(
            {
                "below": below,
                "iterations": round(averaged({k: [n + 1 for _, n in v] for k, v in ends.items()}), 2),
                "epe": round(averaged({k: [c.epe[n] for c, n in v] for k, v in ends.items()}), 4),
                "bad-2": round(100 * averaged({k: [c.bad2[n] for c, n in v] for k, v in ends.items()}), 3),
            }
        )
    return rows


def needed(epes: Sequence[float], wanted: float) -> int | None:
    """The first iteration whose EPE is as wanted."""
    return next((n + 1 for n, value in enumerate(epes) if value <= WITHIN * wanted), None)


def summary(courses: Courses, usual: int) -> dict[str, object]:
    curves = {name: curve(found) for name, found in courses.items()}
    reached = {}
    for name, found in curves.items():
        beside = "pan, own" if name.startswith("pan") else "own"
        wanted = curves[beside]["epe"][:usual][-1]
        reached[name] = {"of": beside, "epe": wanted, "iterations": needed(found["epe"], wanted)}
    return {
        "curves": curves,
        "as good as usual": reached,
        "early stop": {name: stopped(found, len(curves[name]["epe"])) for name, found in courses.items()},
    }


def figure(curves: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> str:
    """EPE against iterations, a line a start; the axis of iterations is logarithmic."""
    colours = ("#1f4e79", "#c55a11", "#e0a060", "#548235", "#7f7f7f", "#a02050")
    width, height, left, top, bottom = 640, 360, 56, 34, 46
    most = max(len(found["epe"]) for found in curves.values())
    high = 1.05 * max(max(found["epe"]) for found in curves.values())
    low = 0.9 * min(min(found["epe"]) for found in curves.values())

    def x(n: float) -> float:
        return left + (width - left - 150) * torch.log2(torch.tensor(n)).item() / max(
            1.0, torch.log2(torch.tensor(float(most))).item()
        )

    def y(value: float) -> float:
        return top + (height - top - bottom) * (high - value) / (high - low)

    parts = [
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="18">{title}</text>',
        f'<text x="{(left + width - 150) / 2}" y="{height - 8}" text-anchor="middle">iterations</text>',
    ]
    for n in (1, 2, 4, 8, 16, 32):
        if n <= most:
            parts.append(
                f'<line x1="{x(n):.1f}" x2="{x(n):.1f}" y1="{top}" y2="{height - bottom}" stroke="#ddd"/>'
            )
            parts.append(f'<text x="{x(n):.1f}" y="{height - bottom + 16}" text-anchor="middle">{n}</text>')
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        value = low + share * (high - low)
        parts.append(
            f'<line x1="{left}" x2="{width - 150}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#eee"/>'
        )
        parts.append(f'<text x="{left - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.2f}</text>')
    for place, (name, found) in enumerate(curves.items()):
        colour = colours[place % len(colours)]
        points = " ".join(f"{x(n + 1):.1f},{y(value):.1f}" for n, value in enumerate(found["epe"]))
        dashes = ' stroke-dasharray="5 3"' if name.startswith("pan") else ""
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>')
        at = top + 14 + 18 * place
        parts.append(
            f'<line x1="{width - 140}" x2="{width - 116}" y1="{at - 4}" y2="{at - 4}" '
            f'stroke="{colour}" stroke-width="2"{dashes}/>'
        )
        parts.append(f'<text x="{width - 110}" y="{at}">{name}</text>')
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="12">\n{body}\n</svg>\n'
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--most", type=int, default=32, help="iterations from the network's own start")
    parser.add_argument("--started", type=int, default=16, help="iterations from the other starts")
    parser.add_argument("--pan", type=int, default=16, help="pixels between two frames")
    parser.add_argument("--precision", choices=get_args(Precision), default="float32")
    parser.add_argument("--note", default="", help="where the weights come from, for the record")
    parser.add_argument("--pixels", type=int, help="scenes of more pixels are made smaller, with their truth")
    parser.add_argument("--limit", type=int, help="scenes, for a trial")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    predictor = load(arguments.weights, precision=arguments.precision)
    if not isinstance(predictor, NetworkPredictor) or not isinstance(predictor.model, StartableModel):
        raise SystemExit(f"{arguments.weights} holds no recurrent network")
    usual = predictor.model.config.iterations
    dataset = StereoDataset([files for files in list_pairs("open", "truth") if files.disparity is not None])
    count = len(dataset) if arguments.limit is None else arguments.limit
    samples = [shrunk(dataset[n], arguments.pixels) for n in range(count)]
    facts = {
        "network": type(predictor.model).__name__,
        "weights": arguments.note,
        "usual iterations": usual,
        "precision": arguments.precision,
        "pan": arguments.pan,
        "coarse": f"scale {COARSE}, {usual} iterations",
        "torch": torch.__version__,
    }
    measured = measure(
        Iterates(predictor),
        samples,
        usual=usual,
        most=arguments.most,
        started=arguments.started,
        pan=arguments.pan,
    )
    for count, courses in enumerate(measured, 1):
        sizes = [sample.disparity.numel() for sample in samples[:count]]
        so_far = {"scenes": count, "largest scene, pixels": max(sizes)}
        write(arguments.json, {**facts, **so_far, **summary(courses, usual)})
    print(arguments.json.read_text())


def write(path: Path, found: dict[str, object]) -> None:
    """The JSON and the figure beside it, whole or not at all."""
    write_json(path, found)
    curves = cast(dict[str, dict[str, list[float]]], found["curves"])
    with writing(path.with_suffix(".svg")) as temporary:
        temporary.write_text(
            figure(curves, f"EPE in pixels, {found['network']}, {found['scenes']} open scenes")
        )


if __name__ == "__main__":
    main()
