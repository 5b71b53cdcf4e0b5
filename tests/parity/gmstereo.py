"""GMStereo's fixtures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from parity.harness import Case, tap, tap_inputs

NAMES = {
    "scale1": "gmstereo-scale1",
    "scale2": "gmstereo-scale2",
    "scale2-regrefine3": "gmstereo",
}


def options(meta: dict[str, Any]) -> dict[str, object]:
    given = meta["options"]
    return {
        "splits": tuple(given["attn_splits_list"]),
        "matching_radii": tuple(given["corr_radius_list"]),
        "propagation_radii": tuple(given["prop_radius_list"]),
        "row_windows": given["attn_type"] == "self_swin2d_cross_swin1d",
        "refinements": given["num_reg_refine"] if "regrefine" in meta["variant"] else 0,
    }


def nest(state: dict[str, Tensor], meta: dict[str, Any]) -> object:
    return {"model": state, "step": 100000, "epoch": 0}


@torch.inference_mode()
def arrays(case: Case, predictor: Any) -> dict[str, np.ndarray]:
    model = predictor.model
    modules = {"transformer": "transformer", "propagation": "propagation", "features": "features"}
    modules |= {f"block_{k}": f"transformer.blocks.{k}" for k in range(2)}
    inputs = {"transformer": "transformer", "propagation": "propagation"}
    if model.config.refinements:
        modules["refinement"] = inputs["refinement"] = "refinement"
    with tap(model, modules) as taken, tap_inputs(model, inputs) as given:
        disparity = predictor(case.pair()).disparity
    left, _ = given["transformer"][0]
    found = {
        "disparity": disparity,
        "backbone_first": _coarsest(model, taken["features"][0])[0, ::8],
        "position_added": left[0, ::8],
        "transformer_layer_1": _tokens(taken["block_0"][0]),
        "transformer_layer_2": _tokens(taken["block_1"][0]),
    }
    for scale in range(model.config.scales):
        suffix = f"_scale{scale + 1}" if scale else ""
        found |= {
            f"transformer_out{suffix}": taken["transformer"][scale][0][0, :: 16 if scale else 8],
            f"matched_disparity{suffix}": given["propagation"][scale][1][0, 0],
            f"propagated_disparity{suffix}": taken["propagation"][scale][0, 0],
        }
    if model.config.scales == 2:
        found["warped_right_scale2"] = given["transformer"][1][1][0, ::32]
    if model.config.refinements:
        found |= {
            "refine_correlation": given["refinement"][0][2][0, ::9],
            "refine_delta_1": taken["refinement"][0][1][0, 0],
            "refine_last_input": given["refinement"][-1][3][0, 0],
        }
    return {name: value.numpy() for name, value in found.items()}


def _coarsest(model: Any, features: Tensor) -> Tensor:
    if model.config.scales == 1:
        return features
    return torch.nn.functional.conv2d(features, model.trident, stride=2, padding=1)


def _tokens(views: Tensor) -> Tensor:
    return views[0].flatten(0, 1)[::2, ::16]
