"""What a predictor is made of and fed with: parameters, multiply-adds, a pair."""

from __future__ import annotations

import copy

import torch
from torch.utils.flop_counter import FlopCounterMode

from stereopsis.models.base import count_parameters
from stereopsis.prediction.network import NetworkPredictor
from stereopsis.structures import Predictor, StereoPair
from stereopsis.synthesis.stream import SyntheticStream


def textured_pair(size: tuple[int, int], *, seed: int = 0) -> StereoPair:
    """A rendered pair of (height, width): what matchers find in it must not be noise alone."""
    return SyntheticStream(seed, size=size)[0].pair


def parameters(predictor: Predictor) -> int | None:
    """Of a network in PyTorch; None of anything else."""
    return count_parameters(predictor.model) if isinstance(predictor, NetworkPredictor) else None


def multiply_adds(predictor: Predictor, pair: StereoPair) -> int | None:
    """Of convolutions and products in one pass of a network over the padded pair; None of anything else.

    Counted on shapes alone, without computing.
    """
    if not isinstance(predictor, NetworkPredictor):
        return None
    model = copy.deepcopy(predictor.model)
    padded = pair.map(lambda image: model.padding.pad(image[None]))
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            model.to("meta")(padded.left.to("meta"), padded.right.to("meta"))
    except (RuntimeError, NotImplementedError):  # a network that looks at values cannot run on shapes
        return None
    return counter.get_total_flops() // 2
