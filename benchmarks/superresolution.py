"""Peak memory of writing a mixture network's disparity at growing factors of the resolution, on a CPU.

SMD-Nets on PSMNet (256 px), a pair of 832x640 (0.53 megapixels), each factor in a process of its own: the
peak resident memory of the process, network included, and its processor seconds. With the published head
128 megapixels take over an hour on a processor: factors above 2 have a head of one narrow layer, which
changes the time and some 40 MB of weights and activations, not what is held of the image. Weights are
random: nothing here depends on them.

    python benchmarks/superresolution.py --output benchmarks/results/superresolution.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from stereopsis.io.files import write_json
from stereopsis.models.smd import SMDConfig, SMDNet
from stereopsis.prediction.network import NetworkPredictor
from stereopsis.prediction.superresolution import write_superresolved
from stereopsis.structures import StereoPair

HEIGHT, WIDTH = 640, 832
PUBLISHED = SMDConfig().head
NARROW = (32,)
CASES = ((1, PUBLISHED), (2, PUBLISHED), (4, NARROW), (8, NARROW), (16, NARROW))


def measure(factor: float, head: tuple[int, ...]) -> dict[str, object]:
    torch.manual_seed(0)
    predictor = NetworkPredictor(SMDNet(SMDConfig(head=head)))
    pair = StereoPair(*torch.rand(2, 3, HEIGHT, WIDTH))
    start = time.process_time()
    output = predictor(pair)
    predicted = time.process_time()
    before, highest = _resident("VmRSS"), _resident("VmHWM")
    Path("/proc/self/clear_refs").write_text("5")
    with tempfile.TemporaryDirectory() as folder:
        height, width = write_superresolved(Path(folder) / "disparity.pfm", output, factor)
    return {
        "factor": factor,
        "head": list(head),
        "megapixels": round(height * width / 1e6, 1),
        "peak_mb_while_writing": round(_resident("VmHWM") / 1024),
        "peak_mb_of_prediction": round(highest / 1024),
        "of_which_before_writing_mb": round(before / 1024),
        "cpu_seconds_prediction": round(predicted - start, 1),
        "cpu_seconds_writing": round(time.process_time() - predicted, 1),
    }


def _resident(field: str) -> int:
    """KiB of this process's memory, now (VmRSS) or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--largest", type=float, default=16)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.child is not None:
        print(json.dumps(measure(*CASES[arguments.child])))
        return
    rows = []
    for index, (factor, _) in enumerate(CASES):
        if factor > arguments.largest:
            continue
        command = [sys.executable, __file__, "--child", str(index)]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        print(rows[-1], flush=True)
        if arguments.output:
            report = {"image": [HEIGHT, WIDTH], "torch": torch.__version__, "threads": 1, "rows": rows}
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            write_json(arguments.output, report)


if __name__ == "__main__":
    main()
