"""BGNet's and BGNet+'s fixtures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from parity.harness import Case, tap, tap_inputs
from stereopsis.layers.bilateral import slice_grid
from stereopsis.models.bgnet import warp_by_whole_pixels

NAMES = {"bgnet": "bgnet", "bgnet_plus": "bgnet-plus"}


def options(meta: dict[str, Any]) -> dict[str, object]:
    return {}


@torch.no_grad()
def arrays(case: Case, predictor: Any) -> dict[str, np.ndarray]:
    model = predictor.model
    modules = {"features": "features", "guide": "guide", "coeffs": "coefficients"}
    inputs = {"volume": "filter"}
    if model.refinement is not None:
        inputs["refinement"] = "refinement"
    with tap(model, modules) as taken, tap_inputs(model, inputs) as given:
        output = predictor(case.pair())
    features, low_level = taken["features"][0]
    coefficients = taken["coeffs"][0].transpose(1, 2)
    sliced = slice_grid(coefficients, taken["guide"][0])
    found = {
        "disparity": output.disparity.numpy(),
        "left_features": features[0, ::16].numpy(),
        "right_features": features[1, ::32].numpy(),
        "low_level": low_level[0, ::16, ::2, ::2].numpy(),
        "guide": taken["guide"][0][0, 0].numpy(),
        "volume": given["volume"][0][0][0, ::8, ::4].numpy(),
        "coeffs": coefficients[0, ::8, ::8].numpy(),
        "sliced": sliced[0, ::4, ::2, ::2].numpy(),
    }
    if model.refinement is None:
        return found
    half, left, right = given["refinement"][0]
    return found | {
        "coarse_disparity": output.stages[0].numpy(),
        "half_disparity": half[0].numpy(),
        **_refinement(case, model.refinement, left, right),
    }


def _refinement(
    case: Case, refinement: torch.nn.Module, left: torch.Tensor, right: torch.Tensor
) -> dict[str, np.ndarray]:
    """The refinement of the stored disparity, by which the warp picks the very same pixels."""
    half = torch.from_numpy(case.expected["half_disparity"])[None]
    small = torch.nn.functional.avg_pool2d(torch.cat([left, right]), 2)
    with tap(refinement, {"residual": "project"}) as taken:
        refinement(half, left, right)
    return {
        "warp_error": (warp_by_whole_pixels(small[1:], half) - small[:1])[0, 0].numpy(),
        "residual": taken["residual"][0][0, 0].numpy(),
    }
