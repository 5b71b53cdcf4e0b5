"""One contender in a process of its own: told by lines on its input, it answers with JSON lines.

`python -m stereopsis.bench.worker CONTENDER PAIR THREADS`: answers once it is ready, then once for each
`run`, and a last time to `end`. So nothing that another contender allocated or started is counted. PAIR
is an `.npy` of both views, [2 3 h w].
"""

from __future__ import annotations

import json
import sys
import time


def main(arguments: list[str]) -> None:
    text, images, threads = arguments
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print must not mix with the answers
    import cv2
    import numpy as np
    import torch

    from stereopsis.bench.contender import Contender
    from stereopsis.bench.throughput import multiply_adds, parameters
    from stereopsis.prediction.memory import peak_resident_bytes
    from stereopsis.prediction.runtimes import runtime_of
    from stereopsis.structures import StereoPair

    def answer(facts: dict[str, object]) -> None:
        print(json.dumps(facts), file=answers, flush=True)

    torch.set_num_threads(int(threads))
    cv2.setNumThreads(int(threads))
    left, right = torch.from_numpy(np.load(images))
    pair = StereoPair(left, right)
    before = peak_resident_bytes()
    started = time.perf_counter()
    try:
        predictor = Contender.from_json(text).build()
    except (ValueError, OSError) as error:
        answer({"error": str(error)})
        return
    answer({"load_seconds": time.perf_counter() - started, "imported_bytes": before})
    for line in sys.stdin:
        if line.strip() == "end":
            break
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            predictor(pair)  # its answer is on the CPU: nothing is left running
        except (ValueError, OSError, RuntimeError) as error:
            answer({"error": " ".join(str(error).split())[:300]})
            return
        answer({"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu})
    answer(
        {
            "peak_bytes": peak_resident_bytes(),
            "device_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
            "parameters": parameters(predictor),
            "multiply_adds": multiply_adds(predictor, pair),
            "runtime": runtime_of(predictor) or f"OpenCV {cv2.__version__}",
        }
    )


if __name__ == "__main__":
    main(sys.argv[1:])
