"""SyDE-Net's claim in small: a monocular branch helps where matching says little.

A tiny transformer learns relative inverse depth from left images, and is frozen. Then narrow SyDE-Nets learn
disparity, with that branch and without it, and with and without each attention: the same scenes, steps and
seeds. End-point error is measured on scenes of another seed: where the image has no texture, where only the
left camera sees, and over all. Scenes, the monocular weights and finished runs are kept, and not made again.

    python benchmarks/sydenet_fusion.py
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stereopsis.data.dataset import Annotations
from stereopsis.evaluation.measure import measure, textureless
from stereopsis.evaluation.protocols import Column
from stereopsis.imaging import EffectRanges
from stereopsis.io.atomic import writing
from stereopsis.io.files import write_json
from stereopsis.layers.dpt import enlarge
from stereopsis.layers.vit import PATCH
from stereopsis.losses import SequenceLoss
from stereopsis.models.depth_anything_v2 import DepthAnythingV2
from stereopsis.models.registry import create
from stereopsis.models.sydenet import SyDENet
from stereopsis.models.sydenet.alignment import aligned
from stereopsis.structures import StereoOutput, StereoPair, StereoSample
from stereopsis.synthesis import SyntheticStream
from stereopsis.synthesis.distributions import LOW_TEXTURE
from stereopsis.training.config import OptimizerSettings
from stereopsis.training.schedule import build_optimizer, build_schedule

SIZE = (96, 128)
MAX_DISPARITY = 32
STANDING = dataclasses.replace(
    LOW_TEXTURE,
    name="standing-things",
    layouts={"ground": 1, "room": 1},
    focal=(0.9, 1.1),
    baseline=(0.1, 0.1),
    nearest=(0.15, 0.23),
    farthest=(0.02, 0.04),
    doffs_chance=0.0,
    objects=(4, 8),
    shapes={"box": 2, "cylinder": 1, "ellipsoid": 1},
    patterns={"plain": 3, "noise": 2, "leaves": 2, "bricks": 1, "glyphs": 1},
    apparent=(0.06, 0.16),
    floating=0.0,
    stacked=0.0,
    texel=(1.0, 2.5),
    glossy=0.0,
    mirrors=0.0,
    transparent=0.0,
    lamps=(0, 1),
    tilt=0.0,
    effects=EffectRanges.none(),
)
"""A few plain or patterned things on a floor, before walls or the sky: where a foot stands tells how far."""
SCALED = dataclasses.replace(STANDING, name="scaled-things", nearest=(0.08, 0.24), farthest=(0.01, 0.03))
"""The same before cameras of any baseline: one image tells how depths relate, and not the disparity."""
SCENES = {kind.name: kind for kind in (STANDING, SCALED)}

ARMS: dict[str, dict[str, object]] = {
    "fused": {},
    "monocular features, no exchange": {"mixed_iterations": 0},
    "stereo alone": {"monocular": False},
    "fused, no channel attention": {"channel_attention": False},
    "fused, spatial attention": {"spatial_attention": True},
    "fused, disparity doubled as released": {"doubled": True},
}
COLUMNS = (Column("epe", "textureless"), Column("epe", "occ"), Column("epe"), Column("bad-3"))


@dataclass(frozen=True)
class Settings:
    """What must be equal for a run to be kept."""

    scenes: str = STANDING.name
    training_pairs: int = 600
    stereo_pairs: int = 600
    truth: str = "everywhere"
    held_out_pairs: int = 60
    monocular_steps: int = 1000
    monocular_batch: int = 8
    steps: int = 200
    batch: int = 2
    precision: str = "float32"
    rate: float = 2e-3
    iterations: int = 3
    mixed_iterations: int = 2
    hidden: int = 32
    doubled: bool = False


CHOSEN = {
    "scenes": f"of the stereo networks: {' or '.join(SCENES)}; the transformer learns from {STANDING.name}",
    "training_pairs": "scenes of the transformer",
    "stereo_pairs": "scenes of the stereo networks: the first so many of theirs",
    "truth": "of the stereo networks: everywhere, or matchable (textured and seen twice)",
    "monocular_steps": "of the transformer",
    "steps": "of the stereo networks",
    "batch": "pairs a step of the stereo networks",
    "precision": "of the stereo networks' steps: float32 or bfloat16",
}
"""Settings that the command line changes."""


# Scenes


def scenes(folder: Path, kind: str, seed: int, count: int) -> StereoSample:
    """So many pairs as one batch, rendered unless an earlier run left them."""
    path = folder / f"{kind}-{seed}-{count}.pt"
    if not path.exists():
        stream = SyntheticStream(seed, SCENES[kind], size=SIZE)
        rendered = StereoSample.stack([dataclasses.replace(stream[i], info=()) for i in range(count)])
        maps = {"left": rendered.pair.left, "right": rendered.pair.right}
        maps |= {name: getattr(rendered, name) for name in ("disparity", "valid", "occluded")}
        folder.mkdir(parents=True, exist_ok=True)
        with writing(path) as temporary:
            torch.save(maps, temporary)
    maps = torch.load(path, weights_only=True)
    pair = StereoPair(maps["left"], maps["right"])
    return StereoSample(pair, maps["disparity"], maps["valid"], occluded=maps["occluded"])


def matchable(sample: StereoSample) -> StereoSample:
    """The batch with truth only where both cameras see a pixel and the image has texture."""
    assert sample.occluded is not None
    textured = torch.stack([~textureless(scene) for scene in each(sample)])
    return dataclasses.replace(sample, valid=sample.valid & textured & ~sample.occluded)


def drawn(training: StereoSample, size: int, order: torch.Generator) -> StereoSample:
    picked = torch.randint(len(training.disparity), (size,), generator=order)
    return training.map(lambda tensor: tensor[picked])


def each(held_out: StereoSample) -> list[StereoSample]:
    return [held_out.map(lambda tensor, i=i: tensor[i]) for i in range(len(held_out.disparity))]


# Training


class Trainer:
    """Muon, up to the rate and down again; the gradient's norm is clipped to 1, as published."""

    def __init__(self, model: nn.Module, rate: float, steps: int) -> None:
        self.model = model
        recipe = OptimizerSettings(
            name="muon",
            lr=rate,
            momentum=0.95,
            betas=[0.9, 0.99],
            weight_decay=1e-5,
            schedule="warmup-cosine",
            warmup=0.05,
            final=0.01,
        )
        self.optimizer = build_optimizer(model, recipe)
        self.schedule = build_schedule(self.optimizer, recipe, steps)
        self.curve: list[float] = []

    def step(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.curve.append(loss.item())
        if len(self.curve) % 20 == 0:
            print(f"  step {len(self.curve)}: {sum(self.curve[-20:]) / 20:.3f}", flush=True)


def train_monocular(training: StereoSample, settings: Settings) -> tuple[DepthAnythingV2, list[float]]:
    """Encoder and head on left images, some of them mirrored, by a loss that ignores scale and offset."""
    torch.manual_seed(0)
    model = create("depth-anything-v2-small", encoder="tiny")
    assert isinstance(model, DepthAnythingV2)
    assert model.head.conv3.bias is not None
    nn.init.constant_(model.head.conv3.bias, 1.0)  # its last ReLU must not begin shut
    trainer = Trainer(model, settings.rate, settings.monocular_steps)
    order = torch.Generator().manual_seed(0)
    for _ in range(settings.monocular_steps):
        sample = drawn(training, settings.monocular_batch, order)
        mirrored = torch.rand((), generator=order) < 0.5
        left, truth, valid = (
            tensor.flip(-1) if mirrored else tensor
            for tensor in (sample.pair.left, sample.disparity, sample.valid)
        )
        trainer.step(affine_invariant(relative_depth(model, left), truth, valid))
    return model.eval(), trainer.curve


def relative_depth(model: DepthAnythingV2, left: Tensor) -> Tensor:
    """Of images as SyDE-Net shows them to its encoder."""
    image = enlarge(2 * left - 1, tuple(side // 16 * PATCH for side in SIZE))
    return F.interpolate(model.head(model.encoder(image)), SIZE, mode="bilinear")[:, 0]


def affine_invariant(depth: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Mean distance of both maps, each less its mean and over its mean deviation (MiDaS)."""
    share = valid.float() / valid.sum((1, 2), keepdim=True).clamp(min=1)

    def standard(map_: Tensor) -> Tensor:
        centred = map_ - (share * map_).sum((1, 2), keepdim=True)
        return centred / (share * centred.abs()).sum((1, 2), keepdim=True).clamp(min=1e-3)

    return (share * (standard(depth) - standard(truth)).abs()).sum((1, 2)).mean()


def train(
    arm: str, seed: int, prior: DepthAnythingV2, training: StereoSample, settings: Settings
) -> tuple[SyDENet, list[float]]:
    """A network of that arm and the losses of its steps; the published loss, the same pairs for each arm."""
    torch.manual_seed(seed)
    options: dict[str, object] = {
        "encoder": "tiny",
        "hidden": settings.hidden,
        "iterations": settings.iterations,
        "mixed_iterations": settings.mixed_iterations,
        "max_disparity": MAX_DISPARITY,
        "doubled": settings.doubled,
    }
    model = create("sydenet", **(options | ARMS[arm]))
    assert isinstance(model, SyDENet)
    if model.config.monocular:
        model.adopt(prior)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.to(memory_format=torch.channels_last)  # trains a third quicker
    loss = SequenceLoss(initial=1.0, max_disparity=float(MAX_DISPARITY))
    trainer = Trainer(model.train(), settings.rate, settings.steps)
    order = torch.Generator().manual_seed(seed)
    half = settings.precision == "bfloat16"
    for _ in range(settings.steps):
        sample = drawn(training, settings.batch, order)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            found = loss(model(sample.pair.left, sample.pair.right), sample)
        trainer.step(found)
    return model.eval(), trainer.curve


# Measurement


@torch.inference_mode()
def knowledge(model: DepthAnythingV2, held_out: StereoSample) -> dict[str, float]:
    """What its maps say: their mean correlation with the truth, and their errors once fitted to it."""
    maps = torch.cat([relative_depth(model, sample.pair.left[None]) for sample in each(held_out)])
    found = []
    for depth, sample in zip(maps, each(held_out), strict=True):
        both = torch.stack([depth[sample.valid], sample.disparity[sample.valid]])
        found.append(torch.corrcoef(both)[0, 1].item())
    fitted = errors(aligned(maps, held_out.disparity), held_out)
    return {"correlation": round(sum(found) / len(found), 4), **fitted}


@torch.inference_mode()
def answers(model: SyDENet, held_out: StereoSample) -> dict[str, Tensor]:
    """The disparity of every scene, and where networks fuse that of the other branch."""
    outputs = [
        model(pair.left[None], pair.right[None]) for pair in (sample.pair for sample in each(held_out))
    ]
    found = {"": torch.cat([output.disparity for output in outputs])}
    if model.config.mixed:
        found["monocular "] = torch.cat([output.monocular for output in outputs])
    return found


def medians(held_out: StereoSample) -> Tensor:
    """Every scene's median everywhere: networks that err more do not match yet."""
    return torch.stack(
        [s.disparity[s.valid].median().expand(s.disparity.shape).clone() for s in each(held_out)]
    )


def errors(disparity: Tensor, held_out: StereoSample) -> dict[str, float]:
    """Pooled over all pixels of all scenes."""
    rows = [
        measure(StereoOutput(map_), sample, Annotations(), COLUMNS)
        for map_, sample in zip(disparity, each(held_out), strict=True)
    ]
    found = {}
    for column, figures in zip(COLUMNS, zip(*rows, strict=True), strict=True):
        total = sum(figure.value * figure.pixels for figure in figures if figure.pixels)
        found[column.name] = round(total / sum(figure.pixels for figure in figures), 4)
    return found


def shares(held_out: StereoSample) -> dict[str, float]:
    """How much of the held-out truth lies in each kind of region."""
    rows = [measure(StereoOutput(s.disparity), s, Annotations(), COLUMNS) for s in each(held_out)]
    counts = [sum(figure.pixels for figure in figures) for figures in zip(*rows, strict=True)]
    return {column.mask: round(count / counts[2], 4) for column, count in zip(COLUMNS, counts, strict=True)}


# The experiment


def main() -> None:
    arguments = _arguments()
    settings, folder = Settings(**{name: getattr(arguments, name) for name in CHOSEN}), arguments.folder
    report = _kept(arguments.output, settings)
    prior, monocular = _prior(folder, settings)
    training = scenes(folder, settings.scenes, 1, settings.stereo_pairs)
    training = matchable(training) if settings.truth == "matchable" else training
    held_out = scenes(folder, settings.scenes, 2, settings.held_out_pairs)
    report["shares_of_pixels"] = shares(held_out)
    report["monocular"] = {**monocular, **knowledge(prior, held_out)}
    report["constant"] = errors(medians(held_out), held_out)
    for seed in arguments.seeds:
        for arm in arguments.arms:
            if any((run["arm"], run["seed"]) == (arm, seed) for run in report["runs"]):
                continue
            print(f"{arm}, seed {seed}", flush=True)
            start = time.process_time()
            model, curve = train(arm, seed, prior, training, settings)
            seconds = round(time.process_time() - start, 1)
            found = answers(model, held_out)
            figures = {k + name: v for k, d in found.items() for name, v in errors(d, held_out).items()}
            learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
            run = {"arm": arm, "seed": seed, "trained_parameters": learning, "cpu_seconds": seconds}
            report["runs"].append({**run, **figures, "loss": _thinned(curve)})
            report["runs"].sort(key=lambda run: (list(ARMS).index(run["arm"]), run["seed"]))
            _write(arguments.output, report)
            print(_table(report), flush=True)
    _write(arguments.output, report)
    print(_table(report))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    choices = {"scenes": SCENES, "precision": ("float32", "bfloat16"), "truth": ("everywhere", "matchable")}
    for name, what in CHOSEN.items():
        default, flag = getattr(Settings, name), f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=type(default), default=default, choices=choices.get(name), help=what)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument(
        "--folder", type=Path, default=Path("build/sydenet-fusion"), help="scenes, weights, answers"
    )
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/sydenet-fusion.json"))
    return parser.parse_args()


def _kept(path: Path, settings: Settings) -> dict:
    """The report so far; ValueError where it was made with other settings."""
    own = dataclasses.asdict(settings)
    if not path.exists():
        what = f"tiny encoder, {SIZE[1]}x{SIZE[0]}; errors in pixels, pooled over all pixels of a kind"
        return {"what": what, "settings": own, "torch": torch.__version__, "runs": []}
    report = json.loads(path.read_text())
    report["settings"] = dataclasses.asdict(Settings()) | report["settings"]  # it may know fewer
    if report["settings"] != own:
        raise ValueError(f"{path} was made with other settings: name another file")
    return report


def _prior(folder: Path, settings: Settings) -> tuple[DepthAnythingV2, dict]:
    """The monocular network and what its training cost, trained unless an earlier run left it."""
    path = folder / f"monocular-{settings.training_pairs}-{settings.monocular_steps}.pt"
    if path.exists():
        model = create("depth-anything-v2-small", encoder="tiny")
        assert isinstance(model, DepthAnythingV2)
        kept = torch.load(path, weights_only=True)
        model.load_state_dict(kept["state"])
        return model.eval(), kept["record"]
    training = scenes(folder, STANDING.name, 1, settings.training_pairs)
    start = time.process_time()
    model, curve = train_monocular(training, settings)
    record = {"cpu_seconds": round(time.process_time() - start, 1), "loss": _thinned(curve)}
    with writing(path) as temporary:
        torch.save({"state": model.state_dict(), "record": record}, temporary)
    return model, record


def _thinned(curve: list[float]) -> list[float]:
    return [round(sum(part) / len(part), 4) for part in (curve[i : i + 20] for i in range(0, len(curve), 20))]


def _table(report: dict) -> str:
    """Mean over seeds, and from the least to the largest."""
    yardsticks = {
        "(every scene's median)": report["constant"],
        "(monocular map, fitted to truth)": report["monocular"],
    }
    runs = [*({"arm": arm, **figures} for arm, figures in yardsticks.items()), *report["runs"]]
    lines = [f"{'':34}" + "".join(f"{column.name:>22}" for column in COLUMNS)]
    for arm in dict.fromkeys(run["arm"] for run in runs):
        own = [run for run in runs if run["arm"] == arm]
        cells = []
        for column in COLUMNS:
            values = [run[column.name] for run in own]
            spread = f" ({min(values):.3f}-{max(values):.3f})" if len(values) > 1 else ""
            cells.append(f"{sum(values) / len(values):.3f}{spread}")
        lines.append(f"{arm:34}" + "".join(f"{cell:>22}" for cell in cells))
    return "\n".join(lines)


def _write(path: Path, report: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, report)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
