"""Depth Anything V2's fixtures: one image each, the left of the pair."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from parity.harness import Case, tap
from stereopsis.layers.dpt import enlarge
from stereopsis.models.depth_anything_v2 import DepthAnythingV2
from stereopsis.models.registry import name_of

NAMES = {
    "vits": "depth-anything-v2-small",
    "vitb": "depth-anything-v2-base",
    "vitl": "depth-anything-v2-large",
}


def options(meta: dict[str, Any]) -> dict[str, object]:
    """Without an input size the fixture's image was not resized: its own shorter side is that size."""
    return {"input_size": meta["input_size"] or min(meta["height"], meta["width"])}


def open_model(case: Case, folder: Path) -> DepthAnythingV2:
    from stereopsis.prediction.loading import load_model

    path = folder / "published.pth"
    case.write_checkpoint(path)
    model = load_model(path, **case.options)
    path.unlink()
    assert isinstance(model, DepthAnythingV2)
    assert name_of(model) == case.name
    return model.eval()


@torch.no_grad()
def arrays(case: Case, model: DepthAnythingV2) -> dict[str, np.ndarray]:
    image = case.pair().left[None]
    modules = {
        "block_0": "encoder.blocks.0",
        "encoder": "encoder",
        "neck": "head.neck",
        "head": "head",
    }
    with tap(model, modules) as taken:
        output = model(image)
    prepared = model.prepare(image)
    neck = taken["neck"][0]
    features = {f"encoder_feature_{k}": _tokens(x) for k, x in enumerate(taken["encoder"][0], start=1)}
    found = {
        "disparity": output.inverse_depth[0].numpy(),
        "disparity_network_size": taken["head"][0][0, 0].numpy(),
        "network_input": prepared[0, :, ::4, ::4].numpy(),
        "tokens": model.encoder.embed(prepared)[0, :, ::24].numpy(),
        "block_0": taken["block_0"][0][0, :, ::24].numpy(),
        "path_4": enlarge(neck[3], neck[2].shape[-2:])[0, ::8].numpy(),
        "path_1": F.interpolate(neck[0], scale_factor=2, mode="bilinear", align_corners=True)[
            0, ::8, ::2, ::2
        ].numpy(),
        **features,
    }
    if "disparity_huggingface" in case.expected:
        other = DepthAnythingV2(dataclasses.replace(model.config, position_offset=0.0)).eval()
        other.load_state_dict(model.state_dict())
        found["disparity_huggingface"] = other.head(other.encoder(prepared))[0, 0].numpy()
    return found


def _tokens(feature: Tensor) -> np.ndarray:
    return feature[0].flatten(1).T[:, ::24].numpy()
