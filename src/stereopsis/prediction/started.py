"""Recurrent networks that start from a disparity found otherwise, and so need fewer iterations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from stereopsis.prediction.classical import SGBM
from stereopsis.prediction.network import NetworkPredictor
from stereopsis.prediction.rescaled import Rescaled
from stereopsis.structures import Predictor, StereoOutput, StereoPair

STARTS = ("sgbm", "coarse", "previous")

COARSE = 0.5
"""Scale of the coarse pass."""


def started(network: NetworkPredictor, start: str) -> Predictor:
    """The network with its updates started from elsewhere.

    "sgbm": from semi-global matching, where its left-right check holds; "coarse": from the network itself
    at half size; "previous": from the disparity of the pair before (see `Following`). Raises ValueError
    for another name, and for a network that takes no start.
    """
    if start not in STARTS:
        raise ValueError(f"start must be one of {', '.join(STARTS)}, not {start!r}")
    network.check_startable()
    if start == "previous":
        return Following(network)
    if start == "coarse":
        return Started(network, Rescaled(network, COARSE))
    return Started(network, SGBM(fill=None))


@dataclass(frozen=True)
class Started:
    """A network whose updates start from what `source` finds; where that is infinite, from its own start."""

    network: NetworkPredictor
    source: Predictor

    @property
    def device(self) -> torch.device:
        return self.network.device

    def __call__(self, pair: StereoPair) -> StereoOutput:
        return self.network(pair, initial=self.source(pair).disparity)


class Following:
    """A network that is shown the frames of one stereo camera in order: each starts from the one before.

    The first frame, and one of another size, start as ever.
    """

    def __init__(self, network: NetworkPredictor) -> None:
        self.network = network
        self._last: Tensor | None = None

    @property
    def device(self) -> torch.device:
        return self.network.device

    def __call__(self, pair: StereoPair) -> StereoOutput:
        last = self._last
        usable = last is not None and last.shape == (*pair.left.shape[:-3], *pair.size)
        output = self.network(pair, initial=last if usable else None)
        self._last = torch.where(output.disparity.isfinite(), output.disparity, math.inf)
        return output
