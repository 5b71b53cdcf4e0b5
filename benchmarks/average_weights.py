"""The mean of two weights files of one network, of which one was trained on from the other.

    python benchmarks/average_weights.py BEFORE AFTER --output mean.safetensors

The header is that of AFTER, with the steps and the training's splits of both.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch

from stereopsis.io.weights import WeightsHeader, read_weights, write_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.5, help="of AFTER")
    arguments = parser.parse_args()
    (first, before), (last, after) = (read_weights(path) for path in (arguments.before, arguments.after))
    if before is None or after is None or before.network != after.network or before.config != after.config:
        raise SystemExit("both files must be weights of ours, of one network and configuration")
    mean = {
        name: torch.lerp(first[name], tensor, arguments.share) if tensor.is_floating_point() else tensor
        for name, tensor in last.items()
    }
    write_weights(arguments.output, mean, averaged(before, after))


def averaged(before: WeightsHeader, after: WeightsHeader) -> WeightsHeader:
    """AFTER's, which no longer has figures of its own."""
    splits = sorted({*before.training.get("splits", []), *after.training.get("splits", [])})
    steps = before.training["steps"] + after.training["steps"]
    training = {**after.training, "steps": steps, "splits": splits}
    return dataclasses.replace(after, metrics={}, training=training)


if __name__ == "__main__":
    main()
