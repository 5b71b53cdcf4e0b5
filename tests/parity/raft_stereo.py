"""RAFT-Stereo's fixtures."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from parity.harness import Case, tap, tap_inputs
from stereopsis.layers.correlation import RowCorrelation

NAMES = {"default": "raft-stereo", "realtime": "raft-stereo-realtime", "rvc": "raft-stereo-rvc"}


def options(meta: dict[str, Any]) -> dict[str, object]:
    return {"iterations": meta["options"]["iterations"]}


@torch.inference_mode()
def arrays(case: Case, predictor: Any) -> dict[str, np.ndarray]:
    model = predictor.model
    shared = model.config.shared_backbone
    modules = {"features": "project" if shared else "features", "delta": "flow_head", "mask": "mask_head"}
    for level in range(model.config.levels):
        modules[f"hidden0_{level}"] = f"context.hidden_heads.{level}"
        modules[f"context_zqr_{level}"] = f"context_gates.{level}"
    with tap(model, modules) as taken, tap_inputs(model, {"motion": "motion", "head": "flow_head"}) as given:
        disparity = predictor(case.pair()).disparity
    left, right = torch.cat(taken["features"]).split(1)
    middle, width = left.shape[-2] // 2, left.shape[-1]
    found = {
        "disparity": disparity,
        "left_features": left[0, :8],
        "right_features": right[0, :8],
        "correlation_row": _correlation(left, right)[0, middle, :, :width],
        "lookup_1": given["motion"][0][0][0, :, ::4],
        "lookup_last": given["motion"][-1][0][0, :, ::4],
        "delta_1": taken["delta"][0][0, 0],
        "hidden_1": given["head"][0][0][0, :8],
        "disparity_low_before_last": -given["motion"][-1][1][0, 0],
        "disparity_low_last": -(given["motion"][-1][1] + taken["delta"][-1])[0, 0],
        "upsample_logits_last": 0.25 * taken["mask"][-1][0, :, middle],
    }
    for level in range(model.config.levels):
        found[f"hidden0_{level}"] = taken[f"hidden0_{level}"][0][0, :8].tanh()
        found[f"context_zqr_{level}"] = taken[f"context_zqr_{level}"][0][0, ::32]
    if "disparity_alt" in case.expected:
        model.config = dataclasses.replace(model.config, volume="recomputed")
        found["disparity_alt"] = predictor(case.pair()).disparity
    return {name: value.numpy() for name, value in found.items()}


def _correlation(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    volume = RowCorrelation(left, right, levels=1, radius=4, scale=left.shape[1] ** -0.5).volume
    assert volume is not None
    return volume
