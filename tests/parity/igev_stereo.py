"""IGEV-Stereo's fixtures; what its descendants share with it serves theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from parity.harness import Case, tap, tap_inputs

NAMES = {"default": "igev-stereo"}


def options(meta: dict[str, Any]) -> dict[str, object]:
    given = meta["options"]
    found: dict[str, object] = {"iterations": given["iterations"]}
    if "max_disp" in given:
        found["max_disparity"] = given["max_disp"]
    return found


@torch.inference_mode()
def arrays(case: Case, predictor: Any) -> dict[str, np.ndarray]:
    model = predictor.model
    modules = {**GEOMETRY, **LOOP}
    for level in range(3):
        modules[f"hidden0_{level}"] = f"context.hidden_heads.{level}"
        modules[f"context_zqr_{level}"] = f"context_gates.{level}"
    with tap(model, modules) as taken, tap_inputs(model, INPUTS) as given:
        disparity = predictor(case.pair()).disparity
    found = {"disparity": disparity, **geometry(taken, given), **loop(taken, given)}
    for level in range(3):
        found[f"hidden0_{level}"] = taken[f"hidden0_{level}"][0][0, ::16].tanh()
        found[f"context_zqr_{level}"] = taken[f"context_zqr_{level}"][0][0, ::32]
    found["initial_disparity"] = initial(case, model, taken)
    return {name: value.numpy() for name, value in found.items()}


GEOMETRY = {
    "features": "geometry.features",
    "match": "geometry.match",
    "aggregate": "geometry.aggregate",
    "classify": "geometry.classify",
    "encoding": "geometry",
}
LOOP = {
    "motion": "motion",
    "delta": "delta_head",
    "mask_features": "upsampling.mask_features",
    "superpixels": "upsampling.superpixels",
}
INPUTS = {
    "stem": "geometry.stem",
    "aggregate": "geometry.aggregate",
    "motion": "motion",
    "delta": "delta_head",
}


def geometry(taken: Mapping[str, list[Any]], given: Mapping[str, list[Any]]) -> dict[str, Tensor]:
    """The arrays of the non-iterative half."""
    middle = taken["match"][0].shape[-2] // 2
    found = {
        **features(taken["features"][0], torch.cat(taken["match"])),
        "geometry_volume": taken["aggregate"][0][0, :, ::8, middle],
        "cost_logits": taken["classify"][0][0, 0, :, middle],
        "init_disparity": taken["encoding"][0].disparity[0],
    }
    entering = given["aggregate"][0][0][0, :, ::8, middle]
    if given.get("stem"):
        found["cost_volume"] = given["stem"][0][0][0, :, ::8, middle]
        found["cost_volume_attended"] = entering
    else:
        found["cost_volume"] = entering
    return found


def features(maps: Any, match: Tensor) -> dict[str, Tensor]:
    return {
        "feature_4x": maps.scale4[0, ::12],
        "feature_8x": maps.scale8[0, ::16],
        "feature_16x": maps.scale16[0, ::48],
        "feature_32x": maps.scale32[0, ::40],
        "stem_2x": maps.stem2[0, ::16],
        "left_features": match[0, ::12],
        "right_features": match[1, ::12],
    }


def loop(taken: Mapping[str, Sequence[Any]], given: Mapping[str, Sequence[Any]]) -> dict[str, Tensor]:
    """The arrays of the first and the last iteration."""
    middle = taken["motion"][0].shape[-2] // 2
    return {
        "lookup_1": given["motion"][0][0][0, ::3, ::4],
        "motion_1": taken["motion"][0][0, ::16],
        "delta_1": taken["delta"][0][0, 0],
        "hidden_1": given["delta"][0][0][0, ::16],
        "disparity_low_before_last": given["motion"][-1][1][0, 0],
        "disparity_low_last": (given["motion"][-1][1] + taken["delta"][-1])[0, 0],
        "mask_feature_last": taken["mask_features"][-1][0, ::8],
        "upsample_weights_last": taken["superpixels"][-1][0, :, 2 * middle : 2 * middle + 4],
    }


def initial(case: Case, model: Any, taken: Mapping[str, Sequence[Any]]) -> Tensor:
    """The first disparity as the training branch upsamples it, cropped to the image."""
    return upsampled(case, model, taken["features"][0], taken["encoding"][0].disparity)


def upsampled(case: Case, model: Any, maps: Any, field: Tensor) -> Tensor:
    left = maps.first(1)
    full = model.upsampling.initial(field[:, None], left.scale4, left.stem2)[0, 0]
    height, width = case.meta["height"], case.meta["width"]
    top, _, left_side, _ = model.padding.amounts(height, width)
    return full[top : top + height, left_side : left_side + width]
