"""What training is held to beside its tests; each part writes its own key of results/training.json.

python benchmarks/training.py learn --output runs/learn
python benchmarks/training.py batch-norm --scenes synthetic/general
python benchmarks/training.py throughput --scenes synthetic/general --workers 1

`--scenes` is a folder that `stereopsis render --distribution general --size 512x384 --seed 101` wrote.
learn: 500 steps of a small network on the synthetic stream, of which 50 pairs are held back; curves go to
docs/training.png.
judge: the same figures of any run (--output) and its weights, on the last 50 scenes of a folder.
batch-norm: one process with the doubled batch against two gloo processes, where norms learn (where they are
frozen, tests/training/test_processes.py holds them equal to 1e-5).
throughput: pairs a second, the loader's share, and where the loader's and the step's time go.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean

import cv2
import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stereopsis.data.augment import zoom
from stereopsis.data.dataset import StereoDataset
from stereopsis.data.sources.registry import list_pairs
from stereopsis.io.files import write_json
from stereopsis.io.images import write_image
from stereopsis.io.weights import read_weights
from stereopsis.prediction.loading import load
from stereopsis.structures import Predictor, StereoSample
from stereopsis.training.config import TrainSettings, read_settings
from stereopsis.training.datamodule import Data, Preparation, open_source
from stereopsis.training.forward import padded_forward
from stereopsis.training.main import build_task

ROOT = Path(__file__).resolve().parent
HELD_BACK = 50
SMALLER = "data.augment.scale=[-1.5,-1.5]"  # 512x384 rendered pixels to 181x136
LEARN = (
    "data.sources=[{name: synthetic, distribution: general, size: [136, 184], seed: 5}]",
    "model.name=stereonet",
    "model.options.downsamplings=2",
    "model.options.refinements=1",
    "model.options.max_disparity=64",
    "data.validation=[]",
    "data.batch_size=2",
    "data.workers=0",
    "data.crop=[64,128]",
    "data.augment.scale=[0,0]",
    "data.augment.flip=0",
    "data.max_disparity=64",
    "loss.options.weights=[0.6,1.0]",
    "optimizer.name=muon",
    "optimizer.momentum=0.95",
    "optimizer.lr=2e-3",
    "optimizer.schedule=warmup-cosine",
    "optimizer.warmup=0.05",
    "trainer.gradient_clip=1.0",
    "trainer.max_steps=500",
    "trainer.pictures_every=100",
    "trainer.checkpoint_every=50",
    "trainer.threads=1",
    "trainer.accelerator=cpu",
)
PAIR_NORMS = (
    "data.validation=[]",
    "data.workers=0",
    "data.crop=[96,160]",
    SMALLER,
    "optimizer.name=sgd",
    "optimizer.lr=1e-3",
    "trainer.max_steps=3",
    "trainer.threads=1",
    "trainer.accelerator=cpu",
)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}


def source(scenes: Path) -> str:
    return f"data.sources=[{{name: scenes, split: truth, root: {scenes.resolve()}}}]"


def train(*settings: str) -> None:
    command = [sys.executable, "-m", "stereopsis", "train", *settings]
    subprocess.run(command, check=True, env=ENVIRONMENT)


def learn(output: Path) -> dict[str, object]:
    """500 steps on rendered pairs that no step sees twice, then 50 that none saw, then an open scene."""
    train(*LEARN, f"output={output / 'run'}")
    settings = read_settings(LEARN)
    held_back = open_source(settings.data.sources[0], held_back=True)
    prepare = Preparation(settings.data)
    pairs = [prepare(held_back[k], np.random.default_rng(k)) for k in range(HELD_BACK)]
    return judged(output / "run", output / "run/weights.safetensors", pairs, smaller=0.4)


def judge(run: Path, weights: Path, scenes: Path) -> dict[str, object]:
    """Any run on rendered scenes, by the last of a folder, which it must not have seen, at full size."""
    dataset = StereoDataset(list_pairs("scenes", "truth", root=scenes)[-HELD_BACK:])
    return judged(run, weights, list(dataset), smaller=1.0)


def judged(run: Path, weights: Path, pairs: list[StereoSample], *, smaller: float) -> dict[str, object]:
    """EPE on these pairs beside that of their mean disparity, on an open scene, and the curves' picture."""
    predictor = load(weights)
    mean = float(torch.cat([sample.disparity[sample.valid] for sample in pairs]).mean())
    errors = [masked_error(predictor(sample.pair).disparity, sample) for sample in pairs]
    constants = [masked_error(torch.full_like(sample.disparity, mean), sample) for sample in pairs]
    write_image(ROOT.parent / "docs/training.png", draw_curves(run / "events"))
    header = read_weights(weights)[1]
    return {
        "network": header and header.network,
        "steps": header and header.training["steps"],
        "pairs held back": len(pairs),
        "epe": round(fmean(errors), 3),
        "epe of the mean disparity": round(fmean(constants), 3),
        "open scene": open_scene(predictor, smaller),
    }


def masked_error(disparity: torch.Tensor, sample: StereoSample) -> float:
    return float((disparity - sample.disparity).abs()[sample.valid].mean())


def open_scene(predictor: Predictor, smaller: float) -> dict[str, object]:
    """Teddy, a real scene, at a size at which its disparities are in the network's range."""
    files = next(f for f in list_pairs("open", "truth") if "teddy" in f.name.lower())
    sample = zoom(StereoDataset([files])[0], smaller, smaller)
    mean = torch.full_like(sample.disparity, float(sample.disparity[sample.valid].mean()))
    height, width = sample.pair.size
    return {
        "name": files.name,
        "size": f"{width}x{height}",
        "epe": round(masked_error(predictor(sample.pair).disparity, sample), 3),
        "epe of its mean disparity": round(masked_error(mean, sample), 3),
    }


def draw_curves(events: Path) -> np.ndarray:
    """Loss and EPE of every tenth step, thin, and their means over ten of these, thick."""
    accumulator = EventAccumulator(str(events))
    accumulator.Reload()
    panels = []
    for name, colour in (("train/loss", (40, 90, 200)), ("train/epe", (200, 80, 30))):
        scalars = accumulator.Scalars(name)
        steps = np.array([scalar.step for scalar in scalars])
        panels.append(draw_curve(steps, np.array([scalar.value for scalar in scalars]), name, colour))
    return np.concatenate(panels, axis=1)


def draw_curve(steps: np.ndarray, values: np.ndarray, name: str, colour: tuple[int, int, int]) -> np.ndarray:
    width, height, edge = 420, 260, 36
    canvas = np.full((height, width, 3), 255, np.uint8)
    top = float(np.quantile(values, 0.98)) * 1.1

    def points(xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
        x = edge + xs / steps.max() * (width - 2 * edge)
        y = height - edge - (ys / top).clip(0, 1) * (height - 2 * edge)
        return np.stack([x, y], axis=1).round().astype(np.int32)[:, None]

    window = min(10, len(values))
    smooth = np.convolve(values, np.ones(window) / window, "valid")
    pale = tuple((c + 2 * 255) // 3 for c in colour)
    cv2.polylines(canvas, [points(steps, values)], False, pale, 1, cv2.LINE_AA)
    cv2.polylines(canvas, [points(steps[window - 1 :], smooth)], False, colour, 2, cv2.LINE_AA)
    for share in (0.0, 0.5, 1.0):
        y = int(height - edge - share * (height - 2 * edge))
        cv2.line(canvas, (edge, y), (width - edge, y), (210, 210, 210), 1)
        label(canvas, f"{share * top:.1f}", (2, y + 4))
        label(
            canvas, f"{int(share * steps.max())}", (int(edge + share * (width - 2 * edge)) - 8, height - 14)
        )
    label(canvas, f"{name} by step", (edge, 20))
    return canvas


def label(canvas: np.ndarray, text: str, place: tuple[int, int]) -> None:
    cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (60, 60, 60), 1, cv2.LINE_AA)


def batch_norm(scenes: Path) -> dict[str, object]:
    """Largest difference of weights and of running statistics after three steps of plain SGD."""
    small = ("model.options.downsamplings=2", "model.options.refinements=1", "model.options.max_disparity=64")
    return {"stereonet": processes_differ(scenes, "model.name=stereonet", *small)}


def processes_differ(scenes: Path, *network: str) -> dict[str, float]:
    two = ("data.batch_size=2", "trainer.devices=2", "trainer.strategy=ddp")
    with tempfile.TemporaryDirectory() as folder:
        states = []
        for name, processes in (("one", ("data.batch_size=4",)), ("two", two)):
            train(source(scenes), *PAIR_NORMS, *network, *processes, f"output={folder}/{name}")
            states.append(read_weights(Path(folder) / name / "weights.safetensors")[0])
        settings = read_settings([source(scenes), *PAIR_NORMS, *network, f"output={folder}/start"])
        start = build_task(settings).model.state_dict()
    one, other = states
    statistics = [name for name in one if "running" in name]
    weights = [name for name in one if name not in statistics and one[name].is_floating_point()]
    return {
        "weights": largest_difference(one, other, weights),
        "largest change of a weight": largest_difference(one, start, weights),
        "running statistics": largest_difference(one, other, statistics),
    }


def largest_difference(
    one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], names: list[str]
) -> float:
    return max(float((one[name].float() - other[name].float()).abs().max()) for name in names)


def throughput(scenes: Path, workers: int, steps: int) -> dict[str, object]:
    """Of `fast` by its experiment, in smaller windows, on one thread; CPU time, since other work may share
    the machine."""
    torch.set_num_threads(1)
    windows = ["data.crop=[256,384]", "data.batch_size=4"]
    settings = read_settings(
        ["experiment=fast", source(scenes), "data.validation=[]", f"data.workers={workers}", *windows]
    )
    settings.trainer.max_steps = steps
    waited, worked, step_cpu = loop(settings)
    pairs = settings.data.batch_size * (steps - 1)
    return {
        "network": "fast, crop 384x256, batch 4, bfloat16, one thread",
        "workers": workers,
        "pairs a second": round(pairs / (waited + worked), 2),
        "loader's share of the time": round(waited / (waited + worked), 3),
        "ms CPU a step": round(1e3 * step_cpu / (steps - 1), 1),
        "ms CPU to load a pair": loading(settings, scenes),
        "load average": round(os.getloadavg()[0], 1),
    }


def loop(settings: TrainSettings) -> tuple[float, float, float]:
    """Seconds waited for batches, seconds of work, CPU seconds of work; without the first step."""
    task = build_task(settings).train()
    optimizer = torch.optim.AdamW(task.model.parameters(), 1e-4)
    waited = worked = cpu = 0.0
    begun = time.perf_counter()
    for step, batch in enumerate(Data(settings, first_step=0, rank=0, processes=1).train_dataloader()):
        arrived, before = time.perf_counter(), time.process_time()
        with torch.autocast("cpu", torch.bfloat16):
            loss = task.loss(padded_forward(task.model, batch.pair), batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(task.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step:
            waited += arrived - begun
            worked += time.perf_counter() - arrived
            cpu += time.process_time() - before
        begun = time.perf_counter()
    return waited, worked, cpu


def loading(settings: TrainSettings, scenes: Path, count: int = 30) -> dict[str, float]:
    """CPU milliseconds to open a pair from its files, and to augment and crop it."""
    dataset = StereoDataset(list_pairs("scenes", "truth", root=scenes)[:count])
    prepare = Preparation(settings.data)
    dataset[0]
    begun = time.process_time()
    samples = list(dataset)
    opened = time.process_time()
    for index, sample in enumerate(samples):
        prepare(sample, np.random.default_rng(index))
    done = time.process_time()
    each = 1e3 / len(samples)
    return {"open": round((opened - begun) * each, 1), "augment": round((done - opened) * each, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("part", choices=["learn", "judge", "batch-norm", "throughput"])
    parser.add_argument("--scenes", type=Path)
    parser.add_argument("--output", type=Path, default=Path("runs/learn"))
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--steps", type=int, default=16)
    given = parser.parse_args()
    torch.set_num_threads(1)
    parts = {
        "learn": lambda: learn(given.output),
        "judge": lambda: judge(given.output, given.weights, given.scenes),
        "batch-norm": lambda: batch_norm(given.scenes),
        "throughput": lambda: throughput(given.scenes, given.workers, given.steps),
    }
    found = parts[given.part]()
    path = ROOT / "results/training.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    results[given.part] = found
    write_json(path, results)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
