"""IGEV++'s and RT-IGEV++'s fixtures, and a training step of the latter."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parity import igev_stereo
from parity.harness import Case, tap, tap_inputs

NAMES = {"default": "igev-plusplus", "rt": "igev-plusplus-rt"}
options = igev_stereo.options

_RANGES = ("small", "medium", "large")
_TRAINING_TOLERANCES = {"loss": 1e-5, "gradient_norms": 1e-3, "gradient_total_norm": 5e-3}


def arrays(case: Case, predictor: Any) -> dict[str, np.ndarray]:
    if case.meta.get("mode") == "train":
        return _training(case, predictor.model)
    with torch.inference_mode():
        found = _real_time(case, predictor) if case.meta["variant"] == "rt" else _ranges(case, predictor)
    return {name: value.numpy() for name, value in found.items()}


def _real_time(case: Case, predictor: Any) -> dict[str, Tensor]:
    model = predictor.model
    modules = {"hidden": "hidden", "context": "context", "gates": "context_gates"}
    modules |= igev_stereo.GEOMETRY | igev_stereo.LOOP
    inputs = {name: path for name, path in igev_stereo.INPUTS.items() if name != "stem"}
    with tap(model, modules) as taken, tap_inputs(model, inputs) as given:
        disparity = predictor(case.pair()).disparity
    return {
        "disparity": disparity,
        **igev_stereo.geometry(taken, given),
        **igev_stereo.loop(taken, given),
        "hidden0": taken["hidden"][0][0, ::12].tanh(),
        "context": taken["context"][0][0, ::12],
        "context_zqr": taken["gates"][0][0, ::24],
        "initial_disparity": igev_stereo.initial(case, model, taken),
    }


def _ranges(case: Case, predictor: Any) -> dict[str, Tensor]:
    model = predictor.model
    modules = {"features": "features", "match": "match", "ranges": "ranges", "select": "select"}
    modules |= igev_stereo.LOOP | {"classify": "ranges.classify"}
    inputs = {"motion": "motion", "delta": "delta_head"}
    for index, name in enumerate(_RANGES):
        modules[f"hidden0_{index}"] = f"context.hidden_heads.{index}"
        modules[f"context_zqr_{index}"] = f"context_gates.{index}"
        inputs |= {f"volume_{name}": f"ranges.stems.{index}", f"lookup_{name}": f"geometry_features.{index}"}
    with tap(model, modules) as taken, tap_inputs(model, inputs) as given:
        disparity = predictor(case.pair()).disparity
    maps, match = taken["features"][0], torch.cat(taken["match"])
    middle = match.shape[-2] // 2
    found = {"disparity": disparity, **igev_stereo.features(maps, match), **igev_stereo.loop(taken, given)}
    del found["lookup_1"]
    found["lookup_correlation_1"] = given["motion"][0][0][0, 96:, ::4]
    found["selective_weights"] = taken["select"][0][0].sigmoid()
    ranges = taken["ranges"][0]
    found["init_disparity"] = ranges[0].disparity[0]
    for index, name in enumerate(_RANGES):
        found[f"hidden0_{index}"] = taken[f"hidden0_{index}"][0][0, ::16].tanh()
        found[f"context_zqr_{index}"] = taken[f"context_zqr_{index}"][0][0, ::32]
        found[f"cost_volume_{name}"] = given[f"volume_{name}"][0][0][0, :, ::8, middle]
        found[f"geometry_volume_{name}"] = ranges[index].volume[0, :, ::8, middle]
        found[f"cost_logits_{name}"] = taken["classify"][index][0, 0, ::2, middle]
        found[f"init_disparity_{name}"] = ranges[index].disparity[0]
        found[f"lookup_{name}_1"] = given[f"lookup_{name}"][0][0][0, ::9, ::4]
        full = igev_stereo.upsampled(case, model, maps, ranges[index].disparity)
        found[f"initial_disparity_{name}"] = full if index == 0 else full[::2, ::2]
    return found


def _training(case: Case, model: nn.Module) -> dict[str, np.ndarray]:
    """One training step of RT-IGEV++: predictions, loss, gradients, running statistics."""
    meta = case.meta
    pair = case.pair()
    truth = case.parity.stereo_pair(
        meta["height"], meta["width"], meta["channels"], meta["max_shift"], meta["seed"]
    )[2]
    target = torch.from_numpy(truth)[None]
    valid = torch.ones_like(target, dtype=torch.bool)
    valid[:, :8] = False
    with torch.enable_grad():
        output = model.train()(pair.left[None], pair.right[None])
        loss = _published_loss(output, target, valid)
        loss.backward()
    _assert_gradients_reach_all(model)
    gradients = _published_gradients(case, model)
    norm = model.get_submodule("geometry.aggregate.down8.0.norm")
    assert isinstance(norm, nn.BatchNorm3d)
    total = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    found = {
        "disparity": output.disparity[0],
        "prediction_1": output.iterates[0][0],
        "initial_disparity": output.initial[0],
        "loss": loss[None],
        "gradient_norms": torch.stack([gradients[key].norm() for key in meta["gradient_keys"]]),
        "gradient_total_norm": total[None],
        "running_mean_after": norm.running_mean,
        "running_var_after": norm.running_var,
    }
    ours = {name: value.detach().numpy() for name, value in found.items() if value is not None}
    for name, relative in _TRAINING_TOLERANCES.items():  # tighter than the harness's
        np.testing.assert_allclose(ours[name], case.expected[name], rtol=relative, err_msg=name)
    return ours


def _published_loss(output: Any, target: Tensor, valid: Tensor) -> Tensor:
    valid = valid & (target < 192)
    count = len(output.iterates)
    decay = 0.9 ** (15 / (count - 1))
    loss = F.smooth_l1_loss(output.initial[valid], target[valid])
    for index, iterate in enumerate(output.iterates):
        loss = loss + decay ** (count - 1 - index) * (iterate - target)[valid].abs().mean()
    return loss


def _assert_gradients_reach_all(model: nn.Module) -> None:
    missed = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not missed


def _published_gradients(case: Case, model: Any) -> dict[str, Tensor]:
    """Gradients under the published names of the tensors that we keep whole (a GRU's gates are joined)."""
    tags = {key: torch.zeros(()).expand(shape) for key, (shape, _) in case.variant["state"].items()}
    ours = {id(tag): key for key, tag in tags.items()}
    named = {name: parameter.grad for name, parameter in model.named_parameters()}
    mapped = model.from_official(tags)
    return {ours[id(tag)]: named[name] for name, tag in mapped.items() if id(tag) in ours and name in named}
