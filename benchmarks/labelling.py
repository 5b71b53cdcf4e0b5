"""What labelling costs beside the bare passes of its teacher: reading, filters, writing, claims.

    python benchmarks/labelling.py sgbm fast --scenes synthetic/ --json benchmarks/results/labelling.json

Each pair is predicted bare (opened before) and labelled, in turn; the sums are compared, in processor time
(which other programs on the machine do not change) and on the clock. With a teacher of 0.5 s a pair the
share would be 0.5 / (0.5 + the seconds added).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
import time
from pathlib import Path

import cv2
import torch

from stereopsis.io.files import write_json
from stereopsis.io.pairs import PairPaths, find_pairs
from stereopsis.labelling.engine import SharedFolder
from stereopsis.labelling.label import CLAIMS, Order, begin, label_pair
from stereopsis.labelling.teacher import Teacher
from stereopsis.structures import StereoPair


@dataclasses.dataclass
class Times:
    processor: float = 0.0
    clock: float = 0.0

    def __enter__(self) -> Times:
        self._began = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.processor += time.process_time() - self._began[0]
        self.clock += time.perf_counter() - self._began[1]


def measure(name: str, pairs: list[PairPaths], output: Path) -> dict[str, float]:
    teacher = Teacher.load(name)
    order = Order(input="", output=output, teacher=teacher)
    begin(order)
    engine = SharedFolder(folder=output / CLAIMS)
    opened = StereoPair.open(pairs[0].left, pairs[0].right)
    for _ in range(2):
        teacher(opened)
    bare, labelled = Times(), Times()
    for pair in pairs:
        opened = StereoPair.open(pair.left, pair.right)
        with bare, torch.inference_mode():
            teacher(opened)
        with labelled:
            list(
                engine.run(
                    [pair.name],
                    work=lambda _, pair=pair: label_pair(order, pair) and None,
                    finished=lambda _: False,
                )
            )
    count = len(pairs)
    added = (labelled.processor - bare.processor) / count
    return {
        "bare_processor": round(bare.processor / count, 4),
        "labelled_processor": round(labelled.processor / count, 4),
        "bare_clock": round(bare.clock / count, 4),
        "labelled_clock": round(labelled.clock / count, 4),
        "share": round(bare.processor / labelled.processor, 4),
        "share_of_a_teacher_of_half_a_second": round(0.5 / (0.5 + max(added, 0.0)), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("teachers", nargs="+")
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    pairs = find_pairs(arguments.scenes)[: arguments.pairs]
    height, width = StereoPair.open(pairs[0].left, pairs[0].right).size
    results: dict[str, object] = {
        "pairs": len(pairs),
        "size": f"{width}x{height}",
        "load": os.getloadavg()[0],
    }
    for name in arguments.teachers:
        with tempfile.TemporaryDirectory(dir=arguments.json.parent) as folder:
            results[Path(name).stem] = measure(name, pairs, Path(folder) / "labels")
    write_json(arguments.json, results)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
