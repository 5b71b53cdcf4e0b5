"""The renderer measured: speed, memory at 4K, statistics of a distribution, a sheet, difficulty.

python benchmarks/synthesis.py speed --json speed.json
python benchmarks/synthesis.py memory
python benchmarks/synthesis.py statistics general --count 1000 --output statistics.png
python benchmarks/synthesis.py sheet general --output sheet.png
python benchmarks/synthesis.py difficulty general --count 100 --json difficulty.json
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
from stereopsis.synthesis import DISTRIBUTIONS, Rendering, SyntheticStream
from stereopsis.synthesis.render import SIDES, render_image
from stereopsis.synthesis.scene import Scene
from stereopsis.synthesis.shading import Shader
from stereopsis.synthesis.truth import look, render_truth

SMALL = (120, 160)


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
        sights = [look(scene.solids, scene.rig.view(size, side), device=device) for side in SIDES]
        marks.append(clock())
        shader = Shader.of(scene, device)
        marks.append(clock())
        images = [
            render_image(shader, scene.rig.view(size, side), sight, samples=2)
            for side, sight in zip(SIDES, sights, strict=True)
        ]
        marks.append(clock())
        for side, sight in zip(SIDES, sights, strict=True):
            render_truth(scene.solids, scene.rig, size, side, device=device, sight=sight)
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


def statistics(arguments: argparse.Namespace) -> None:
    """Histograms of a distribution's small pairs as a picture, and how often everything occurs."""
    stream = SyntheticStream(arguments.seed, arguments.distribution, size=SMALL)
    occurring: collections.Counter[str] = collections.Counter()
    disparity = np.zeros(61)
    rows = []
    for index in range(arguments.count):
        scene = stream.scene(index)
        rendering = stream.rendering(index)
        occurring.update(features(scene, rendering))
        shares = rendering.left.disparity[rendering.left.valid].numpy() / SMALL[1]
        disparity += np.histogram(shares.clip(0, 0.3), bins=61, range=(0, 0.305))[0]
        visible = len(torch.unique(rendering.left.objects))
        rows.append((rendering.left.occluded.float().mean().item(), _texture(rendering), visible))
    occluded, texture, visible = np.array(rows).T
    result = {
        "distribution": arguments.distribution,
        "pairs": arguments.count,
        "disparity_share_quantiles": _quantiles(disparity),
        "occluded_mean": round(float(occluded.mean()), 4),
        "texture_mean": round(float(texture.mean()), 4),
        "objects_visible_mean": round(float(visible.mean()), 2),
        "share_of_pairs": {n: round(c / arguments.count, 3) for n, c in sorted(occurring.items())},
    }
    _report(result, arguments.json)
    if arguments.output:
        panels = [
            _bars(disparity, "disparity / width, 0 to 0.30"),
            _bars(np.histogram(occluded, 40, (0, 0.4))[0], "share occluded, 0 to 0.40"),
            _bars(np.histogram(texture, 40, (0, 0.1))[0], "texture: median gradient, 0 to 0.1"),
            _bars(np.histogram(visible, 40, (0, 60))[0], "solids in view, 0 to 60"),
        ]
        top, bottom = np.concatenate(panels[:2], axis=1), np.concatenate(panels[2:], axis=1)
        cv2.imwrite(str(arguments.output), np.concatenate((top, bottom)))


def features(scene: Scene, rendering: Rendering) -> set[str]:
    """What can be seen in a pair: layouts, shapes, patterns, materials, effects."""
    seen = torch.unique(torch.cat((rendering.left.objects, rendering.right.objects))).tolist()
    solids = [scene.solids[index] for index in seen if index >= 0]
    materials = [scene.materials[solid.material] for solid in solids]
    found = {f"layout {scene.layout}", *(f"shape {solid.shape.name}" for solid in solids)}
    found |= {f"pattern {scene.tiles[material.tile].pattern}" for material in materials}
    found |= {"material glossy" for m in materials if m.gloss > 0}
    found |= {"material mirror" for m in materials if m.mirror > 0}
    found |= {"material transparent" for m in materials if m.opacity < 1}
    found |= {"camera doffs"} if scene.rig.doffs else set()
    found |= {f"lamps {sum(light.glint for light in scene.lights)}"}
    return found | {f"effect {name}" for effects in scene.effects for name in effects.names}


def _texture(rendering: Rendering) -> float:
    """The median horizontal gradient of the left image."""
    return float(rendering.sample.pair.left.mean(0).diff(dim=-1).abs().median())


def _quantiles(histogram: np.ndarray) -> dict[str, float]:
    total = np.cumsum(histogram) / histogram.sum()
    return {str(q): round(float(np.searchsorted(total, q) * 0.005), 3) for q in (0.05, 0.25, 0.5, 0.75, 0.95)}


def _bars(counts: np.ndarray, title: str) -> np.ndarray:
    panel = np.full((220, 480, 3), 255, np.uint8)
    heights = counts / max(counts.max(), 1) * 160
    width = 460 / len(counts)
    for i, height in enumerate(heights):
        x = int(10 + i * width)
        cv2.rectangle(panel, (x, int(210 - height)), (int(x + width - 1), 210), (150, 90, 40), -1)
    cv2.putText(panel, title, (10, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
    return panel


def difficulty(arguments: argparse.Namespace) -> None:
    """SGBM's end-point error and bad-2 over all valid pixels, mean over pairs."""
    from stereopsis.prediction.classical import SGBM

    width, height = (int(n) for n in arguments.size.split("x"))
    stream = SyntheticStream(arguments.seed, arguments.distribution, size=(height, width))
    errors, bad = [], []
    for index in range(arguments.count):
        sample = stream[index]
        largest = int(np.ceil(float(sample.disparity.max()) / 16) * 16) or 16
        output = SGBM(max_disparity=largest)(sample.pair)
        gap = (output.disparity - sample.disparity).abs()[sample.valid]
        errors.append(gap.mean().item())
        bad.append((gap > 2).float().mean().item())
    result = {
        "distribution": arguments.distribution,
        "pairs": arguments.count,
        "size": arguments.size,
        "sgbm_epe": round(float(np.mean(errors)), 3),
        "sgbm_bad_2_percent": round(100 * float(np.mean(bad)), 2),
    }
    _report(result, arguments.json)


def _report(result: dict[str, object], path: Path | None) -> None:
    """Prints a result, and adds it to a JSON file of results by distribution."""
    print(json.dumps(result, indent=1))
    if path:
        known = json.loads(path.read_text()) if path.exists() else {}
        known[str(result.get("distribution", "all"))] = result
        path.write_text(json.dumps(known, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = {f.__name__: f for f in (speed, memory, sheet, statistics, difficulty)}
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
