"""AANet's and AANet+'s fixtures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from parity.harness import Case, tap, tap_inputs

NAMES = {"aanet": "aanet", "aanet+": "aanet-plus"}


def options(meta: dict[str, Any]) -> dict[str, object]:
    return {"max_disparity": meta["max_disp"]}


def nest(state: dict[str, Tensor], meta: dict[str, Any]) -> object:
    """A training checkpoint of one of several GPUs."""
    return {"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 64}


@torch.no_grad()
def arrays(case: Case, predictor: Any) -> dict[str, np.ndarray]:
    model = predictor.model
    modules = {"features": "features", "aggregated": "aggregation.project.0", "half": "refinements.0"}
    modules |= {"fusion_1": "aggregation.steps.0", "fusion_4": "aggregation.steps.3"}
    inputs = {"costs": "aggregation", "third": "refinements.0"}
    with tap(model, modules) as taken, tap_inputs(model, inputs) as given:
        output = predictor(case.pair())
    features, costs = taken["features"][0], given["costs"][0][0]
    return {
        "disparity": output.disparity.numpy(),
        "disparity_half": taken["half"][0][0].numpy(),
        "disparity_third": given["third"][0][0][0].numpy(),
        "feature_3x": features[0][0, ::16].numpy(),
        "feature_12x": features[2][0, ::8].numpy(),
        "cost_3x": costs[0][0, ::8].numpy(),
        "cost_12x": costs[2][0, ::2].numpy(),
        "fusion_1_12x": taken["fusion_1"][0][2][0, ::2].numpy(),
        "fusion_4_3x": taken["fusion_4"][0][0][0, ::16].numpy(),
        "fusion_4_6x": taken["fusion_4"][0][1][0, ::8].numpy(),
        "aggregated_3x": taken["aggregated"][0][0, ::8].numpy(),
    }
