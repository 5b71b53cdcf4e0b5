"""How many operators one pair takes: on a GPU about as many kernel launches, which bound its speed.

Counted on the CPU where PyTorch dispatches them. Operators that only make views launch nothing and are left
out; `nonzero`, `bincount` and reads of single values make the host wait for the device.

    python benchmarks/launches.py --count 8 --json launches.json
"""

from __future__ import annotations

import argparse
import collections
import json
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from stereopsis.imaging import apply_effects, quantise
from stereopsis.io.atomic import writing
from stereopsis.synthesis import SyntheticStream
from stereopsis.synthesis.render import SIDES, render_image
from stereopsis.synthesis.shading import Shader
from stereopsis.synthesis.truth import look, render_truth

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
    parser.add_argument("--distribution", default="general")
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    width, height = (int(n) for n in arguments.size.split("x"))
    stream = SyntheticStream(5, arguments.distribution, size=(height, width))
    stages: collections.Counter[str] = collections.Counter()
    waits = solids = 0
    for index in range(arguments.count):
        found, waiting, objects = count(stream, index)
        stages.update(found)
        waits, solids = waits + waiting, solids + objects
    result: dict[str, Any] = {
        "distribution": arguments.distribution,
        "size": arguments.size,
        "pairs": arguments.count,
        "solids": round(solids / arguments.count, 1),
        "operators_per_pair": round(stages.total() / arguments.count),
        "host_waits_per_pair": round(waits / arguments.count),
        "stages": {name: round(value / arguments.count) for name, value in stages.items()},
    }
    print(json.dumps(result, indent=1))
    if arguments.json:
        with writing(arguments.json) as temporary:
            temporary.write_text(json.dumps(result, indent=1) + "\n")


def count(stream: SyntheticStream, index: int) -> tuple[dict[str, int], int, int]:
    """Operators of each stage of one pair, those that wait, and its solids."""
    scene, size, device = stream.scene(index), stream.size, torch.device("cpu")
    stages: dict[str, int] = {}
    waits = 0

    def counted(name: str, work: Any) -> Any:
        nonlocal waits
        with Launches() as launches:
            result = work()
        stages[name] = launches.count
        waits += launches.waits
        return result

    views = [scene.rig.view(size, side) for side in SIDES]
    sights = counted("visibility", lambda: [look(scene.solids, view, device=device) for view in views])
    counted(
        "occlusion",
        lambda: [
            render_truth(scene.solids, scene.rig, size, side, device=device, sight=sight)
            for side, sight in zip(SIDES, sights, strict=True)
        ],
    )
    shader = counted("tiles and shadows", lambda: Shader.of(scene, device))
    images = counted(
        "images",
        lambda: [render_image(shader, v, sight, samples=2) for v, sight in zip(views, sights, strict=True)],
    )
    counted(
        "effects",
        lambda: [quantise(apply_effects(i, e)) for i, e in zip(images, scene.effects, strict=True)],
    )
    return stages, waits, len(scene.solids)


if __name__ == "__main__":
    main()
