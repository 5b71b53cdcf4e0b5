"""Weights that compute the same, whose batch norms hold the statistics that their inputs have now.

    python benchmarks/refit_batch_norms.py WEIGHTS --output refitted.safetensors [KEY=VALUE...]

After training with frozen batch norms, or a change of the network such as a bound of its features, the
statistics in the weights are no longer those of batches: to train on with batches' own would be to train
another network. Here they are measured over batches of `experiment=fast` (KEY=VALUE changes its settings),
and every norm's scale and shift are changed so that its output stays what it was; the largest change of
disparity over the last batch is printed. `--half` stores what convolutions weigh with in float16, for weights
that would be too large to ship.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from pathlib import Path

import torch
from torch import Tensor, nn

from stereopsis.io.weights import read_weights, write_weights
from stereopsis.training.config import read_settings
from stereopsis.training.datamodule import Data
from stereopsis.training.forward import padded_forward
from stereopsis.training.main import build_model


class Moments:
    """Mean and variance of every channel that a batch norm is given."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.sum, self.squares = (torch.zeros(channels, dtype=torch.float64) for _ in range(2))

    def __call__(self, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:  # noqa: ARG002
        values = inputs[0].double()
        self.count += values.numel() // values.shape[1]
        self.sum += values.sum((0, 2, 3))
        self.squares += values.square().sum((0, 2, 3))

    @property
    def mean(self) -> Tensor:
        return self.sum / self.count

    @property
    def variance(self) -> Tensor:
        return (self.squares / self.count - self.mean.square()).clamp(min=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--half", action="store_true", help="store what convolutions weigh with in float16")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_intermixed_args()
    if arguments.batches < 1:
        parser.error("--batches: statistics need at least one")
    chosen = [f"model.weights={arguments.weights}", "data.validation=[]", *arguments.settings]
    settings = read_settings(["experiment=fast", *chosen])
    model = build_model(settings.model).eval()
    norms = {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    moments = {name: Moments(norm.num_features) for name, norm in norms.items()}
    hooks = [norm.register_forward_pre_hook(moments[name]) for name, norm in norms.items()]
    batches = Data(settings, first_step=0, rank=0, processes=1).train_dataloader()
    with torch.inference_mode():
        for batch in itertools.islice(batches, arguments.batches):
            before = padded_forward(model, batch.pair).disparity
    state, header = read_weights(arguments.weights)
    if header is None:
        raise SystemExit(f"{arguments.weights} has no header of ours")
    for name, norm in norms.items():
        state |= refitted(name, norm, moments[name])
    if arguments.half:
        state = {name: tensor.half() if tensor.ndim == 4 else tensor for name, tensor in state.items()}
    for hook in hooks:
        hook.remove()
    model.load_state_dict(state)
    with torch.inference_mode():
        after = padded_forward(model, batch.pair).disparity
    print(f"largest change of disparity over a batch: {float((after - before).abs().max()):.2g} px")
    write_weights(arguments.output, state, dataclasses.replace(header, metrics={}))


def refitted(name: str, norm: nn.BatchNorm2d, moments: Moments) -> dict[str, Tensor]:
    """The norm's tensors with these statistics and the same output."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = norm.weight.double() / (variance + norm.eps).sqrt()
    tensors = {
        "weight": scale * (moments.variance + norm.eps).sqrt(),
        "bias": norm.bias.double() + scale * (moments.mean - mean),
        "running_mean": moments.mean,
        "running_var": moments.variance,
    }
    return {f"{name}.{key}": tensor.detach().float() for key, tensor in tensors.items()}


if __name__ == "__main__":
    main()
