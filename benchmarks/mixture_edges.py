"""SMD-Nets' claim in small: at depth edges a bimodal head errs less than plain regression, same budget.

Synthetic pairs whose truth is four times finer than their images, a tiny HSMNet backbone; each head is
trained for the same number of steps on the same pairs and points, over several seeds. Soft edge error (SEE)
and end-point error are at the truth's resolution and in its pixels. Two settings: `general` measures on pairs
of another seed; `fitted` on the very pairs that were trained on, few enough to be learnt by heart: what is
left there is how sharp an edge the head can draw. Runs are added to what the output holds.

    python benchmarks/mixture_edges.py fitted --output benchmarks/results/mixture-edges.json
    python benchmarks/mixture_edges.py general --steps 400 --training 48 --output ...
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from stereopsis.io.files import write_json
from stereopsis.losses import MixtureLoss
from stereopsis.metrics.disparity import epe
from stereopsis.metrics.edges import boundaries, see
from stereopsis.models.registry import create
from stereopsis.models.smd import SMDNet
from stereopsis.prediction.network import NetworkPredictor
from stereopsis.prediction.superresolution import superresolved
from stereopsis.structures import StereoPair, StereoSample
from stereopsis.synthesis import SyntheticStream
from stereopsis.synthesis.distributions import SANITY, Distribution

FINER = 4
HEADS = ("standard", "bimodal")


@dataclass(frozen=True)
class Setting:
    """held_out: the seed of the pairs that are measured; 1 is that of the training's."""

    kind: str | Distribution
    size: tuple[int, int]
    max_disparity: int
    rate: float
    held_out: int

    @property
    def fine(self) -> tuple[int, int]:
        return self.size[0] * FINER, self.size[1] * FINER


_PANELS = dataclasses.replace(
    SANITY, name="panels", objects=(3, 8), nearest=(0.12, 0.3), farthest=(0.02, 0.06)
)
SETTINGS = {
    "general": Setting("general", (128, 256), 128, 1e-3, held_out=2),
    "fitted": Setting(_PANELS, (128, 128), 64, 2e-3, held_out=1),
}


@dataclass(frozen=True)
class Scene:
    pair: StereoPair
    truth: Tensor
    """[h w], of the left view, FINER times the pair's size, in its own pixels; infinite where unknown."""


def scenes(setting: Setting, seed: int, count: int) -> list[Scene]:
    stream = SyntheticStream(seed, setting.kind, size=setting.size, truth_size=setting.fine)
    made = []
    for index in range(count):
        rendering = stream.rendering(index)
        truth = rendering.left.disparity
        known = rendering.left.valid & (truth < setting.max_disparity * FINER)
        made.append(Scene(rendering.sample.pair, truth.masked_fill(~known, torch.inf)))
    return made


def network(setting: Setting, head: str) -> SMDNet:
    model = create(
        "smd-hsmnet", representation=head, max_disparity=setting.max_disparity, width=8, head=(128, 64, 32)
    )
    assert isinstance(model, SMDNet)
    return model


def train(
    setting: Setting, head: str, seed: int, training: list[Scene], steps: int
) -> tuple[SMDNet, list[float]]:
    torch.manual_seed(seed)
    model = network(setting, head)
    optimizer = torch.optim.Adam(model.parameters(), lr=setting.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, setting.rate, total_steps=steps, pct_start=0.1)
    loss = MixtureLoss(points=4096, dilation=10, seed=seed)
    order = torch.Generator().manual_seed(seed)
    curve = []
    for _ in range(steps):
        picked = torch.randint(len(training), (2,), generator=order).tolist()
        pair = StereoPair.stack([training[i].pair for i in picked])
        truth = torch.stack([training[i].truth for i in picked])
        value = loss(model.train()(pair.left, pair.right), StereoSample(pair, truth, truth.isfinite()))
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
        mask = scene.truth.isfinite()
        soft.append(float(see(disparity, scene.truth, mask)))
        errors.append(float(epe(disparity, scene.truth, mask)))
        near = mask & boundaries(scene.truth, dilation=10)
        at_edges.append(float(epe(disparity, scene.truth, near)))
    means = (sum(values) / len(values) for values in (soft, errors, at_edges))
    return dict(zip(("see", "epe", "epe_near_edges"), means, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("setting", choices=list(SETTINGS))
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--training", type=int, default=4)
    parser.add_argument("--held-out", type=int, default=4)
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="folder for the trained weights of the first seed")
    arguments = parser.parse_args()
    setting = SETTINGS[arguments.setting]
    training, held_out = (
        scenes(setting, 1, arguments.training),
        scenes(setting, setting.held_out, arguments.held_out),
    )
    runs = []
    for seed in arguments.seeds:
        for head in arguments.heads:
            start = time.process_time()
            model, curve = train(setting, head, seed, training, arguments.steps)
            run = {
                "head": head,
                "seed": seed,
                "cpu_seconds": round(time.process_time() - start, 1),
                **{name: round(value, 4) for name, value in measure(model, held_out).items()},
                "loss": [round(fmean(curve[i : i + 20]), 4) for i in range(0, len(curve), 20)],
            }
            runs.append(run)
            print({name: value for name, value in run.items() if name != "loss"}, flush=True)
            if arguments.weights and seed == arguments.seeds[0]:
                arguments.weights.mkdir(parents=True, exist_ok=True)
                torch.save(model.state_dict(), arguments.weights / f"{head}.pth")
            _write(arguments, runs)


def _spread(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"mean": round(sum(values) / len(values), 4), "lowest": min(values), "highest": max(values)}


def _write(arguments: argparse.Namespace, runs: list[dict]) -> None:
    path, name = arguments.output, arguments.setting
    report = json.loads(path.read_text()) if path.exists() else {}
    made = {(run["head"], run["seed"]) for run in runs}
    kept = [run for run in report.get(name, {}).get("runs", []) if (run["head"], run["seed"]) not in made]
    runs = sorted([*kept, *runs], key=lambda run: (run["seed"], HEADS.index(run["head"])))
    report[name] = {
        "what": "smd-hsmnet, width 8, head 128-64-32; pixels are those of the truth, 4 times finer",
        "max_disparity": SETTINGS[name].max_disparity,
        "steps": arguments.steps,
        "training_pairs": arguments.training,
        "held_out_pairs": arguments.held_out,
        "image": list(SETTINGS[name].size),
        "torch": torch.__version__,
        "see": {head: _spread([run["see"] for run in runs if run["head"] == head]) for head in HEADS},
        "runs": runs,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, report)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
