"""CoEx's fixtures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from parity.harness import Case, tap
from stereopsis.layers.cost_volume import correlation_volume

NAMES = {"coex": "coex"}


def options(meta: dict[str, Any]) -> dict[str, object]:
    return {"max_disparity": meta["max_disparity"]}


def nest(state: dict[str, Tensor], meta: dict[str, Any]) -> object:
    """A Lightning checkpoint."""
    return {"epoch": 10, "global_step": 1, "pytorch-lightning_version": "1.2.8", "state_dict": state}


@torch.no_grad()
def arrays(case: Case, predictor: Any) -> dict[str, np.ndarray]:
    """The fixture was fed RGB where released weights expect BGR: the pair is reversed."""
    modules = {
        "backbone": "features.backbone",
        "up_4x": "features.smooth4",
        "up_16x": "features.decode16",
        "descriptor": "descriptor",
        "aggregated": "aggregate",
        "superpixels": "superpixels",
    }
    with tap(predictor.model, modules) as taken:
        output = predictor(case.pair(reverse_channels=True))
    descriptors = taken["descriptor"][0]
    left, right = (descriptors / descriptors.norm(dim=1, keepdim=True)).chunk(2)
    volume = correlation_volume(left, right, case.meta["max_disparity"] // 4 + 1) * 48
    backbone = taken["backbone"][0]
    return {
        "disparity": output.disparity.numpy(),
        "backbone_2x": backbone.scale2[0, ::4, ::2, ::2].numpy(),
        "backbone_32x": backbone.scale32[0, ::16].numpy(),
        "up_4x": taken["up_4x"][0][0, ::8].numpy(),
        "up_16x": taken["up_16x"][0][0, ::16].numpy(),
        "cost_volume": volume[0, ::4].numpy(),
        "aggregated": taken["aggregated"][0][0, 0, ::4].numpy(),
        "disparity_4x": output.stages[0].numpy() / 4,
        "superpixel_weights": taken["superpixels"][0][0, ::4, ::4, ::4].numpy(),
    }
