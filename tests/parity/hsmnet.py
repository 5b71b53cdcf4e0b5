"""HSMNet's fixtures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from parity.harness import Case, tap, tap_inputs
from stereopsis.losses import SmoothL1Loss
from stereopsis.models.base import IMAGENET_MEAN, IMAGENET_STD, Padding, normalise
from stereopsis.models.hsmnet import FeatureExtraction, HSMNet
from stereopsis.structures import StereoSample

NAMES = {"hsm": "hsmnet", "hsm-level2": "hsmnet", "hsm-level3": "hsmnet"}


def options(meta: dict[str, Any]) -> dict[str, object]:
    """The level is found from the tensors."""
    config = meta["config"]
    clean = None if config["clean"] in (-1, False) else config["clean"]
    return {"max_disparity": config["maxdisp"], "clean": clean}


def nest(state: dict[str, Tensor], meta: dict[str, Any]) -> object:
    return {"iters": 40_000, "state_dict": state, "train_loss": 0.5}


@torch.no_grad()
def arrays(case: Case, predictor: Any) -> dict[str, np.ndarray]:
    model = predictor.model
    assert model.config.level == case.meta["config"]["level"]
    if "loss" in case.expected:
        return _training(case, model)
    scales = model.feature_extraction.scales
    modules = {f"decoder{s}": f"decoder{s}" for s in scales}
    inputs = {f"volume{s}": f"decoder{s}" for s in scales}
    finest = scales[-1]
    inputs["finest"] = f"decoder{finest}.classifier"
    with tap(model, modules) as taken, tap_inputs(model, inputs) as given:
        output = predictor(case.pair())
    ours = _features(case, model.config.width)
    ours |= {
        "disparity": output.disparity,
        "entropy": (1 - output.confidence) * math.log(len(output.levels)),
        f"cost{finest}": taken[f"decoder{finest}"][0].scores[0],
        f"decoder{finest}_output": given["finest"][0][0][0, : 1 if finest == 3 else 2],
    }
    for scale in scales:
        ours[f"volume{scale}"] = given[f"volume{scale}"][0][0][0, [0, -1]]
        if scale != finest:
            ours[f"decoder{scale}_output"] = taken[f"decoder{scale}"][0].finer[0, :2]
    return {name: tensor.numpy() for name, tensor in ours.items()}


def _features(case: Case, width: int) -> dict[str, Tensor]:
    """At all four scales, whatever the level: the coarser levels' files hold the finer features too."""
    prefix = "feature_extraction."
    state = HSMNet.from_official(case.state())
    network = FeatureExtraction(width, scales=(6, 5, 4, 3)).eval()
    network.load_state_dict(
        {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
    )
    pair = case.pair().map(lambda image: image[None])
    padding = Padding(multiple=(64, 64), vertical="top", horizontal="right", fill=IMAGENET_MEAN)
    images = padding.pad(torch.cat([pair.left, pair.right]))
    maps = network.project(network.encode(normalise(images, IMAGENET_MEAN, IMAGENET_STD)))
    return {
        "left_feature64": maps[0][0],
        "left_feature32": maps[1][0],
        "left_feature16": maps[2][0, :4],
        "left_feature8": maps[3][0, :4],
        "right_feature8": maps[3][1, :2],
    }


def _training(case: Case, model: Any) -> dict[str, np.ndarray]:
    """The four outputs and the loss in training mode, batch norm on its running statistics."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.eval()
    pair = case.pair().map(lambda image: image[None])
    output = model(pair.left, pair.right)
    truth = torch.from_numpy(case.expected["gt"])[None]
    loss = SmoothL1Loss(
        weights=(1.0, 4.0, 16.0, 64.0),
        normalised=True,
        min_disparity=0.0,
        max_disparity=float(case.meta["config"]["maxdisp"]),
    )
    stages = {f"pred{6 - i}": stage[0].numpy() for i, stage in enumerate(output.stages)}
    return {
        "disparity": output.disparity[0].numpy(),
        **stages,
        "gt": case.expected["gt"],
        "loss": loss(output, StereoSample(pair, truth, torch.ones_like(truth) > 0)).numpy(),
    }
