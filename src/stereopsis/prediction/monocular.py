"""A monocular network as a predictor of relative depth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from stereopsis.models.base import MonoModel
from stereopsis.models.registry import entry
from stereopsis.prediction.loading import check_named, load_model, shipped_weights
from stereopsis.prediction.network import available_device
from stereopsis.structures import MonoOutput

LONGEST = 8
"""Times the shorter side. Networks enlarge that to hundreds of pixels, and their cost grows with the square
of the longer one."""


class MonocularPredictor:
    """A monocular network in evaluation mode: RGB images in [0, 1] to maps on the CPU.

    Of any size whose sides differ at most 8 times; ValueError for others.
    """

    def __init__(self, model: MonoModel[Any], *, device: str | torch.device = "cpu") -> None:
        self.device = available_device(device)
        self.model = model.to(self.device).eval()

    @torch.inference_mode()
    def __call__(self, image: Float[Tensor, "*b 3 h w"]) -> MonoOutput:
        height, width = image.shape[-2:]
        if max(height, width) > LONGEST * min(height, width):
            raise ValueError(
                f"an image of {width}x{height} is too long for relative depth: cut it so that its sides "
                f"differ at most {LONGEST} times"
            )
        batch = image.reshape(-1, *image.shape[-3:]).to(self.device)
        depth = self.model(batch).inverse_depth
        return MonoOutput(depth.reshape(*image.shape[:-3], *depth.shape[-2:]).to("cpu", torch.float32))


def load_monocular(
    model: str | Path, *, weights: str | Path | None = None, device: str = "cpu", **options: Any
) -> MonocularPredictor:
    """A predictor of relative depth: a monocular network by name, or the one that a file holds.

    As `load`, for networks such as depth-anything-v2-small; files are the published `.pth`, Hugging Face's
    `.safetensors`, or ours. Raises ValueError or OSError with what to do.
    """
    name = str(model)
    by_path = weights is None and (Path(name).suffix != "" or Path(name).exists())
    if not by_path and not issubclass(entry(name).network, MonoModel):
        raise ValueError(f"{name} needs a pair: relative depth of one image is for depth-anything-v2-...")
    path = Path(name) if by_path else Path(weights) if weights is not None else shipped_weights(name)
    loaded = load_model(path, **options)
    if not by_path and weights is not None:
        check_named(path, loaded, name)
    if not isinstance(loaded, MonoModel):
        raise ValueError(f"{path} holds {type(loaded).__name__}, which needs a pair, not one image")
    return MonocularPredictor(loaded, device=device)
