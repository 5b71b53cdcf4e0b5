"""PSMNet's fixtures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from parity.harness import Case, tap, tap_inputs

NAMES = {"stackhourglass": "psmnet", "basic": "psmnet-basic"}


def options(meta: dict[str, Any]) -> dict[str, object]:
    config = meta["config"]
    return {"max_disparity": config["maxdisp"], "align_corners": config["align_corners"]}


def nest(state: dict[str, Tensor], meta: dict[str, Any]) -> object:
    return {"epoch": 10, "state_dict": state, "train_loss": 0.5}


@torch.no_grad()
def arrays(case: Case, predictor: Any) -> dict[str, np.ndarray]:
    if "loss" in case.expected:
        return _training(case, predictor)
    hourglass = case.meta["variant"] == "stackhourglass"
    modules = {
        "features": "feature_extraction",
        "raw": "feature_extraction.layer2",
        "skip": "feature_extraction.layer4",
        "branch1": "feature_extraction.pyramid.0",
        "dres0": "aggregation.entry",
    }
    if hourglass:
        modules |= {f"dres{i + 2}": f"aggregation.hourglasses.{i}.conv6" for i in range(3)}
        modules |= {f"classif{i + 1}": f"aggregation.classifiers.{i}" for i in range(3)}
    else:
        modules |= {f"dres{i + 1}": f"aggregation.residual.{i}.1" for i in range(4)}
        modules["classify"] = "aggregation.classifier"
    with (
        tap(predictor.model, modules) as taken,
        tap_inputs(predictor.model, {"volume": "aggregation"}) as given,
    ):
        disparity = predictor(case.pair()).disparity
    volume = given["volume"][0][0][0]
    ours = {
        "disparity": disparity,
        "left_features": taken["features"][0][0, :8],
        "right_features": taken["features"][1][0, :2],
        "feature_raw": taken["raw"][0][0, :2],
        "feature_skip": taken["skip"][0][0, :2],
        "branch1": taken["branch1"][0][0],
        "volume": volume[[0, 32], ::8],
        "dres0": taken["dres0"][0][0, :4, ::16],
    }
    ours |= {name: taken[name][0][0, :1, ::8] for name in ("dres2", "dres3", "dres4")}
    ours |= {name: taken[name][0][0, 0, ::4] for name in taken if name.startswith("class")}
    return {name: tensor.numpy() for name, tensor in ours.items()}


def _training(case: Case, predictor: Any) -> dict[str, np.ndarray]:
    """The three outputs and the loss in training mode, batch norm on its running statistics."""
    from torch import nn

    from stereopsis.losses import SmoothL1Loss
    from stereopsis.structures import StereoSample

    model = predictor.model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.eval()
    pair = case.pair().map(lambda image: image[None])
    output = model(pair.left, pair.right)
    truth = torch.from_numpy(case.expected["gt"])[None]
    loss = SmoothL1Loss(weights=(0.5, 0.7, 1.0), max_disparity=float(case.meta["config"]["maxdisp"]))
    return {
        "disparity": output.disparity[0].numpy(),
        "pred1": output.stages[0][0].numpy(),
        "pred2": output.stages[1][0].numpy(),
        "gt": case.expected["gt"],
        "loss": loss(output, StereoSample(pair, truth, torch.ones_like(truth) > 0)).numpy(),
    }
