"""Iterative networks at 640x480 against a literal transcription: time, memory, largest difference.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/iterative.py --lookup --json benchmarks/results/iterative.json

Beside it RAFT-Stereo's lookup at 2048x1536, with the correlations stored and recomputed.

Each run has a process of its own; ours and the transcription take turns. What an existing JSON file holds of
other networks is kept. Time is the process's CPU time
(all threads), so that other load on the machine counts little; memory is the peak resident size of the
run above the size before it, weights and images loaded. Weights are the deterministic ones of the published
networks' fixtures ($STEREOPSIS_REFERENCE), images are noise.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import literal_iterative as literal
from literal_sydenet import sydenet
from stereopsis.io.atomic import writing
from stereopsis.io.files import write_json
from stereopsis.layers.correlation import RowCorrelation, Storage
from stereopsis.models.registry import model_from_official

REFERENCE = Path(
    os.environ.get("STEREOPSIS_REFERENCE", Path(__file__).resolve().parents[2] / "shared" / "reference")
)

Run = Callable[[literal.State, Tensor, Tensor, int], Tensor]
NETWORKS: dict[str, tuple[str, str, int, Run]] = {
    "raft-stereo": (
        "raft-stereo",
        "default",
        32,
        lambda s, x, y, n: literal.raft(s, x, y, iterations=n, realtime=False),
    ),
    "raft-stereo-realtime": (
        "raft-stereo",
        "realtime",
        7,
        lambda s, x, y, n: literal.raft(s, x, y, iterations=n, realtime=True),
    ),
    "igev-stereo": (
        "igev-stereo",
        "default",
        32,
        lambda s, x, y, n: literal.igev(s, x, y, iterations=n, selective=False),
    ),
    "selective-raft": (
        "selective-stereo",
        "selective-raft",
        32,
        lambda s, x, y, n: literal.selective_raft(s, x, y, iterations=n),
    ),
    "selective-igev": (
        "selective-stereo",
        "selective-igev",
        32,
        lambda s, x, y, n: literal.igev(s, x, y, iterations=n, selective=True),
    ),
    "igev-plusplus": (
        "igev-plusplus",
        "default",
        32,
        lambda s, x, y, n: literal.igev_plusplus(s, x, y, iterations=n),
    ),
    "igev-plusplus-rt": (
        "igev-plusplus",
        "rt",
        8,
        lambda s, x, y, n: literal.igev_rt(s, x, y, iterations=n),
    ),
    "sydenet-small": ("sydenet", "vits", 32, lambda s, x, y, n: sydenet(s, x, y, iterations=n)),
    "sydenet-base": ("sydenet", "vitb", 32, lambda s, x, y, n: sydenet(s, x, y, iterations=n)),
    "sydenet": ("sydenet", "vitl", 32, lambda s, x, y, n: sydenet(s, x, y, iterations=n)),
}


def published_state(folder: str, variant: str) -> dict[str, Tensor]:
    """Deterministic tensors under their published names."""
    spec = importlib.util.spec_from_file_location("reference_parity", REFERENCE / "parity.py")
    assert spec is not None
    assert spec.loader is not None
    parity = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = parity
    spec.loader.exec_module(parity)
    described = json.loads((REFERENCE / folder / "manifest.json").read_text())["variants"][variant]
    state = {}
    for key, (shape, dtype) in described["state"].items():
        source = (described.get("aliases") or {}).get(key, key)
        value = torch.from_numpy(np.asarray(parity.weight_for(source, tuple(shape), dtype)))
        for pattern, factor in described["gain"].items():
            if re.search(pattern, source):
                value = value * factor
        state[key] = value
    return state


def state_file(name: str, folder: Path) -> Path:
    """The network's tensors on disk, made once."""
    network, variant, _, _ = NETWORKS[name]
    path = folder / f"{network}-{variant}.pt"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with writing(path) as temporary:
            torch.save(published_state(network, variant), temporary)
    return path


def measure(name: str, implementation: str, size: tuple[int, int], iterations: int, output: Path) -> None:
    """One run, in this process: writes its disparity and figures."""
    transcription = NETWORKS[name][3]
    state = torch.load(state_file(name, output.parent), weights_only=True)
    if implementation == "ours":
        model = model_from_official(state, iterations=iterations).eval()
        state = {}

        def run(left: Tensor, right: Tensor) -> Tensor:
            return model(left, right).disparity
    else:

        def run(left: Tensor, right: Tensor) -> Tensor:
            return transcription(state, left, right, iterations)

    generator = torch.Generator().manual_seed(0)
    width, height = size
    left = torch.rand(1, 3, height, width, generator=generator)
    right = torch.rand(1, 3, height, width, generator=generator)
    with torch.inference_mode():
        run(left[..., :64, :128], right[..., :64, :128])
        disparity, figures = watched(lambda: run(left, right))
    torch.save({"disparity": disparity, "figures": figures}, output)


def measure_lookup(storage: Storage, size: tuple[int, int], output: Path) -> None:
    """RAFT-Stereo's correlation of features at 1/4 of an image of that size, and two lookups."""
    generator = torch.Generator().manual_seed(0)
    width, height = size[0] // 4, size[1] // 4
    left = torch.randn(1, 256, height, width, generator=generator)
    right = torch.randn(1, 256, height, width, generator=generator)
    position = torch.rand(1, height, width, generator=generator) * width

    def run() -> Tensor:
        lookup = RowCorrelation(left, right, levels=4, radius=4, scale=1 / 16, storage=storage)
        return lookup(position) + lookup(position - 1)

    with torch.inference_mode():
        RowCorrelation(left[..., :9, :9], right[..., :9, :9], levels=1, radius=4, storage=storage)
        values, figures = watched(run)
    torch.save({"disparity": values, "figures": figures}, output)


def watched(run: Callable[[], Tensor]) -> tuple[Tensor, dict[str, float]]:
    """The result, and time and peak memory of getting it."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, cpu, wall = resident("VmRSS"), time.process_time(), time.perf_counter()
    result = run()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = resident("VmHWM") - before
    return result, {"cpu_s": round(cpu, 2), "wall_s": round(wall, 2), "peak_mb": round(peak / 2**20)}


def resident(field: str) -> int:
    """Bytes of VmRSS (now) or VmHWM (peak)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}")


def compare(
    names: list[str], size: tuple[int, int], threads: int, folder: Path, *, iterations: int | None
) -> list[dict[str, object]]:
    """iterations: the network's own where None."""
    rows: list[dict[str, object]] = []
    for name in names:
        count = iterations or NETWORKS[name][2]
        state_file(name, folder)
        theirs, mine = (
            _subprocess(name, implementation, size, threads, folder, iterations=count)
            for implementation in ("literal", "ours")
        )
        row: dict[str, object] = {
            "network": name,
            "iterations": count,
            "literal": theirs["figures"],
            "ours": mine["figures"],
            "speedup_cpu": round(theirs["figures"]["cpu_s"] / mine["figures"]["cpu_s"], 2),
            "memory_ratio": round(mine["figures"]["peak_mb"] / theirs["figures"]["peak_mb"], 2),
            "largest_difference_px": float((mine["disparity"] - theirs["disparity"]).abs().max()),
        }
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def compare_lookups(size: tuple[int, int], threads: int, folder: Path) -> dict[str, object]:
    """The correlation volume stored, and recomputed in every lookup."""
    stored = _subprocess("lookup", "stored", size, threads, folder)
    recomputed = _subprocess("lookup", "recomputed", size, threads, folder)
    width, height = size[0] // 4, size[1] // 4
    volume_mb = 4 * height * width * sum(width >> level for level in range(4)) / 2**20
    saved = stored["figures"]["peak_mb"] - recomputed["figures"]["peak_mb"]
    row = {
        "size": f"{size[0]}x{size[1]}",
        "volume_mb": round(volume_mb),
        "stored": stored["figures"],
        "recomputed": recomputed["figures"],
        "saved_share_of_volume": round(saved / volume_mb, 2),
        "largest_difference": float((stored["disparity"] - recomputed["disparity"]).abs().max()),
    }
    print(json.dumps(row), flush=True)
    return row


def _subprocess(
    name: str, implementation: str, size: tuple[int, int], threads: int, folder: Path, *, iterations: int = 1
) -> dict:
    output = folder / f"{name}-{implementation}.pt"
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    arguments = [sys.executable, __file__, "--measure", name, implementation, str(output)]
    options = ["--size", f"{size[0]}x{size[1]}", "--iterations", str(iterations)]
    subprocess.run([*arguments, *options], check=True, env=environment)
    return torch.load(output, weights_only=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--lookup-size", default="2048x1536")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--iterations", type=int, help="for all networks; each its own where not given")
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--lookup", action="store_true", help="measure RAFT-Stereo's lookup, too")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        name, implementation, output = arguments.measure
        if name == "lookup":
            measure_lookup(implementation, _size(arguments.size), Path(output))
        else:
            size = _size(arguments.size)
            measure(name, implementation, size, arguments.iterations or NETWORKS[name][2], Path(output))
        return
    arguments.folder.mkdir(parents=True, exist_ok=True)
    record = {
        "size": arguments.size,
        "threads": arguments.threads,
        "torch": torch.__version__,
        "networks": [],
    }
    if arguments.json and arguments.json.exists():
        record = json.loads(arguments.json.read_text())
    if arguments.lookup:
        record["lookup"] = compare_lookups(_size(arguments.lookup_size), arguments.threads, arguments.folder)
    measured = compare(
        arguments.networks,
        _size(arguments.size),
        arguments.threads,
        arguments.folder,
        iterations=arguments.iterations,
    )
    kept = {(row["network"], row["iterations"]): row for row in [*record["networks"], *measured]}
    record["networks"] = list(kept.values())
    if arguments.json:
        write_json(arguments.json, record)


def _size(text: str) -> tuple[int, int]:
    width, height = (int(length) for length in text.split("x"))
    return width, height


if __name__ == "__main__":
    main()
