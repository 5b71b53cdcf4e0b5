"""How many operators pairs take: on a GPU about as many kernel launches, which bound its speed.

Counted on the CPU where PyTorch dispatches them, with as many rays at a time as a GPU is given. Operators
that only make views launch nothing and are left out; `nonzero`, `bincount` and reads of single values make
the host wait for the device.

    python benchmarks/launches.py --count 8 --batch 4 --json launches.json
"""

from __future__ import annotations

import argparse
import collections
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from stereopsis.imaging import apply_effects, quantise
from stereopsis.io.files import write_json
from stereopsis.synthesis import SyntheticStream, truth, visibility
from stereopsis.synthesis.render import render_images
from stereopsis.synthesis.shading import Shader
from stereopsis.synthesis.truth import Stage, look, render_truths

WAITS = ("nonzero", "_local_scalar_dense", "bincount", "equal")


class Launches(TorchDispatchMode):
    """Counts what reaches the device while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        looks = any(r.alias_info and not r.alias_info.is_write for r in func._schema.returns)
        name = func.overloadpacket.__name__
        self.count += not (looks or name.startswith("empty"))
        self.waits += name in WAITS
        return func(*args, **(kwargs or {}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--batch", type=int, default=1, help="pairs in one pass")
    parser.add_argument("--budget", default="cuda", choices=("cpu", "cuda"), help="rays at a time, as there")
    parser.add_argument("--distribution", default="general")
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    width, height = (int(n) for n in arguments.size.split("x"))
    stream = SyntheticStream(5, arguments.distribution, size=(height, width))
    stages: collections.Counter[str] = collections.Counter()
    waits = solids = 0
    rays = visibility.budget(torch.device(arguments.budget))
    visibility.budget = lambda _: rays
    truth.BAND *= 16 if arguments.budget == "cuda" else 1
    for index in range(0, arguments.count, arguments.batch):
        found, waiting, objects = count(stream, range(index, index + arguments.batch))
        stages.update(found)
        waits, solids = waits + waiting, solids + objects
    result: dict[str, Any] = {
        "distribution": arguments.distribution,
        "size": arguments.size,
        "pairs": arguments.count,
        "batch": arguments.batch,
        "budget": arguments.budget,
        "solids": round(solids / arguments.count, 1),
        "operators_per_pair": round(stages.total() / arguments.count),
        "host_waits_per_pair": round(waits / arguments.count),
        "stages": {name: round(value / arguments.count) for name, value in stages.items()},
    }
    print(json.dumps(result, indent=1))
    if arguments.json:
        write_json(arguments.json, result)


def count(stream: SyntheticStream, indices: Sequence[int]) -> tuple[dict[str, int], int, int]:
    """Operators of each stage of some pairs in one pass, those that wait, and the pairs' solids."""
    scenes = [stream.scene(index) for index in indices]
    rigs, solids = tuple(scene.rig for scene in scenes), tuple(scene.solids for scene in scenes)
    stage = Stage(rigs, solids, stream.size, torch.device("cpu"))
    stages: dict[str, int] = {}
    waits = 0

    def counted(name: str, work: Any) -> Any:
        nonlocal waits
        with Launches() as launches:
            result = work()
        stages[name] = launches.count
        waits += launches.waits
        return result

    sight = counted("visibility", lambda: look(stage))
    counted("occlusion", lambda: render_truths(stage, sight))
    shader = counted("tiles and shadows", lambda: Shader.of(stage, scenes))
    images = counted("images", lambda: render_images(shader, sight, samples=2))
    effects = [e for scene in scenes for e in scene.effects]
    counted("effects", lambda: [quantise(apply_effects(i, e)) for i, e in zip(images, effects, strict=True)])
    return stages, waits, sum(map(len, solids))


if __name__ == "__main__":
    main()
