"""The network to export, and what its file will say of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stereopsis.io.weights import read_header
from stereopsis.models.base import MonoModel, StereoModel
from stereopsis.models.registry import create, entry, list_models, name_of
from stereopsis.prediction.certainty import Certainty
from stereopsis.prediction.loading import load_model, shipped_weights, stored_certainty
from stereopsis.prediction.provenance import file_digest


@dataclass(frozen=True)
class Original:
    """A network in evaluation mode; trained is False where its weights are random; certainty: what its
    confidence means, of cues that an exported file has too."""

    model: StereoModel[Any, Any]
    network: str
    licence: str
    provenance: str
    trained: bool
    certainty: Certainty | None = None

    @property
    def config(self) -> dict[str, object]:
        return dataclasses.asdict(self.model.config)


def original(name: str | Path, *, weights: str | Path | None = None, **options: Any) -> Original:
    """The network that `load` would run: by name with its shipped or given weights, or by file.

    Raises ValueError or OSError with what to do.
    """
    path = Path(weights) if weights is not None else None
    if path is None:
        path = shipped_weights(str(name)) if str(name) in list_models() else Path(name)
    if weights is None and not path.suffix:
        entry(str(name))  # raises, naming the nearest
    model = load_model(path, **options)
    if isinstance(model, MonoModel):
        raise ValueError(f"{path} holds a monocular network: stereo networks are exported")
    network = name_of(model)
    if weights is not None and type(model) is not entry(str(name)).network:
        raise ValueError(f"{path} holds {network}, not {name}: name that")
    header = read_header(path) if path.suffix == ".safetensors" else None
    certainty = stored_certainty(path)
    card = entry(network).card
    return Original(
        model=model.eval(),
        network=network if header is None else header.network,
        licence=card.weights_licence if header is None else header.licence,
        provenance=(header and header.provenance) or f"{path.name}, sha256 {file_digest(path)}",
        trained=True,
        certainty=certainty if certainty is not None and certainty.of_any_output else None,
    )


def random_original(name: str, *, seed: int = 0, **options: Any) -> Original:
    """The network of that name with random weights, whose batch norms know the inputs of one random pair.

    Good for speed and for the equality of two runs, never for accuracy.
    """
    torch.manual_seed(seed)
    model = create(name, **options)
    if isinstance(model, MonoModel):
        raise ValueError(f"{name} is monocular: stereo networks are exported")
    _settle_norms(model, seed)
    return Original(
        model=model.eval(),
        network=name,
        licence=entry(name).card.code_licence,
        provenance=f"random weights, seed {seed}",
        trained=False,
    )


@torch.no_grad()
def _settle_norms(model: StereoModel[Any, Any], seed: int) -> None:
    """Untrained batch norms pass on what deep networks let explode or vanish; one pair settles them."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d)]
    momenta = [norm.momentum for norm in norms]
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, 3, 16, 33, generator=generator)
    wide = nn.functional.interpolate(coarse, (128, 264), mode="bilinear")
    left, right = (model.padding.pad(wide[..., start : start + 256]) for start in (0, 8))
    for norm in norms:
        norm.momentum = 1.0
    model.train()(left, right)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
