"""StereoNet's fixtures."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from parity.harness import Case, tap, tap_inputs

NAMES = {"sceneflow": "stereonet", "keystone": "stereonet-gray"}


def options(meta: dict[str, Any]) -> dict[str, object]:
    config = meta["config"]
    return {
        "downsamplings": config["k_downsampling_layers"],
        "refinements": config["k_refinement_layers"],
        "max_disparity": config["candidate_disparities"],
    }


def nest(state: dict[str, Tensor], meta: dict[str, Any]) -> object:
    """A Lightning checkpoint whose hyper-parameters pickle partials of optimiser and schedule."""
    return {
        "epoch": 20,
        "global_step": 1,
        "pytorch-lightning_version": "2.0.2",
        "state_dict": state,
        "loops": {},
        "callbacks": {},
        "optimizer_states": [],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {
            **meta["config"],
            "optimizer_partial": functools.partial(torch.optim.RMSprop, lr=2.54e-4, weight_decay=1e-4),
            "scheduler_partial": functools.partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.9),
        },
    }


@torch.no_grad()
def arrays(case: Case, predictor: Any) -> dict[str, np.ndarray]:
    model = predictor.model
    pair = case.pair()
    left, right = pair.left[None], pair.right[None]
    if "loss_masked" in case.expected:
        return _losses(case, model, predictor)
    side = case.meta["side"]
    modules = {"features": "feature_extractor", "cost": "cost_filter"}
    with tap(model, modules) as taken, tap_inputs(model, {"volume": "cost_filter"}) as given:
        output = model.forward_side(left, right, side=side)
    reference, other = (0, 1) if side == "left" else (1, 0)
    disparity = output.disparity[0] if side == "right" else predictor(pair).disparity
    stages = {f"disparity_{i}": stage[0] for i, stage in enumerate(output.stages)}
    return {
        "disparity": disparity.numpy(),
        "reference_features": taken["features"][reference][0].numpy(),
        "other_features": taken["features"][other][0, :8].numpy(),
        "volume": given["volume"][0][0][0, :4, ::4].numpy(),
        "cost": taken["cost"][0][0].numpy(),
        **{name: stage.numpy() for name, stage in stages.items()},
    }


def _losses(case: Case, model: Any, predictor: Any) -> dict[str, np.ndarray]:
    from stereopsis.losses import AdaptiveRobustLoss, adaptive_robust
    from stereopsis.structures import StereoSample

    pair = case.pair()
    left, right = pair.left[None], pair.right[None]
    outputs = {side: model.forward_side(left, right, side=side) for side in ("left", "right")}
    truths = {side: torch.from_numpy(case.expected[f"gt_{side}"])[None] for side in outputs}

    def loss(maximum: float) -> np.ndarray:
        function = AdaptiveRobustLoss(max_disparity=float(maximum))
        sides = [
            function(
                outputs[side], StereoSample(pair.map(lambda t: t[None]), truth, torch.ones_like(truth) > 0)
            )
            for side, truth in truths.items()
        ]
        return torch.stack(sides).mean().numpy()

    residual = torch.from_numpy(case.expected["robust_input"])
    return {
        "disparity": predictor(pair).disparity.numpy(),
        "disparity_right": outputs["right"].disparity[0].numpy(),
        "gt_left": case.expected["gt_left"],
        "gt_right": case.expected["gt_right"],
        "loss_masked": loss(case.meta["config"]["candidate_disparities"]),
        "loss_unmasked": loss(float("inf")),
        "robust_input": case.expected["robust_input"],
        "robust_output": adaptive_robust(residual, alpha=1.0, scale=2.0).numpy(),
    }
