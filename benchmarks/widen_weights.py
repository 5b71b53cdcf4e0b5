"""Weights of a wider `fast` from a narrower one's that give nearly the same answer.

    python benchmarks/widen_weights.py fast.safetensors --network fast-large --output start.safetensors

A start for training: the narrower network's channels come first and read nothing else, so that the answer
stays; the others are drawn at random, read everything, and are read with weights of zero until training says
otherwise. What the residual stage compares by one cosine cannot be left out so: there the others begin with a
tenth of their strength. The norms of new channels get the statistics of their inputs over a batch of
`experiment=fast` (KEY=VALUE changes its settings), for training with frozen norms, too; how much the answer
to that batch changed is printed.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from narrow_weights import channels_of, described, read_fast, widths, wires_of
from stereopsis.io.weights import write_weights
from stereopsis.models.base import StateDict
from stereopsis.models.fast import Fast, FastConfig
from stereopsis.models.registry import create
from stereopsis.structures import StereoPair
from stereopsis.training.config import read_settings
from stereopsis.training.datamodule import Data
from stereopsis.training.forward import padded_forward

COMPARED = "described"
"""Channels of one cosine, which cannot be read with a weight of zero."""
WHISPER = 0.1
NORM = ("weight", "bias", "running_mean", "running_var")


def widen(model: Fast, state: StateDict, narrow: FastConfig) -> None:
    """Lay the narrower network's weights into the wider one's own.

    Raises ValueError where the wider network has another depth, or not just more groups of as many channels.
    """
    wide = model.config
    if (narrow.depth, narrow.width / narrow.groups) != (wide.depth, wide.width / wide.groups):
        raise ValueError(f"{narrow} can have more groups of as many channels, no other depth: not {wide}")
    tensors = model.state_dict()
    old_wires, new_wires = wires_of(state, narrow), wires_of(tensors, wide)
    old_channels, new_channels = channels_of(state, old_wires), channels_of(tensors, new_wires)
    for old, new in zip(old_wires, new_wires, strict=True):
        weight, known = tensors[f"{new.layer}.weight"], state[f"{old.layer}.weight"]
        rows = len(known)
        weight[:rows] = 0
        if new.writes == COMPARED:
            weight[rows:] *= WHISPER
        parts = weight[:rows].split(widths(new, new_channels), 1)
        for part, source in zip(parts, known.split(widths(old, old_channels), 1), strict=True):
            part[:, : source.shape[1]] = source
        for name in (f"{new.layer}.bias", *(f"{new.norm}.{key}" for key in NORM if new.norm)):
            if name in state:
                tensors[name][:rows] = state[name]


@torch.inference_mode()
def settle(model: Fast, known: StateDict, pair: StereoPair) -> Tensor:
    """Give the norms of new channels the statistics of what they are given; the disparity, pixels."""
    hooks = [
        module.register_forward_pre_hook(NewChannels(len(known[f"{name}.weight"])))
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    disparity = padded_forward(model, pair).disparity
    for hook in hooks:
        hook.remove()
    return disparity


@dataclass(frozen=True)
class NewChannels:
    """Those from `first` on get the statistics of what their norm is about to be given."""

    first: int

    def __call__(self, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        new = inputs[0][:, self.first :]
        cast(Tensor, norm.running_mean)[self.first :] = new.mean((0, 2, 3))
        cast(Tensor, norm.running_var)[self.first :] = new.var((0, 2, 3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("--network", default="fast-large")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_intermixed_args()
    state, header = read_fast(arguments.weights)
    torch.manual_seed(arguments.seed)
    narrow, model = create("fast", **header.config).eval(), create(arguments.network).eval()
    if not (isinstance(narrow, Fast) and isinstance(model, Fast)):
        raise SystemExit(f"{arguments.network} is no `fast`")
    narrow.load_state_dict(state)
    widen(model, state, narrow.config)
    settings = read_settings(["experiment=fast", "data.validation=[]", *arguments.settings])
    pair = next(iter(Data(settings, first_step=0, rank=0, processes=1).train_dataloader())).pair
    after = settle(model, state, pair)
    with torch.inference_mode():
        before = padded_forward(narrow, pair).disparity
    print(f"the disparity of a batch changed by {float((after - before).abs().mean()):.2g} px in the mean")
    write_weights(arguments.output, model.state_dict(), described(header, arguments.network, model.config))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
