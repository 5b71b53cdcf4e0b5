"""SMD-Nets' fixtures."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

from parity.harness import Case, difference, tap, tap_inputs
from stereopsis.layers.mixture import differential_entropy, negative_log_likelihood
from stereopsis.layers.sampling import boundaries
from stereopsis.metrics.disparity import bad, epe
from stereopsis.metrics.edges import see, soft_edge_error
from stereopsis.prediction.superresolution import superresolved
from stereopsis.structures import Mixture, MixtureOutput

_BACKBONES = ("psmnet", "hsmnet", "stereodepth")
NAMES = {
    f"{backbone}-{rest}": f"smd-{backbone}"
    for backbone in _BACKBONES
    for rest in (
        "standard",
        "unimodal",
        "bimodal",
        "bimodal-active",
        "unimodal-active",
        "bimodal-nosine-noresidual",
        "bimodal-nosine",
        "bimodal-noresidual",
    )
}


def options(meta: dict[str, Any]) -> dict[str, object]:
    """What tensors cannot tell: the maximum disparity of Stereodepth, and the activations."""
    return {"max_disparity": meta["config"]["maxdisp"], "sine": not meta["config"]["no_sine"]}


def architecture(meta: dict[str, Any]) -> dict[str, object]:
    config = meta["config"]
    return {
        "representation": config["output_representation"],
        "active": config["mode"] == "active",
        "residual": not config["no_residual"],
    }


def nest(state: dict[str, Tensor], meta: dict[str, Any]) -> object:
    return {"epoch": 200, "learning_rate": 1e-6, "state_dict": state, "optimizer": {}}


def check(case: Case) -> bool:
    """True where the case is of metrics alone, which then hold."""
    if case.path.stem not in ("metrics-a", "metrics-b"):
        return False
    for name, value in _metrics(case.expected).items():
        largest, allowed = difference(case, name, value.numpy())
        assert largest <= allowed, f"{name}: {largest} > {allowed}"
    return True


@torch.no_grad()
def arrays(case: Case, predictor: Any) -> dict[str, np.ndarray]:
    config = case.meta["config"]
    found = predictor.model.config
    assert {name: getattr(found, name) for name in architecture(case.meta)} == architecture(case.meta)
    if "points" in case.expected:
        return _queries(case, predictor)
    factor = config["superes_factor"]
    model = predictor.model
    with (
        tap(model, {"maps": "backbone", "raw": "head"}) as taken,
        tap_inputs(model, {"head": "head"}) as given,
    ):
        output = predictor(case.pair())
    maps = taken["maps"][0]
    if factor > 1:
        taken["raw"] = _padded_grid(case, model, factor)
        output = superresolved(output, factor)
    ours = {name: maps[int(name[-1])][0] for name in case.expected if name.startswith("feature_")}
    ours |= _parameters(output, config["maxdisp"], factor)
    ours = {name: _subsampled(case, name, value) for name, value in ours.items()}
    ours["disparity"] = output.disparity / factor
    ours["sampled"] = given["head"][0][0][:64].T
    raw = torch.cat(taken["raw"])
    if factor == 1:
        # A predictor without uncertainty of its own also runs the mirrored pair: the first run counts.
        number = math.prod(case.pair().map(lambda image: model.padding.pad(image[None])).size)
        raw = raw[: min(number, 200_000) : 97]
    ours["mlp_output"] = raw.T
    return {name: tensor.numpy() for name, tensor in ours.items()}


def _parameters(output: MixtureOutput, maximum: float, factor: float) -> dict[str, Tensor]:
    """The distribution's parameters as the release names them: locations in pixels, the rest in its unit."""
    if output.b is None:
        return {}
    assert output.mu is not None
    unit = maximum * factor
    mu, b = output.mu / unit, output.b / unit
    if output.pi is None:
        return {"var": b[0]}
    entropy = differential_entropy(
        output.pi[::2, ::2], mu[:, ::2, ::2].movedim(0, -1), b[:, ::2, ::2].movedim(0, -1)
    )
    return {
        "mu0": mu[0] * maximum,
        "mu1": mu[1] * maximum,
        "sigma0": b[0],
        "sigma1": b[1],
        "pi0": output.pi,
        "uncertainty": entropy.repeat_interleave(2, 0).repeat_interleave(2, 1),
    }


def _subsampled(case: Case, name: str, value: Tensor) -> Tensor:
    """As `meta.slices` tells of this array."""
    rule = case.meta.get("slices", {}).get(name, "")
    channels = re.search(r"channels 0::(\d+)", rule)
    pixels = re.search(r"rows and columns 0::(\d+)", rule)
    value = value[:: int(channels[1])] if channels else value
    return value[..., :: int(pixels[1]), :: int(pixels[1])] if pixels else value


def _padded_grid(case: Case, model: Any, factor: int) -> list[Tensor]:
    """The head's outputs at every 97th of the first 200 000 pixels of the padded, enlarged image."""
    pair = case.pair().map(lambda image: model.padding.pad(image[None]))
    field = model.describe(pair.left, pair.right)
    height, width = (factor * side for side in pair.size)
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    with tap(model, {"raw": "head"}) as taken:
        field.query(torch.stack([x, y], -1).flatten(0, 1)[None, :200_000:97], scale=factor)
    return taken["raw"]


def _queries(case: Case, predictor: Any) -> dict[str, np.ndarray]:
    """At given points of the padded frame, and the training query with its loss."""
    expected, config = case.expected, case.meta["config"]
    maximum, factor = config["maxdisp"], config["superes_factor"]
    model = predictor.model
    pair = case.pair().map(lambda image: model.padding.pad(image[None]))
    field = model.describe(pair.left, pair.right).map(lambda tensor: tensor[0])
    points, trained = (torch.from_numpy(expected[name]) for name in ("points", "train_points"))
    at_points = field.query(points.T, scale=factor)
    enlarged = 1 / case.meta["aspect_ratio"]
    at_labels = field.query(trained.T, scale=enlarged)
    labels = torch.from_numpy(expected["labels"])
    loss = negative_log_likelihood(at_labels, labels * enlarged, unit=maximum * enlarged).mean()
    ours = {
        "disparity": predictor(case.pair()).disparity,
        "points": points,
        "train_points": trained,
        "labels": labels,
        "values": at_points.disparity / factor,
        "train_values": at_labels.disparity / enlarged,
        "loss": loss,
        **_point_parameters(at_points, maximum * factor, maximum),
    }
    return {name: tensor.numpy() for name, tensor in ours.items()}


def _point_parameters(mixture: Mixture, unit: float, maximum: float) -> dict[str, Tensor]:
    if mixture.b is None:
        return {}
    if mixture.pi is None:
        return {"var": mixture.b[..., 0] / unit}
    return {
        "mu0": mixture.mu[..., 0] / unit * maximum,
        "mu1": mixture.mu[..., 1] / unit * maximum,
        "sigma0": mixture.b[..., 0] / unit,
        "sigma1": mixture.b[..., 1] / unit,
        "pi0": mixture.pi,
    }


def _metrics(expected: dict[str, np.ndarray]) -> dict[str, Tensor]:
    given = {name: torch.from_numpy(np.asarray(value)) for name, value in expected.items()}
    truth, disparity, mask = given["gt"], given["pred"], given["mask"] > 0
    mu = torch.stack([given["entropy_mu0"], given["entropy_mu1"]], -1)
    b = torch.stack([given["entropy_sigma0"], given["entropy_sigma1"]], -1)
    ours = {
        "epe": epe(disparity, truth, mask),
        "entropy": differential_entropy(given["entropy_pi0"], mu, b),
        "boundaries_th4": boundaries(truth, threshold=4.0),
    }
    for threshold in (1.0, 2.0, 3.0):
        ours[f"bad{threshold:.0f}"] = 100 * bad(disparity, truth, mask, threshold=threshold)
    for dilation in (0, 2, 10):
        edges = boundaries(truth, dilation=dilation)
        ours[f"boundaries_dilation{dilation}"] = edges
        ours[f"see_dilation{dilation}"] = see(disparity, truth, mask, edges=edges)
    for radius in (1, 2):
        ours[f"soft_edge_error_radius{radius}"] = soft_edge_error(disparity, truth, radius=radius)
    return ours
