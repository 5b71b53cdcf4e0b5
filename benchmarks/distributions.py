"""What rendered pairs are like, beside real ones: statistics of each distribution, and how SGBM does on it.

    python benchmarks/distributions.py statistics --count 1000 --json distributions.json
    python benchmarks/distributions.py difficulty --count 100 --json distributions.json
    python benchmarks/distributions.py picture --json distributions.json --output distributions.png

The first two also measure the open scenes that are photographs ($STEREOPSIS_DATA/real), where they are there.
"""

from __future__ import annotations

import argparse
import collections
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from stereopsis.data.dataset import StereoDataset
from stereopsis.data.sources.registry import list_pairs
from stereopsis.imaging import apply_effects, quantise
from stereopsis.io.files import write_json
from stereopsis.prediction.classical import SGBM
from stereopsis.structures import StereoSample
from stereopsis.synthesis import DISTRIBUTIONS, SyntheticStream, Truth
from stereopsis.synthesis.render import render_images
from stereopsis.synthesis.scene import Scene
from stereopsis.synthesis.shading import Shader
from stereopsis.synthesis.truth import Stage, look, render_truths

CPU = torch.device("cpu")
SMALL = (72, 96)
REAL = "open photographs"
RENDERED = ("sceneflow", "synthetic")
"""The open scenes whose names begin so are rendered, not photographed."""

HISTOGRAMS = {
    "disparity": (60, 0.3, "disparity / width"),
    "occluded": (40, 0.4, "share occluded"),
    "texture": (40, 0.05, "texture: median gradient"),
    "brightness": (40, 1.0, "mean brightness"),
    "objects": (40, 60.0, "solids in view"),
}
"""Bins, upper end, title; what lies beyond the end counts in the last bin."""


def statistics(arguments: argparse.Namespace) -> None:
    """Histograms of small left views, and in what share of them everything can be seen.

    Truth is that of every pair; images (texture, brightness) are made of the first `--images` only.
    """
    for kind in arguments.distributions:
        stream = SyntheticStream(arguments.seed, kind, size=SMALL)
        occurring: collections.Counter[str] = collections.Counter()
        rows = []
        for index in range(arguments.count):
            scene = stream.scene(index)
            stage = Stage((scene.rig,), (scene.solids,), SMALL, CPU)
            sight = look(stage)
            truth = render_truths(stage, sight).map(lambda values: values[0])
            seen = torch.unique(truth.objects[truth.objects >= 0]).tolist()
            occurring.update(features(scene, seen))
            row: dict[str, Any] = {"objects": len(seen), **_truth_figures(truth)}
            if index < arguments.images:
                ideal = render_images(Shader.of(stage, [scene]), sight, samples=2)[0]
                row |= _image_figures(quantise(apply_effects(ideal, scene.effects[0])))
            rows.append(row)
        result = _summary(rows)
        result["share_of_pairs"] = {n: round(c / len(rows), 3) for n, c in sorted(occurring.items())}
        _report(arguments.json, "statistics", kind, result)
    real = [_reduced(sample) for sample in photographs()]
    if real:
        rows = [{**_truth_figures(sample), **_image_figures(sample.pair.left)} for sample in real]
        _report(arguments.json, "statistics", REAL, _summary(rows))


def features(scene: Scene, seen: Sequence[int]) -> set[str]:
    """What can be seen in a view of these solids: layouts, shapes, patterns, materials, effects."""
    solids = [scene.solids[index] for index in seen]
    materials = [scene.materials[solid.material] for solid in solids]
    found = {f"layout {scene.layout}", *(f"shape {solid.shape.name}" for solid in solids)}
    found |= {f"pattern {scene.tiles[material.tile].pattern}" for material in materials}
    found |= {"material glossy" for m in materials if m.gloss > 0}
    found |= {"material mirror" for m in materials if m.mirror > 0}
    found |= {"material transparent" for m in materials if m.opacity < 1}
    found |= {"camera doffs"} if scene.rig.doffs else set()
    found |= {f"lamps {sum(light.glint for light in scene.lights)}"}
    return found | {f"effect {name}" for effects in scene.effects for name in effects.names}


def photographs() -> Iterator[StereoSample]:
    """The open scenes with truth that a camera took."""
    root = Path(os.environ.get("STEREOPSIS_DATA", Path(__file__).parents[2] / "shared" / "data")) / "real"
    if root.is_dir():
        pairs = list_pairs("open", "truth", root=str(root))
        dataset = StereoDataset([pair for pair in pairs if not pair.name.startswith(RENDERED)])
        yield from (dataset[index] for index in range(len(dataset)))


def _reduced(sample: StereoSample) -> StereoSample:
    """At the width of the small pairs, so that gradients compare; truth by its nearest pixel."""
    height, width = sample.pair.size
    size = (round(height * SMALL[1] / width), SMALL[1])
    pair = sample.pair.map(lambda x: F.interpolate(x[None], size, mode="area")[0])

    def nearest(x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x[None, None].float(), size, mode="nearest-exact")[0, 0]

    return StereoSample(
        pair,
        nearest(sample.disparity) * SMALL[1] / width,
        nearest(sample.valid) > 0.5,
        None if sample.occluded is None else nearest(sample.occluded) > 0.5,
    )


def _truth_figures(truth: Truth | StereoSample) -> dict[str, Any]:
    figures: dict[str, Any] = {"disparity": (truth.disparity[truth.valid] / SMALL[1]).numpy()}
    if truth.occluded is not None:
        figures["occluded"] = float(truth.occluded[truth.valid].float().mean())
    return figures


def _image_figures(image: torch.Tensor) -> dict[str, Any]:
    """texture: the median horizontal gradient of an image [3 h w]."""
    gray = image.mean(0)
    return {"texture": float(gray.diff(dim=-1).abs().median()), "brightness": float(gray.mean())}


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Histograms (shares), means, and quantiles of disparity, every pair counting alike."""
    result: dict[str, Any] = {"pairs": len(rows)}
    for name, (bins, end, _) in HISTOGRAMS.items():
        values = [np.atleast_1d(row[name]) for row in rows if name in row and np.size(row[name])]
        if not values:
            continue
        shares = [np.histogram(v.clip(0, end * (1 - 1e-6)), bins, (0, end))[0] / v.size for v in values]
        histogram = np.mean(shares, axis=0)
        result[name] = {
            "mean": round(float(np.mean([v.mean() for v in values])), 4),
            "histogram": [round(float(share), 4) for share in histogram],
            "quantiles": {str(q): _quantile(histogram, q, end / bins) for q in (0.05, 0.25, 0.5, 0.75, 0.95)},
        }
    return result


def _quantile(histogram: np.ndarray, share: float, width: float) -> float:
    """The upper end of the bin in which `share` of all is reached."""
    return round(float((np.searchsorted(np.cumsum(histogram) / histogram.sum(), share) + 1) * width), 4)


def difficulty(arguments: argparse.Namespace) -> None:
    """SGBM's end-point error and bad-2 over all valid pixels, mean over pairs, on one thread.

    It is told the largest disparity of every pair, rounded up to a multiple of 16. `--scenes` reads pairs of
    `--size` that were rendered before instead of rendering them.
    """
    cv2.setNumThreads(1)
    width, height = (int(n) for n in arguments.size.split("x"))
    for kind in arguments.distributions:
        if arguments.scenes:
            dataset = StereoDataset(list_pairs("scenes", "truth", root=str(arguments.scenes / kind)))
            samples = (dataset[index] for index in range(arguments.count))
        else:
            samples = iter(
                SyntheticStream(arguments.seed, kind, size=(height, width), length=arguments.count)
            )
        _report(arguments.json, "difficulty", kind, {"size": arguments.size, **_matched(samples)})
    real = list(photographs())
    if real:
        result = {"size": f"reduced to a width of {width}", **_matched(_resized(s, width) for s in real)}
        _report(arguments.json, "difficulty", f"{REAL}, small", result)
        _report(arguments.json, "difficulty", REAL, {"size": "as published", **_matched(iter(real))})


def _resized(sample: StereoSample, width: int) -> StereoSample:
    from stereopsis.data.augment import zoom

    scale = width / sample.pair.size[1]
    return zoom(sample, scale, scale)


def _matched(samples: Iterator[StereoSample]) -> dict[str, Any]:
    errors, bad, ends = [], [], []
    for sample in samples:
        truth = sample.disparity[sample.valid]
        largest = max(16, math.ceil(float(truth.max()) / 16) * 16)
        gap = (SGBM(max_disparity=largest)(sample.pair).disparity[sample.valid] - truth).abs()
        errors.append(gap.mean().item())
        bad.append((gap > 2).float().mean().item())
        ends.append(float(truth.max()) / sample.pair.size[1])
    return {
        "pairs": len(errors),
        "sgbm_epe": round(float(np.mean(errors)), 3),
        "sgbm_bad_2_percent": round(100 * float(np.mean(bad)), 2),
        "sgbm_bad_2_percent_median_pair": round(100 * float(np.median(bad)), 2),
        "largest_disparity_share_median": round(float(np.median(ends)), 3),
    }


def picture(arguments: argparse.Namespace) -> None:
    """Every distribution a row, every histogram a column."""
    found = json.loads(arguments.json.read_text())["statistics"]
    names = [name for name in (*DISTRIBUTIONS, REAL) if name in found]
    rows = [
        np.concatenate([_label(name), *(_bars(found[name].get(key), key) for key in HISTOGRAMS)], axis=1)
        for name in names
    ]
    cv2.imwrite(str(arguments.output), np.concatenate(rows), [cv2.IMWRITE_PNG_COMPRESSION, 9])


def _label(name: str) -> np.ndarray:
    panel = np.full((130, 190, 3), 255, np.uint8)
    cv2.putText(panel, name, (8, 70), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
    return panel


def _bars(summary: dict[str, Any] | None, key: str) -> np.ndarray:
    bins, end, title = HISTOGRAMS[key]
    panel = np.full((130, 270, 3), 255, np.uint8)
    font = cv2.FONT_HERSHEY_SIMPLEX
    if summary is None:
        cv2.putText(panel, "not known", (90, 70), font, 0.4, (150, 150, 150), 1, cv2.LINE_AA)
        return panel
    heights = np.array(summary["histogram"])
    width = 250 / bins
    for i, height in enumerate(heights / heights.max() * 80):
        x = 10 + i * width
        cv2.rectangle(panel, (int(x), int(110 - height)), (int(x + width - 1), 110), (150, 90, 40), -1)
    cv2.line(panel, (10, 111), (260, 111), (0, 0, 0), 1)
    cv2.putText(panel, f"{title}, 0 to {end:g}", (10, 16), font, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    mean = int(10 + min(summary["mean"] / end, 1) * 250)
    cv2.line(panel, (mean, 24), (mean, 110), (30, 30, 200), 1)
    cv2.putText(panel, f"mean {summary['mean']:.3g}", (180, 125), font, 0.35, (30, 30, 200), 1, cv2.LINE_AA)
    return panel


def _report(path: Path | None, topic: str, name: str, result: dict[str, Any]) -> None:
    """Prints a result, and puts it in its place in a JSON file."""
    shown = {k: v["mean"] if isinstance(v, dict) and "mean" in v else v for k, v in result.items()}
    print(topic, name, json.dumps(shown, indent=1), flush=True)
    if path:
        known = json.loads(path.read_text()) if path.exists() else {}
        known.setdefault(topic, {})[name] = result
        write_json(path, known)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = {f.__name__: f for f in (statistics, difficulty, picture)}
    parser.add_argument("verb", choices=verbs)
    parser.add_argument("distributions", nargs="*", default=list(DISTRIBUTIONS))
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", default="512x384")
    parser.add_argument("--scenes", type=Path, help="folder of rendered data sets, by distribution's name")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    verbs[arguments.verb](arguments)


if __name__ == "__main__":
    main()
