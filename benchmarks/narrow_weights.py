"""Weights of a narrower `fast` from a wider one's: its most telling channels, its first residual blocks.

    python benchmarks/narrow_weights.py fast.safetensors --network fast-tiny --output start.safetensors

A start for training, not an end: what is left out is missed until then. A channel tells as much as the square
of what it holds (by its norms' scale and shift) times that of the weights that read it, over all layers that
write and read it. Groups of correlations keep equal numbers of channels.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stereopsis.io.weights import WeightsHeader, read_weights, write_weights
from stereopsis.models.base import StateDict, replace_config
from stereopsis.models.fast import Fast, FastConfig
from stereopsis.models.registry import create

SHUFFLED = 4
"""Channels that a pixel shuffle makes one channel of."""


@dataclass(frozen=True)
class Wire:
    """A convolution, the channels that it writes (and the norm behind it), and those that it reads, in order.

    Channels that are added to each other have one name; a number stands for so many that stay as they are.
    """

    layer: str
    writes: str | int
    reads: tuple[str | int, ...]
    norm: str | None = None
    shuffled: bool = False


def conv(layer: str, writes: str, *reads: str | int) -> Wire:
    return Wire(f"{layer}.0", writes, reads, norm=f"{layer}.1")


def residual(block: str, channels: str) -> Iterator[Wire]:
    yield conv(f"{block}.first", block, channels)
    yield conv(f"{block}.second", channels, block)


def residuals(body: str, channels: str, blocks: range) -> Iterator[Wire]:
    for block in blocks:
        yield from residual(f"{body}.{block}", channels)


def wiring(depth: int, correlations: int, costs: int, planes: int) -> Iterator[Wire]:
    """Every convolution of `fast` with so many blocks at a scale."""
    yield from _encoder()
    yield from _aggregation(depth, correlations, planes)
    yield from _refinement(costs)


def _encoder() -> Iterator[Wire]:
    yield conv("encoder.stem", "quarter", 3)
    yield from residual("encoder.quarter", "quarter")
    yield conv("encoder.eighth.0", "eighth", "quarter")
    yield from residual("encoder.eighth.1", "eighth")
    yield conv("encoder.sixteenth.0", "sixteenth", "eighth")
    yield from residual("encoder.sixteenth.1", "sixteenth")
    yield conv("encoder.rise", "eighth", "sixteenth")
    yield from residual("encoder.merge", "eighth")
    yield Wire("encoder.rise_to_quarter", "quarter", ("eighth",), shuffled=True)


def _aggregation(depth: int, correlations: int, planes: int) -> Iterator[Wire]:
    blocks = range(depth)
    yield conv("aggregation.guide", "guide", "eighth")
    yield conv("aggregation.enter", "costs8", correlations, "guide")
    yield conv("aggregation.down16", "down16", "costs8")
    yield conv("aggregation.guide16", "costs16", "down16", "sixteenth")
    yield from residuals("aggregation.body16", "costs16", blocks)
    yield conv("aggregation.body32.0", "costs32", "costs16")
    yield from residuals("aggregation.body32", "costs32", range(1, depth + 1))
    yield conv(f"aggregation.body32.{depth + 1}", "costs16", "costs32")
    yield conv("aggregation.body64.0", "costs64", "costs16")
    yield from residuals("aggregation.body64", "costs64", range(1, 3))
    yield Wire("aggregation.body64.3", "costs16", ("costs64",))
    yield from residual("aggregation.merge16", "costs16")
    yield conv("aggregation.rise", "costs8", "costs16")
    yield from residuals("aggregation.body8", "costs8", blocks)
    yield Wire("aggregation.logits", planes, ("costs8",))


def _refinement(costs: int) -> Iterator[Wire]:
    yield Wire("refinement.coarse_weights", 9 * 4, ("costs8",))
    yield conv("refinement.spread", "spread", "costs8")
    yield Wire("refinement.describe", "described", ("quarter",))
    yield conv("refinement.enter", "features", costs, "quarter", "spread")
    yield conv("refinement.surroundings.down8", "down8", "features")
    yield conv("refinement.surroundings.guide", "around8", "down8", "costs8")
    yield conv("refinement.surroundings.down16", "around16", "around8")
    yield from residuals("refinement.surroundings.body16", "around16", range(2))
    yield conv("refinement.surroundings.body16.2", "around8", "around16")
    yield from residual("refinement.surroundings.body8", "around8")
    yield Wire("refinement.surroundings.rise", "features", ("around8",), shuffled=True)
    yield from residuals("refinement.body", "features", range(2))
    yield Wire("refinement.residual", 1, ("features",))
    yield Wire("refinement.certainty", 16, ("features",))
    yield conv("refinement.weights.0", "mask", "features")
    yield Wire("refinement.weights.1", 9 * 16, ("mask",))


def wires_of(state: StateDict, config: FastConfig) -> list[Wire]:
    """Every convolution of these weights."""
    correlations = state["aggregation.enter.0.weight"].shape[1] - config.width
    costs = state["refinement.enter.0.weight"].shape[1] - 2 * config.width
    planes = state["aggregation.logits.weight"].shape[0]
    return list(wiring(config.depth, correlations, costs, planes))


def channels_of(state: StateDict, wires: Iterable[Wire]) -> dict[str, int]:
    """How many channels each name stands for."""
    return {
        wire.writes: len(state[f"{wire.layer}.weight"]) // (SHUFFLED if wire.shuffled else 1)
        for wire in wires
        if isinstance(wire.writes, str)
    }


def widths(wire: Wire, channels: Mapping[str, int]) -> list[int]:
    """Of what the wire reads, in order."""
    return [name if isinstance(name, int) else channels[name] for name in wire.reads]


class Narrowing:
    """Which channels of the wider network the narrower one keeps."""

    def __init__(self, state: StateDict, wide: FastConfig, narrow: FastConfig) -> None:
        self.state = state
        self.wide, self.narrow = wide, narrow
        self.wires = wires_of(state, wide)
        self.channels = channels_of(state, self.wires)
        self.kept = self._chosen()

    def result(self) -> dict[str, Tensor]:
        narrowed: dict[str, Tensor] = {}
        shallower = dataclasses.replace(self.wide, depth=self.narrow.depth)
        for old, new in _matching(self.wires, wires_of(self.state, shallower)):
            out, into = self._outputs(old), self._inputs(old)
            narrowed[f"{new.layer}.weight"] = self.state[f"{old.layer}.weight"][out][:, into]
            if f"{old.layer}.bias" in self.state:
                narrowed[f"{new.layer}.bias"] = self.state[f"{old.layer}.bias"][out]
            if old.norm and new.norm:
                for key in ("weight", "bias", "running_mean", "running_var"):
                    narrowed[f"{new.norm}.{key}"] = self.state[f"{old.norm}.{key}"][out]
                narrowed[f"{new.norm}.num_batches_tracked"] = self.state[f"{old.norm}.num_batches_tracked"]
        create("fast", **dataclasses.asdict(self.narrow)).load_state_dict(narrowed)
        return narrowed

    def _chosen(self) -> dict[str, Tensor]:
        held: dict[str, Tensor] = {}
        read: dict[str, Tensor] = {}
        for wire in self.wires:
            if wire.norm and isinstance(wire.writes, str):
                scale, shift = (self.state[f"{wire.norm}.{key}"] for key in ("weight", "bias"))
                held[wire.writes] = held.get(wire.writes, 0) + scale.square() + shift.square()
            weight = self.state[f"{wire.layer}.weight"].square().sum((0, 2, 3))
            for name, part in zip(wire.reads, weight.split(widths(wire, self.channels)), strict=True):
                if isinstance(name, str):
                    read[name] = read.get(name, 0) + part
        # What the residual stage compares has no norm and no other reader: it is as strong as it is written.
        read["described"] = self.state["refinement.describe.weight"].square().sum((1, 2, 3))
        return {name: self._strongest(name, held.get(name, 1) * told) for name, told in read.items()}

    def _strongest(self, name: str, tells: Tensor) -> Tensor:
        """Indices, rising, of as many as the narrower network has; equally many of each correlated group."""
        groups = self.wide.groups if name == "eighth" else 1
        width = len(tells) // groups
        keep = width * self.narrow.width // self.wide.width
        best = tells.view(groups, width).topk(keep, 1).indices.sort(1).values
        return (best + torch.arange(groups)[:, None] * width).flatten()

    def _outputs(self, wire: Wire) -> Tensor:
        if isinstance(wire.writes, int):
            return torch.arange(wire.writes)
        kept = self.kept[wire.writes]
        if wire.shuffled:
            return (kept[:, None] * SHUFFLED + torch.arange(SHUFFLED)).flatten()
        return kept

    def _inputs(self, wire: Wire) -> Tensor:
        parts, start = [], 0
        for name, width in zip(wire.reads, widths(wire, self.channels), strict=True):
            kept = torch.arange(width) if isinstance(name, int) else self.kept[name]
            parts.append(kept + start)
            start += width
        return torch.cat(parts)


def _matching(wide: list[Wire], narrow: list[Wire]) -> Iterator[tuple[Wire, Wire]]:
    """The narrower network's layers, each with the wider one's of the same place."""
    by_name = {wire.layer: wire for wire in wide}
    last = max(wire.layer for wire in wide if wire.layer.startswith("aggregation.body32."))
    for wire in narrow:
        ends = wire.layer.startswith("aggregation.body32.") and wire.writes == "costs16"
        yield by_name[last if ends else wire.layer], wire


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("--network", default="fast-tiny")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    state, header = read_fast(arguments.weights)
    narrow = create(arguments.network)
    if not isinstance(narrow, Fast):
        raise SystemExit(f"{arguments.network} is no `fast`")
    wide = replace_config(FastConfig(), header.config, header.network)
    narrowed = Narrowing(state, wide, narrow.config).result()
    write_weights(arguments.output, narrowed, described(header, arguments.network, narrow.config))


def read_fast(path: Path) -> tuple[StateDict, WeightsHeader]:
    """Weights of `fast`; SystemExit where the file holds others."""
    state, header = read_weights(path)
    if header is None or header.network != "fast":
        raise SystemExit(f"{path} holds no weights of `fast`")
    return state, header


def described(header: WeightsHeader, network: str, config: FastConfig) -> WeightsHeader:
    """The same origin, another network, and no figures of the one before."""
    return dataclasses.replace(header, network=network, config=dataclasses.asdict(config), metrics={})


if __name__ == "__main__":
    main()
