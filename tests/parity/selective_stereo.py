"""Selective-IGEV's and Selective-RAFT's fixtures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from parity import igev_stereo
from parity.harness import Case, tap, tap_inputs
from stereopsis.layers.correlation import RowCorrelation

NAMES = {"selective-igev": "selective-igev", "selective-raft": "selective-raft"}
options = igev_stereo.options


@torch.inference_mode()
def arrays(case: Case, predictor: Any) -> dict[str, np.ndarray]:
    model = predictor.model
    igev = case.meta["variant"] == "selective-igev"
    modules = {"motion": "motion", "delta": "delta_head", "attended": "update.attention"}
    modules |= (
        igev_stereo.GEOMETRY | igev_stereo.LOOP if igev else {"features": "features", "mask": "mask_head"}
    )
    inputs = igev_stereo.INPUTS if igev else {"motion": "motion", "delta": "delta_head"}
    modules |= {f"hidden0_{level}": f"context.hidden_heads.{level}" for level in range(3)}
    with tap(model, modules) as taken, tap_inputs(model, inputs) as given:
        found = {"disparity": predictor(case.pair()).disparity}
    if igev:
        found |= igev_stereo.geometry(taken, given) | igev_stereo.loop(taken, given)
        found["initial_disparity"] = igev_stereo.initial(case, model, taken)
    else:
        found |= _raft(taken, given)
    for level, (context, attention) in enumerate(taken["attended"][0]):
        hidden = taken[f"hidden0_{level}"][0][0].tanh()
        found[f"hidden0_{level}"] = hidden[::16] if igev else hidden[:8]
        found[f"context_{level}"] = context[0, ::16]
        found[f"attention_{level}"] = attention[0, 0]
    return {name: value.numpy() for name, value in found.items()}


def _raft(taken: dict[str, list[Any]], given: dict[str, list[Any]]) -> dict[str, torch.Tensor]:
    left, right = taken["features"]
    middle, width = left.shape[-2] // 2, left.shape[-1]
    volume = RowCorrelation(left, right, levels=1, radius=4, scale=left.shape[1] ** -0.5).volume
    assert volume is not None
    return {
        "left_features": left[0, :8],
        "right_features": right[0, :8],
        "correlation_row": volume[0, middle, :, :width],
        "lookup_1": given["motion"][0][0][0, :, ::4],
        "lookup_last": given["motion"][-1][0][0, :, ::4],
        "motion_1": taken["motion"][0][0, ::16],
        "delta_1": taken["delta"][0][0, 0],
        "hidden_1": given["delta"][0][0][0, :8],
        "disparity_low_before_last": -given["motion"][-1][1][0, 0],
        "disparity_low_last": -(given["motion"][-1][1] + taken["delta"][-1])[0, 0],
        "upsample_logits_last": 0.25 * taken["mask"][-1][0, :, middle],
    }
