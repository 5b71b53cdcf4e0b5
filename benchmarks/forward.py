"""One forward pass of networks with random weights at 640x480, each in a process of its own.

python benchmarks/forward.py NETWORK ... --threads 2 --json benchmarks/results/forward.json
Seconds of the first pass, as a user waits for it; peak resident memory of the process, imports included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from stereopsis.io.files import write_json


def measure(name: str, threads: int) -> dict[str, object]:
    import torch

    from stereopsis.models.base import StereoModel, count_parameters
    from stereopsis.models.registry import create

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = create(name)
    if not isinstance(model, StereoModel):
        raise SystemExit(f"{name} is no stereo network")
    model.eval()
    image = model.padding.pad(torch.rand(1, 3, 480, 640))
    with torch.inference_mode():
        start = time.perf_counter()
        model(image, image)
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "network": name,
        "parameters": count_parameters(model),
        "seconds": round(seconds, 2),
        "peak_mb": round(peak),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        print(json.dumps(measure(given.networks[0], given.threads)))
        return
    rows = []
    for name in given.networks:
        command = [sys.executable, __file__, name, "--alone", "--threads", str(given.threads)]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows.append({**json.loads(shown), "load": round(os.getloadavg()[0], 1)})
        print(rows[-1])
    if given.json:
        facts = {"size": "640x480", "threads": given.threads, "weights": "random", "rows": rows}
        write_json(given.json, facts)


if __name__ == "__main__":
    main()
