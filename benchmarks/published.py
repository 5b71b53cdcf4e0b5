"""Largest differences from the published networks' fixtures, and parameters against the published counts.

Each fixture goes through the same path as in the tests: a deterministic checkpoint in the official nesting is
loaded by path alone. Of every array the largest difference is compared with what is allowed; the table shows
the disparity's, and of the other arrays the one that comes closest to its limit.

    python benchmarks/published.py psmnet hsmnet smdnets stereonet --output published.json
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

from parity.harness import Case, difference  # noqa: E402
from stereopsis.io.files import write_json  # noqa: E402
from stereopsis.models.base import count_parameters  # noqa: E402

REFERENCE = Path(os.environ.get("STEREOPSIS_REFERENCE", ROOT.parent / "shared" / "reference"))
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def compare(case: Case) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        predictor = case.open(Path(folder))
        ours = case.module.arrays(case, predictor)
    rows = {name: difference(case, name, np.asarray(ours[name])) for name in case.expected}
    shares = {name: largest / allowed if allowed else 0.0 for name, (largest, allowed) in rows.items()}
    others = {name: share for name, share in shares.items() if name != "disparity"}
    nearest = max(others, key=lambda name: others[name]) if others else None
    return {
        "variant": case.meta["variant"],
        "network": case.name,
        "disparity": {"largest": rows["disparity"][0], "allowed": rows["disparity"][1]},
        "arrays": len(rows),
        "nearest_to_its_limit": nearest and {"array": nearest, "share": round(others[nearest], 4)},
        "parameters": count_parameters(predictor.model),
        "parameters_in_published_file": _published(case),
    }


def _published(case: Case) -> int:
    """Of the file that this case loads: parameters, buffers left out."""
    state = case.state()
    counted = [
        math.prod(tensor.shape)
        for name, tensor in state.items()
        if not name.endswith(_BUFFERS) and "disp_reg" not in name
    ]
    return sum(counted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = {}
    for network in arguments.networks:
        for path in sorted((REFERENCE / network / "fixtures").glob("*.npz")):
            case = Case(path)
            if hasattr(case.module, "check") and case.module.check(case):
                continue
            row = compare(case)
            table[f"{network}/{path.stem}"] = row
            d, near = row["disparity"], row["nearest_to_its_limit"]
            print(
                f"{network}/{path.stem}: {d['largest']:.2g} of {d['allowed']:.2g} px; {near}; "
                f"{row['parameters']} of {row['parameters_in_published_file']} parameters",
                flush=True,
            )
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.output, table)


if __name__ == "__main__":
    main()
