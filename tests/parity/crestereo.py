"""CREStereo's fixtures, which were fed RGB where released weights expect BGR."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from parity.harness import Case, tap, tap_inputs

NAMES = {"crestereo": "crestereo"}


def options(meta: dict[str, Any]) -> dict[str, object]:
    size = meta["eval_size"] and tuple(meta["eval_size"])
    return {
        "iterations": meta["iters"],
        "passes": 2 if meta["two_pass"] else 1,
        "evaluation_size": size,
    }


@torch.inference_mode()
def arrays(case: Case, predictor: Any) -> dict[str, np.ndarray]:
    model, meta = predictor.model, case.meta
    modules = {
        "features": "features",
        "attended": "self_attention",
        "offset": "search_offsets.0",
        "update": "update",
    }
    with tap(model, modules) as taken, tap_inputs(model, {"update": "update"}) as given:
        output = predictor(case.pair(reverse_channels=True))
    iterations = meta["iters"]
    first = -iterations if meta["two_pass"] else 0  # the second pass has the finest stage only
    updates, inputs = taken["update"][first:], given["update"][first:]
    hidden, delta = updates[0]
    last = (inputs[-1][3] + updates[-1][1])[0]
    upsampled = -model.upsample(last[None], updates[-1][0])[0]
    found: dict[str, Tensor] = {
        "disparity": output.disparity,
        "disparity_network_size": upsampled[0],
        "flow_y": upsampled[1],
        "features_left": taken["features"][-1][0, ::32],
        "correlation_first": inputs[0][2][0, ::4],
        "correlation_last": inputs[-1][2][0, ::6],
        "flow_after_1": (inputs[0][3] + delta)[0],
        "mask_first": 0.25 * model.update.mask_head(hidden)[0, ::24],
        "hidden_after_1": hidden[0, ::16],
        "flow_last": last,
    }
    if meta["two_pass"]:
        end = 2 * (iterations // 2) + iterations - 1
        hidden, delta = taken["update"][end]
        found["half_resolution_disparity"] = -model.upsample(given["update"][end][3] + delta, hidden)[0, 0]
    else:
        half = iterations // 2
        found |= {
            "features_left_16_attended": taken["attended"][0][0, :, ::16],
            "offset_16_raw": taken["offset"][0][0],
            "flow_8_start": given["update"][half][3][0],
            "flow_4_start": given["update"][2 * half][3][0],
            "correlation_second": inputs[1][2][0, ::4],
        }
    return {name: value.numpy() for name, value in found.items()}
