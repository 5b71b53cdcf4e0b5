"""SyDE-Net's claim in small: a monocular branch helps where matching says little.

A tiny transformer learns relative inverse depth from left images, and is frozen. Then narrow SyDE-Nets learn
disparity, with that branch and without it, and with and without each attention: the same scenes, crops, steps
and seeds. End-point error is measured on scenes of another seed: where the image has no texture, where only
the left camera sees, and over all. Runs that the output holds already are kept.

    python benchmarks/sydenet_fusion.py --root TRAINING --held-out-root OTHERS

reads rendered scenes (`stereopsis render`) in folders named after their distributions; without roots pairs
are rendered ahead, which takes longer than the training of a run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from stereopsis.data.dataset import Annotations, StereoDataset
from stereopsis.data.sources.registry import list_pairs
from stereopsis.evaluation.measure import measure
from stereopsis.evaluation.protocols import Column
from stereopsis.io.atomic import writing
from stereopsis.layers.dpt import enlarge
from stereopsis.layers.vit import PATCH
from stereopsis.losses import SequenceLoss
from stereopsis.models.depth_anything_v2 import DepthAnythingV2
from stereopsis.models.registry import create
from stereopsis.models.sydenet import SyDENet
from stereopsis.structures import StereoOutput, StereoPair, StereoSample
from stereopsis.synthesis import SyntheticStream

RENDERED = (384, 512)
REDUCED, SIZE = (144, 192), (128, 192)
MAX_DISPARITY = 64
ARMS: dict[str, dict[str, object]] = {
    "fused": {},
    "stereo alone": {"monocular": False},
    "fused, no channel attention": {"channel_attention": False},
    "fused, spatial attention": {"spatial_attention": True},
    "monocular features, nothing mixed": {"mixed_iterations": 0},
}
COLUMNS = (Column("epe", "textureless"), Column("epe", "occ"), Column("epe"), Column("bad-3"))


@dataclass(frozen=True)
class Settings:
    """What must be equal for a run to be kept."""

    monocular_steps: int
    steps: int
    batch: int
    rate: float
    iterations: int
    mixed_iterations: int
    hidden: int
    distributions: tuple[str, ...]
    training_pairs: int
    held_out_pairs: int


# Scenes


def scenes(root: Path | None, seed: int, settings: Settings, count: int) -> list[StereoSample]:
    """So many pairs in all, equally many of each distribution, reduced."""
    share = count // len(settings.distributions)
    found: list[StereoSample] = []
    for name in settings.distributions:
        found += [reduced(sample) for sample in opened(root, name, seed, share)]
    return found


def opened(root: Path | None, distribution: str, seed: int, count: int) -> Iterable[StereoSample]:
    if root is None:
        stream = SyntheticStream(seed, distribution, size=RENDERED)
        return (stream.rendering(index).sample for index in range(count))
    files = list_pairs("scenes", "truth", root=root / distribution)
    if len(files) < count:
        raise ValueError(f"{root / distribution} holds {len(files)} scenes, {count} were asked for")
    return StereoDataset(files[:count])


def reduced(sample: StereoSample) -> StereoSample:
    """Images by area, truth by the pixel at the centre."""
    factor = REDUCED[1] / sample.disparity.shape[-1]

    def picked(map_: Tensor) -> Tensor:
        return F.interpolate(map_[None, None].float(), REDUCED, mode="nearest-exact")[0, 0]

    left, right = (
        F.interpolate(x[None], REDUCED, mode="area")[0] for x in (sample.pair.left, sample.pair.right)
    )
    disparity = factor * picked(sample.disparity)
    assert sample.occluded is not None
    return StereoSample(
        StereoPair(left, right),
        disparity,
        (picked(sample.valid) > 0) & (disparity < MAX_DISPARITY),
        occluded=picked(sample.occluded) > 0,
    )


def cropped(sample: StereoSample, top: int) -> StereoSample:
    rows = slice(top, top + SIZE[0])
    return sample.map(lambda tensor: tensor[..., rows, :])


def centred(sample: StereoSample) -> StereoSample:
    return cropped(sample, (REDUCED[0] - SIZE[0]) // 2)


def batch_of(training: list[StereoSample], size: int, order: torch.Generator) -> StereoSample:
    """Pairs drawn at random, each with rows from a random one on."""
    picked = torch.randint(len(training), (size,), generator=order).tolist()
    tops = torch.randint(REDUCED[0] - SIZE[0] + 1, (size,), generator=order).tolist()
    return StereoSample.stack([cropped(training[i], top) for i, top in zip(picked, tops, strict=True)])


# The monocular branch


def train_monocular(training: list[StereoSample], settings: Settings) -> tuple[DepthAnythingV2, list[float]]:
    """Encoder and head on left images, by a loss that ignores scale and offset."""
    torch.manual_seed(0)
    model = create("depth-anything-v2-small", encoder="tiny")
    assert isinstance(model, DepthAnythingV2)
    assert model.head.conv3.bias is not None
    torch.nn.init.constant_(model.head.conv3.bias, 1.0)  # its last ReLU must not begin shut
    steps = settings.monocular_steps
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps, pct_start=0.1)
    order = torch.Generator().manual_seed(0)
    curve = []
    for _ in range(steps):
        sample = batch_of(training, 8, order)
        value = affine_invariant(relative_depth(model, sample.pair.left), sample.disparity, sample.valid)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        curve.append(value.item())
    return model.eval(), curve


@torch.inference_mode()
def correlation(model: DepthAnythingV2, held_out: list[StereoSample]) -> float:
    """Of its maps with the truth, mean over scenes."""
    found = []
    for sample in (centred(sample) for sample in held_out):
        depth = relative_depth(model, sample.pair.left[None])[0]
        both = torch.stack([depth[sample.valid], sample.disparity[sample.valid]])
        found.append(torch.corrcoef(both)[0, 1].item())
    return round(sum(found) / len(found), 4)


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


# The stereo networks


def build(arm: str, seed: int, prior: DepthAnythingV2, settings: Settings) -> SyDENet:
    torch.manual_seed(seed)
    options: dict[str, object] = {
        "encoder": "tiny",
        "hidden": settings.hidden,
        "iterations": settings.iterations,
        "mixed_iterations": settings.mixed_iterations,
        "max_disparity": MAX_DISPARITY,
    }
    model = create("sydenet", **(options | ARMS[arm]))
    assert isinstance(model, SyDENet)
    if model.config.monocular:
        model.adopt(prior)
    return model


def train(model: SyDENet, seed: int, training: list[StereoSample], settings: Settings) -> list[float]:
    """The losses of all steps; the published recipe but for rate, steps, batch and crop."""
    neck = [p for key, p in model.named_parameters() if key.startswith("neck.")]
    rest = [p for key, p in model.named_parameters() if p.requires_grad and not key.startswith("neck.")]
    rates = [settings.rate, settings.rate / 2][: 1 + bool(neck)]
    groups = [{"params": group, "lr": rate} for group, rate in zip((rest, neck), rates, strict=False)]
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-5)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        rates,
        total_steps=settings.steps,
        pct_start=0.05,
        anneal_strategy="linear",
        cycle_momentum=False,
    )
    loss = SequenceLoss(initial=1.0, max_disparity=float(MAX_DISPARITY))
    order = torch.Generator().manual_seed(seed)
    device, curve = next(model.parameters()).device, []
    for step in range(settings.steps):
        sample = batch_of(training, settings.batch, order).to(device)
        value = loss(model.train()(sample.pair.left, sample.pair.right), sample)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        curve.append(value.item())
        if step % 20 == 19:
            print(f"  step {step + 1}: {sum(curve[-20:]) / 20:.3f}", flush=True)
    return curve


class Pooled:
    """Figures over all pixels of all scenes."""

    def __init__(self) -> None:
        self.totals: dict[str, list[float]] = {}

    def add(self, kind: str, disparity: Tensor, sample: StereoSample) -> None:
        figures = measure(StereoOutput(disparity), sample, Annotations(), COLUMNS)
        for column, figure in zip(COLUMNS, figures, strict=True):
            total = self.totals.setdefault(kind + column.name, [0.0, 0.0])
            total[0] += figure.value * figure.pixels if figure.pixels else 0.0
            total[1] += figure.pixels

    def means(self) -> dict[str, float]:
        return {name: round(total / max(pixels, 1), 4) for name, (total, pixels) in self.totals.items()}


@torch.inference_mode()
def errors(model: SyDENet, held_out: list[StereoSample]) -> dict[str, float]:
    """Of the answer; where networks fuse also before the refinement, and of the other branch."""
    model.eval()
    device, pooled = next(model.parameters()).device, Pooled()
    for sample in (centred(sample) for sample in held_out):
        output = model(sample.pair.left[None].to(device), sample.pair.right[None].to(device))
        maps = {"": output.disparity}
        if output.monocular is not None:
            maps |= {"unrefined ": output.iterates[-1], "monocular ": output.monocular}
        for kind, map_ in maps.items():
            pooled.add(kind, map_[0].cpu(), sample)
    return pooled.means()


def constant_errors(held_out: list[StereoSample]) -> dict[str, float]:
    """What answering every scene's median everywhere would err: networks above it do not match yet."""
    pooled = Pooled()
    for sample in (centred(sample) for sample in held_out):
        median = sample.disparity[sample.valid].median()
        pooled.add("", median.expand(sample.disparity.shape).clone(), sample)
    return pooled.means()


# The experiment


def main() -> None:
    arguments = _arguments()
    settings = Settings(
        arguments.monocular_steps,
        arguments.steps,
        arguments.batch,
        arguments.rate,
        arguments.iterations,
        arguments.mixed_iterations,
        arguments.hidden,
        tuple(arguments.distributions),
        arguments.training,
        arguments.held_out,
    )
    report = _kept(arguments.output, settings)
    training = scenes(arguments.root, 1, settings, settings.training_pairs)
    held_out = scenes(arguments.held_out_root, 2, settings, settings.held_out_pairs)
    report["shares_of_pixels"] = _shares(held_out)
    report["constant"] = constant_errors(held_out)
    prior, report["monocular"] = _prior(arguments.folder, training, settings)
    report["monocular"]["correlation"] = correlation(prior, held_out)
    wanted = [(arm, seed) for seed in arguments.seeds for arm in arguments.repeated]
    for arm, seed in [*wanted, *((arm, arguments.seeds[0]) for arm in arguments.once)]:
        if any((run["arm"], run["seed"]) == (arm, seed) for run in report["runs"]):
            continue
        print(f"{arm}, seed {seed}", flush=True)
        start = time.process_time()
        model = build(arm, seed, prior, settings).to(arguments.device)
        curve = train(model, seed, training, settings)
        run = {
            "arm": arm,
            "seed": seed,
            "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "cpu_seconds": round(time.process_time() - start, 1),
            **errors(model, held_out),
            "loss": _thinned(curve),
        }
        others = _kept(arguments.output, settings)["runs"]  # of a process beside this one
        report["runs"] = sorted([*others, run], key=lambda run: (list(ARMS).index(run["arm"]), run["seed"]))
        _write(arguments.output, report)
        print(_table(report), flush=True)
    _write(arguments.output, report)
    print(_table(report))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--root", type=Path, help="training scenes, in a folder for each distribution")
    parser.add_argument("--held-out-root", type=Path, help="other scenes, likewise")
    parser.add_argument("--distributions", nargs="+", default=["low-texture", "indoor"])
    parser.add_argument("--training", type=int, default=400)
    parser.add_argument("--held-out", type=int, default=40)
    parser.add_argument("--monocular-steps", type=int, default=600)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--mixed-iterations", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="of the stereo networks")
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--repeated", nargs="*", choices=ARMS, default=list(ARMS)[:2], help="with every seed")
    parser.add_argument("--once", nargs="*", choices=ARMS, default=list(ARMS)[2:], help="with the first seed")
    parser.add_argument(
        "--folder", type=Path, default=Path("build/benchmarks"), help="for the monocular weights"
    )
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/sydenet-fusion.json"))
    return parser.parse_args()


def _kept(path: Path, settings: Settings) -> dict:
    """The report so far; ValueError where it was made with other settings."""
    own = json.loads(json.dumps(vars(settings)))
    if not path.exists():
        what = f"tiny encoder, {SIZE[1]}x{SIZE[0]}; errors in pixels, pooled over all pixels of a kind"
        return {"what": what, "settings": own, "torch": torch.__version__, "runs": []}
    report = json.loads(path.read_text())
    if report["settings"] != own:
        raise ValueError(f"{path} was made with other settings: name another file")
    return report


def _prior(folder: Path, training: list[StereoSample], settings: Settings) -> tuple[DepthAnythingV2, dict]:
    """The monocular network and what its training cost, trained unless an earlier run left it."""
    numbers = f"{settings.monocular_steps}-{settings.training_pairs}"
    path = folder / f"sydenet-fusion-monocular-{numbers}.pt"
    if path.exists():
        model = create("depth-anything-v2-small", encoder="tiny")
        assert isinstance(model, DepthAnythingV2)
        kept = torch.load(path, weights_only=True)
        model.load_state_dict(kept["state"])
        return model.eval(), kept["record"]
    start = time.process_time()
    model, curve = train_monocular(training, settings)
    record = {"cpu_seconds": round(time.process_time() - start, 1), "loss": _thinned(curve)}
    print(json.dumps(record), flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    with writing(path) as temporary:
        torch.save({"state": model.state_dict(), "record": record}, temporary)
    return model, record


def _shares(held_out: list[StereoSample]) -> dict[str, float]:
    """How much of the held-back truth lies in each kind of region."""
    samples = [centred(sample) for sample in held_out]
    zero = [measure(StereoOutput(sample.disparity), sample, Annotations(), COLUMNS) for sample in samples]
    counts = [sum(figures[k].pixels for figures in zero) for k in range(3)]
    return {column.mask: round(count / counts[2], 4) for column, count in zip(COLUMNS, counts, strict=False)}


def _thinned(curve: list[float]) -> list[float]:
    return [round(sum(part) / len(part), 4) for part in (curve[i : i + 20] for i in range(0, len(curve), 20))]


def _table(report: dict) -> str:
    """Mean over seeds, and from the least to the largest."""
    runs = [{"arm": "(every scene's median)", **report["constant"]}, *report["runs"]]
    lines = [f"{'':36}" + "".join(f"{column.name:>26}" for column in COLUMNS)]
    for arm in dict.fromkeys(run["arm"] for run in runs):
        own = [run for run in runs if run["arm"] == arm]
        cells = []
        for column in COLUMNS:
            values = [run[column.name] for run in own]
            spread = f" ({min(values):.2f}-{max(values):.2f})" if len(values) > 1 else ""
            cells.append(f"{sum(values) / len(values):.3f}{spread}")
        lines.append(f"{arm:36}" + "".join(f"{cell:>26}" for cell in cells))
    return "\n".join(lines)


def _write(path: Path, report: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
