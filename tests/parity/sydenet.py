"""SyDE-Net's fixtures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from parity.harness import Case, tap, tap_inputs

NAMES = {"vits": "sydenet-small", "vitb": "sydenet-base", "vitl": "sydenet"}


def options(meta: dict[str, Any]) -> dict[str, object]:
    return {"iterations": meta["iters"], "max_disparity": meta["max_disp"]}


def nest(state: dict[str, Tensor], meta: dict[str, Any]) -> object:
    return {"state_dict": {f"module.{key}": tensor for key, tensor in state.items()}}


@torch.inference_mode()
def arrays(case: Case, predictor: Any) -> dict[str, np.ndarray]:
    model = predictor.model
    modules = {
        "geometry": "geometry.aggregate",
        "match": "geometry.match",
        "transfer": "transfer",
        "attention": "channel_attention",
        "context": "context",
        "head": "monocular_head",
        "update": "update",
        "stereo": "mix_stereo",
        "monocular": "mix_monocular",
    }
    inputs = {"update": "update", "stereo": "mix_stereo", "refinement": "refinement"}
    with tap(model, modules) as taken, tap_inputs(model, inputs) as given:
        disparity = predictor(case.pair()).disparity
    first, mixed, last = given["update"][0], given["stereo"][0], given["stereo"][-1]
    refined = given["refinement"][0]
    size = refined[0].shape[-2:]
    depth = F.interpolate(taken["head"][0], size, mode="bilinear", align_corners=False)
    found = {
        "disparity": disparity,
        "initial_disparity": first[3][0, 0],
        "mono_depth": depth[0, 0, ::2, ::2],
        "features_left_4x": taken["transfer"][0][0][0, ::8],
        "features_left_32x": taken["transfer"][0][3][0, ::8],
        "match_left": taken["match"][0][0, ::12],
        "geo_volume": taken["geometry"][0][0, ::4, ::8],
        "se_mono_4x": taken["attention"][0][0, ::8],
        "context_4x": taken["context"][0][0][0, ::16],
        "disparity_after_1": first[3][0, 0] + taken["update"][0][1][0],
        "mono_disparity_aligned": mixed[3].field[0, 0],
        "warp_difference_stereo": mixed[2].values[0, -96::12],
        "stereo_disparity_last": last[2].field[0, 0] + taken["stereo"][-1][1][0],
        "mono_disparity_last": last[3].field[0, 0] + taken["monocular"][-1][1][0],
        "stereo_disparity_up": refined[1][0],
        "mono_disparity_up": refined[0][0],
    }
    return {name: value.numpy() for name, value in found.items()}
