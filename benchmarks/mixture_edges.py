"""SMD-Nets' claim in small: at depth edges a bimodal head errs less than plain regression, same budget.

Synthetic pairs whose truth is four times finer than their images; a tiny HSMNet backbone; each head is
trained for the same number of steps on the same pairs and points, over several seeds. Soft edge error
(SEE) and end-point error are measured on pairs of another seed, at the truth's resolution and in its pixels.

    python benchmarks/mixture_edges.py --steps 400 --output benchmarks/results/mixture-edges.json
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stereopsis.io.atomic import writing
from stereopsis.losses import MixtureLoss
from stereopsis.metrics.disparity import epe
from stereopsis.metrics.edges import boundaries, see
from stereopsis.models.registry import create
from stereopsis.models.smd import SMDNet
from stereopsis.prediction.network import NetworkPredictor
from stereopsis.prediction.superresolution import superresolved
from stereopsis.structures import StereoPair, StereoSample
from stereopsis.synthesis import SyntheticStream

SIZE = (128, 256)
FINER = 4
MAX_DISPARITY = 128
HEADS = ("standard", "bimodal")


@dataclass(frozen=True)
class Scene:
    pair: StereoPair
    truth: Tensor
    """[h w], of the left view, FINER times the pair's size, in its own pixels."""


def scenes(seed: int, count: int, kind: str) -> list[Scene]:
    fine = (SIZE[0] * FINER, SIZE[1] * FINER)
    stream = SyntheticStream(seed, kind, size=SIZE, truth_size=fine)
    made = []
    for index in range(count):
        rendering = stream.rendering(index)
        known = rendering.left.valid & (rendering.left.disparity < MAX_DISPARITY * FINER)
        truth = torch.where(known, rendering.left.disparity, torch.zeros(()))
        made.append(Scene(rendering.sample.pair, truth))
    return made


def train(head: str, seed: int, training: list[Scene], steps: int) -> tuple[SMDNet, list[float]]:
    torch.manual_seed(seed)
    model = create(
        "smd-hsmnet", representation=head, max_disparity=MAX_DISPARITY, width=8, head=(128, 64, 32)
    )
    assert isinstance(model, SMDNet)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps, pct_start=0.1)
    loss = MixtureLoss(points=4096, dilation=10, seed=seed)
    order = torch.Generator().manual_seed(seed)
    curve = []
    for _ in range(steps):
        picked = torch.randint(len(training), (2,), generator=order).tolist()
        pair = StereoPair.stack([training[i].pair for i in picked])
        truth = torch.stack([training[i].truth for i in picked])
        value = loss(model.train()(pair.left, pair.right), StereoSample(pair, truth, truth > 0))
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        curve.append(float(value.detach()))
    return model, curve


def measure(model: SMDNet, held_out: list[Scene]) -> dict[str, float]:
    """Means over the scenes, in pixels of the truth."""
    predictor = NetworkPredictor(model)
    soft, errors, at_edges = [], [], []
    for scene in held_out:
        disparity = superresolved(predictor(scene.pair), FINER).disparity
        mask = scene.truth > 0
        soft.append(float(see(disparity, scene.truth, mask)))
        errors.append(float(epe(disparity, scene.truth, mask)))
        near = mask & boundaries(scene.truth, dilation=10)
        at_edges.append(float(epe(disparity, scene.truth, near)))
    means = (sum(values) / len(values) for values in (soft, errors, at_edges))
    return dict(zip(("see", "epe", "epe_near_edges"), means, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--training", type=int, default=64)
    parser.add_argument("--held-out", type=int, default=12)
    parser.add_argument("--distribution", default="general")
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="folder for the trained weights of the first seed")
    arguments = parser.parse_args()
    training = scenes(1, arguments.training, arguments.distribution)
    held_out = scenes(2, arguments.held_out, arguments.distribution)
    runs = []
    for seed in arguments.seeds:
        for head in arguments.heads:
            start = time.process_time()
            model, curve = train(head, seed, training, arguments.steps)
            run = {
                "head": head,
                "seed": seed,
                "cpu_seconds": round(time.process_time() - start, 1),
                **{name: round(value, 4) for name, value in measure(model, held_out).items()},
                "loss": [round(sum(curve[i : i + 20]) / 20, 4) for i in range(0, len(curve), 20)],
            }
            runs.append(run)
            print({name: value for name, value in run.items() if name != "loss"}, flush=True)
            if arguments.weights and seed == arguments.seeds[0]:
                arguments.weights.mkdir(parents=True, exist_ok=True)
                torch.save(model.state_dict(), arguments.weights / f"{head}.pth")
            _write(arguments, runs)


def _write(arguments: argparse.Namespace, runs: list[dict]) -> None:
    report = {
        "what": "smd-hsmnet, width 8, head 128-64-32, 128 px; pixels are those of the truth, 4 times finer",
        "steps": arguments.steps,
        "training_pairs": arguments.training,
        "held_out_pairs": arguments.held_out,
        "distribution": arguments.distribution,
        "image": list(SIZE),
        "torch": torch.__version__,
        "runs": runs,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with writing(arguments.output) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
