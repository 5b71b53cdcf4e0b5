"""STTR's fixtures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from parity.harness import Case, tap, tap_inputs
from stereopsis.layers.relative_attention import relative_positions
from stereopsis.layers.transport import transport, with_dustbins

NAMES = {"sttr": "sttr"}


def options(meta: dict[str, Any]) -> dict[str, object]:
    return {"downsample": meta["downsample"]}


def nest(state: dict[str, Tensor], meta: dict[str, Any]) -> object:
    """A training checkpoint; the first releases hold running statistics of the norms too."""
    old = {
        key.replace("num_batches_tracked", name): torch.zeros(1)
        for key in state
        if key.endswith("num_batches_tracked")
        for name in ("running_mean", "running_var")
    }
    return {"epoch": 15, "state_dict": {**state, **old}, "best_pred": 0.4}


@torch.no_grad()
def arrays(case: Case, predictor: Any) -> dict[str, np.ndarray]:
    model, pair = predictor.model, case.pair()
    modules = {
        "eighth": "backbone.eighth",
        "backbone": "backbone",
        "tokens": "tokenizer",
        "self": "transformer.self_layers.0",
        "cross": "transformer.cross_layers.0",
        "attention": "transformer",
    }
    with tap(model, modules) as taken, tap_inputs(model, {"matched": "context_adjustment"}) as given:
        output = predictor(pair)
    attention = taken["attention"][0]
    dustbins = with_dustbins(attention, model.dustbin)
    plan = transport(dustbins, iterations=model.config.sinkhorn_iterations)
    columns = attention.shape[-1]
    scale = case.meta["width"] / columns
    matched = given["matched"][0][0][0]
    if case.meta["downsample"] == 3:
        matched = matched[1::3, 1::3]
    return {
        "disparity": output.disparity.numpy(),
        "occlusion": output.occlusion.numpy(),
        "disparity_raw": matched.numpy(),
        "backbone_8x": taken["eighth"][0][0, ::16].numpy(),
        "spp_16x": taken["backbone"][0][2][0, ::8].numpy(),
        "tokens_left": taken["tokens"][0][0, ::16, 1::6, 1::6].numpy(),
        "position_encoding": relative_positions(columns, 128, scale=scale, like=attention)[::4, ::8].numpy(),
        "self_attention_1": _columns_rows([block.chunk(2) for block in taken["self"]]),
        "cross_attention_1": _columns_rows(taken["cross"]),
        "attention_raw": attention[0, ::8].masked_fill(attention[0, ::8].isinf(), 0).numpy(),
        "transport": plan[0, ::8].numpy(),
    }


def _columns_rows(views: list[tuple[Tensor, Tensor]]) -> np.ndarray:
    """Blocks of [rows, columns, c] of each view as the fixture's [columns, rows of both, c], thinned out."""
    tokens = torch.cat([torch.cat(blocks) for blocks in zip(*views, strict=True)])
    return tokens.transpose(0, 1)[::4, ::8, ::16].numpy()
