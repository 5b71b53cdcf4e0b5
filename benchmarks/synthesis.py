"""The renderer measured: speed, memory at 4K; and sheets of pairs to look at.

python benchmarks/synthesis.py speed --json speed.json
python benchmarks/synthesis.py memory
python benchmarks/synthesis.py sheet general --output sheet.png
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import resource
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from stereopsis.imaging import apply_effects, quantise
from stereopsis.io.files import write_json
from stereopsis.synthesis import DISTRIBUTIONS, SyntheticStream
from stereopsis.synthesis.render import render_images
from stereopsis.synthesis.shading import Shader
from stereopsis.synthesis.truth import Stage, look, render_truths


def speed(arguments: argparse.Namespace) -> None:
    """Process seconds a pair on one thread, by stage: what a busy machine changes least."""
    width, height = (int(n) for n in arguments.size.split("x"))
    size, device = (height, width), torch.device(arguments.device)
    stream = SyntheticStream(5, arguments.distribution, size=size, device=device)
    stream.rendering(10**6)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    stages: collections.Counter[str] = collections.Counter()
    wall, objects = time.perf_counter(), 0
    for index in range(arguments.count):
        marks = [clock()]
        scene = stream.scene(index)
        marks.append(clock())
        stage = Stage((scene.rig,), (scene.solids,), size, device)
        sight = look(stage)
        marks.append(clock())
        shader = Shader.of(stage, [scene])
        marks.append(clock())
        images = render_images(shader, sight, samples=2)
        marks.append(clock())
        render_truths(stage, sight)
        marks.append(clock())
        for image, effects in zip(images, scene.effects, strict=True):
            quantise(apply_effects(image, effects))
        marks.append(clock())
        names = ("draw", "visibility", "tiles and shadows", "images", "occlusion", "effects")
        stages.update(dict(zip(names, np.diff(marks).tolist(), strict=True)))
        objects += len(scene.solids)
    seconds = stages.total() / arguments.count
    result = {
        "distribution": arguments.distribution,
        "size": arguments.size,
        "device": str(device),
        "pairs": arguments.count,
        "objects": objects / arguments.count,
        "seconds_per_pair": round(seconds, 3),
        "wall_seconds_per_pair": round((time.perf_counter() - wall) / arguments.count, 3),
        "pairs_per_second_two_cores": round(2 / seconds, 2),
        "megapixels_per_second_per_core": round(2 * height * width / seconds / 1e6, 3),
        "stages": {name: round(value / arguments.count, 3) for name, value in stages.items()},
    }
    _report(result, arguments.json)


def memory(arguments: argparse.Namespace) -> None:
    """Peak resident memory of truth at 3840x2160 with images at a quarter of it."""
    stream = SyntheticStream(5, arguments.distribution, size=(540, 960), truth_size=(2160, 3840))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.process_time()
    for index in range(arguments.count):
        stream.rendering(index)
    result = {
        "truth": "3840x2160",
        "images": "960x540",
        "before_mb": round(before),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "seconds_per_pair": round((time.process_time() - start) / arguments.count, 2),
    }
    _report(result, arguments.json)


def sheet(arguments: argparse.Namespace) -> None:
    """Left image, right image and disparity of some pairs."""
    stream = SyntheticStream(arguments.seed, arguments.distribution, size=(240, 320))
    cells = []
    for index in range(arguments.start, arguments.start + arguments.count):
        rendering = stream.rendering(index)
        pair, disparity = rendering.sample.pair, rendering.left.disparity.numpy()
        scaled = (disparity / max(disparity.max(), 1.0) * 255).astype(np.uint8)
        colours = np.asarray(cv2.applyColorMap(scaled, cv2.COLORMAP_TURBO))
        colours[rendering.left.occluded.numpy()] //= 3
        cells.append(np.concatenate((_pixels(pair.left), _pixels(pair.right), colours), axis=1))
    columns = arguments.columns
    cells += [np.zeros_like(cells[0])] * (-len(cells) % columns)
    rows = [np.concatenate(cells[i : i + columns], axis=1) for i in range(0, len(cells), columns)]
    cv2.imwrite(str(arguments.output), np.concatenate(rows))


def _pixels(image: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray((image * 255).byte().permute(1, 2, 0).numpy()[..., ::-1])


def _report(result: dict[str, object], path: Path | None) -> None:
    """Prints a result, and adds it to a JSON file of results by distribution."""
    print(json.dumps(result, indent=1))
    if path:
        known = json.loads(path.read_text()) if path.exists() else {}
        known[str(result.get("distribution", "all"))] = result
        write_json(path, known)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = {f.__name__: f for f in (speed, memory, sheet)}
    parser.add_argument("verb", choices=verbs)
    parser.add_argument("distribution", nargs="?", default="general", choices=sorted(DISTRIBUTIONS))
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--columns", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    verbs[arguments.verb](arguments)


if __name__ == "__main__":
    main()
