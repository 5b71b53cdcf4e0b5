"""Pictures for `mixture_edges.py`: an edge, a row of disparities across it, and the row's points from above.

python benchmarks/mixture_edges.py fitted --seeds 0 --weights weights/ --output edges.json
python benchmarks/mixture_edges_pictures.py fitted --weights weights/ --scene 1 --output edges.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from mixture_edges import FINER, HEADS, SETTINGS, Setting, network, scenes
from stereopsis.io.images import write_image
from stereopsis.layers.sampling import boundaries
from stereopsis.prediction.network import NetworkPredictor
from stereopsis.prediction.superresolution import superresolved
from stereopsis.visual import disparity_picture, image_picture, panel, titled

CROP = 128
COLOURS = {"truth": (0, 0, 0), "standard": (220, 60, 40), "bimodal": (30, 90, 220)}


def predictor(setting: Setting, head: str, weights: Path) -> NetworkPredictor:
    model = network(setting, head)
    model.load_state_dict(torch.load(weights / f"{head}.pth"))
    return NetworkPredictor(model)


def busiest(truth: Tensor) -> tuple[int, int]:
    """(top, left) of the window with the most edges of more than 20 px."""
    edges = boundaries(truth, threshold=20.0).float()[None, None]
    counts = torch.nn.functional.avg_pool2d(edges, CROP, stride=16)[0, 0]
    best = int(counts.argmax())
    return 16 * (best // counts.shape[1]), 16 * (best % counts.shape[1])


def curves(rows: dict[str, np.ndarray], *, above: bool) -> np.ndarray:
    """Disparity along a row (or, `above`, depth 1 / disparity as points seen from above), one colour each."""
    size = 4 * CROP
    canvas = np.full((size // 2, size, 3), 255, np.uint8)
    values = {name: 1 / np.maximum(row, 1) if above else row for name, row in rows.items()}
    low, high = np.percentile(values["truth"], [0, 100])
    margin = 0.15 * (high - low) + 1e-6
    for name, row in values.items():
        share = (row - low + margin) / (high - low + 2 * margin)
        heights = np.clip((1 - share) * size / 2, 0, size // 2 - 1).astype(int)
        for x, y in enumerate(heights):
            cv2.circle(canvas, (4 * x + 2, int(y)), 2, COLOURS[name], -1)
    return canvas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("setting", choices=list(SETTINGS))
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--scene", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    setting = SETTINGS[arguments.setting]
    shown = scenes(setting, setting.held_out, arguments.scene + 1)[-1]
    truth, pair = shown.truth, shown.pair
    maps = {"truth": truth}
    for head in HEADS:
        maps[head] = superresolved(predictor(setting, head, arguments.weights)(pair), FINER).disparity
    top, left = busiest(truth)
    row = top + CROP // 2
    image = torch.nn.functional.interpolate(pair.left[None], setting.fine, mode="nearest")[0]

    def window(values: Tensor) -> Tensor:
        return values[..., top : top + CROP, left : left + CROP]

    limits = (float(window(truth).min()), float(window(truth).max()))
    cells = [titled(_large(image_picture(window(image))), "left image")]
    cells += [
        titled(_large(disparity_picture(window(values), limits=limits)), name)
        for name, values in maps.items()
    ]
    rows = {name: values[row, left : left + CROP].numpy() for name, values in maps.items()}
    cells.append(titled(curves(rows, above=False), "disparity along the middle row"))
    cells.append(titled(curves(rows, above=True), "its points from above (depth upwards)"))
    write_image(arguments.output, panel(cells, columns=2))


def _large(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture, (4 * CROP, 4 * CROP), interpolation=cv2.INTER_NEAREST)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
