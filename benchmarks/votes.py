"""Who should vote on every pixel: the default's three answers, more of them, and none of the matcher's.

Answers are of the matcher, of `fast` at several widths and on the pair turned upside down; each vote is
settled as `sgbm-refined` does. EPE (px), bad-1, bad-2 and D1 (%) on the open scenes (mean over data sets)
and, with `--scenes`, on rendered pairs (mean over pairs).

    python benchmarks/votes.py --scenes held-back/ --json benchmarks/results/votes.json
"""

from __future__ import annotations

import argparse
import os
import statistics
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stereopsis.evaluation.protocols import dataset_protocol, protocol
from stereopsis.evaluation.run import evaluate
from stereopsis.io.files import write_json
from stereopsis.metrics import disparity as metrics
from stereopsis.prediction.loading import load
from stereopsis.prediction.refined import RefinedSGBM
from stereopsis.prediction.rescaled import Rescaled, enlargement
from stereopsis.structures import StereoOutput, StereoPair, StereoSample

AGREEMENT = 3.0
"""Pixels within which answers are of one surface, as in `sgbm-refined`."""
EXACTNESS = {"matcher": 1.0, "turned over": 1.0, "0.7": 0.3, "1": 1.0, "1.2": 1.0, "1.4": 2.0}
"""How much each answer counts in a mean; numbers are `fast` at such a share of the width."""
VOTES = (
    ("matcher",),
    ("1",),
    ("1.4",),
    ("matcher", "1", "0.7"),
    ("matcher", "1", "0.7", "1.2"),
    ("matcher", "1", "0.7", "1.4"),
    ("matcher", "1", "0.7", "turned over"),
    ("matcher", "0.7", "1.4"),
    ("1", "0.7"),
    ("1", "0.7", "1.4"),
)


@dataclass(frozen=True)
class Voted:
    """Answers and certainties of one image by name; dataset: over which it is averaged first."""

    dataset: str
    sample: StereoSample
    answers: dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Asked:
    """The default's parts, each answering on its own; what they said last is kept."""

    parts: RefinedSGBM
    said: dict[str, tuple[Tensor, Tensor]]

    def __call__(self, pair: StereoPair) -> StereoOutput:
        for name in EXACTNESS:
            output = self.answer(name, pair)
            assert output.confidence is not None
            self.said[name] = (output.disparity, output.confidence)
        return StereoOutput(*self.said["1"])

    def answer(self, name: str, pair: StereoPair) -> StereoOutput:
        network = self.parts.network
        if name == "matcher":
            return self.parts.matcher(pair)
        if name == "1":
            return network(pair)
        if name == "turned over":
            return network(pair.map(lambda image: image.flip(-2))).map(lambda values: values.flip(-2))
        scale = float(name) * enlargement(pair.size, network.least_pixels)
        return Rescaled(network.at_size, scale)(pair)


def asked(scenes: Path | None) -> list[Voted]:
    """Every image of the open scenes or of a folder of rendered pairs, with all answers."""
    parts = load("sgbm-refined")
    assert isinstance(parts, RefinedSGBM)
    asking = Asked(parts, {})
    found: list[Voted] = []
    evaluate(
        asking,
        protocol("open") if scenes is None else dataset_protocol("scenes", "truth"),
        name="votes",
        roots=None if scenes is None else {"scenes": scenes},
        observe=lambda row, sample, _: found.append(
            Voted(row.dataset if scenes is None else row.name, sample, dict(asking.said))
        ),
    )
    return found


def settled(voted: Voted, names: tuple[str, ...]) -> Tensor:
    """The mean of the answers near their median, each weighing as much as it is certain."""
    answers = torch.stack([voted.answers[name][0] for name in names])
    weights = torch.stack([voted.answers[name][1] for name in names]).clamp(min=1e-12)
    order = answers.argsort(0)
    below = weights.gather(0, order).cumsum(0)
    middle = (below >= below[-1] / 2).float().argmax(0, keepdim=True)
    median = answers.gather(0, order).gather(0, middle)
    exactness = torch.tensor([EXACTNESS[name] for name in names]).reshape(-1, 1, 1)
    counted = torch.where((answers - median).abs() < AGREEMENT, weights * exactness, 0.0)
    return (counted * answers).sum(0) / counted.sum(0)


def figures(images: list[Voted], names: tuple[str, ...]) -> dict[str, float]:
    """EPE in pixels, shares in percent."""
    groups: dict[str, list[tuple[float, ...]]] = {}
    for voted in images:
        truth, valid = voted.sample.disparity, voted.sample.valid
        disparity = settled(voted, names)
        shares = [metrics.bad(disparity, truth, valid, threshold=t) for t in (1.0, 2.0)]
        shares.append(metrics.d1(disparity, truth, valid))
        row = (float(metrics.epe(disparity, truth, valid)), *(100 * float(share) for share in shares))
        groups.setdefault(voted.dataset, []).append(row)
    means = [[statistics.mean(values) for values in zip(*rows, strict=True)] for rows in groups.values()]
    overall = (statistics.mean(values) for values in zip(*means, strict=True))
    return dict(zip(("epe", "bad-1", "bad-2", "d1"), (round(value, 3) for value in overall), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=Path, help="rendered pairs, too")
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    sets = {"open": asked(None)}
    if arguments.scenes:
        sets["rendered"] = asked(arguments.scenes)
    report = {
        " + ".join(names): {name: figures(images, names) for name, images in sets.items()} for names in VOTES
    }
    write_json(arguments.json, report)
    for names, row in report.items():
        print(names, *(" / ".join(f"{value:.2f}" for value in each.values()) for each in row.values()))


if __name__ == "__main__":
    main()
