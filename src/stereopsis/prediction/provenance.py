"""What a predictor is made of: the file behind it, the file's digest, its licence and origin."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from stereopsis.io.weights import read_header
from stereopsis.models.registry import entry, list_models
from stereopsis.prediction.exported import ExportedPredictor
from stereopsis.prediction.loading import CLASSICAL, shipped_weights
from stereopsis.structures import Predictor

UNSTATED = "not stated"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """name: as asked for; weights: the file's name; digest: its SHA-256 (both empty without a file)."""

    name: str
    weights: str = ""
    digest: str = ""
    licence: str = ""
    origin: str = ""


def provenance(predictor: Predictor, model: str | Path, *, weights: str | Path | None = None) -> Provenance:
    """Of a predictor that `load(model, weights=weights)` gave."""
    name = str(model)
    if name in CLASSICAL and _shipped(name) is None:
        return Provenance(name=name, licence="Apache-2.0 (OpenCV)", origin="no weights")
    path = weights_file(name, None if weights is None else Path(weights)) or shipped_weights(name)
    licence, origin = "", ""
    if isinstance(predictor, ExportedPredictor):
        licence, origin = predictor.header.licence, predictor.header.provenance
    elif path.suffix == ".safetensors":
        header = read_header(path)
        licence, origin = (header.licence, header.provenance) if header else ("", "")
    if not licence and name in list_models():
        licence = entry(name).card.weights_licence
    return Provenance(
        name=name,
        weights=path.name,
        digest=file_digest(path),
        licence=licence or UNSTATED,
        origin=origin or UNSTATED,
    )


def weights_file(model: str, weights: Path | None) -> Path | None:
    """The file whose tensors run: the one given, or the one that comes with the package; None without."""
    candidates = [weights] if weights is not None else [_shipped(model), Path(model)]
    return next((path for path in candidates if path is not None and path.is_file()), None)


def file_digest(path: Path) -> str:
    """SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _shipped(model: str) -> Path | None:
    try:
        return shipped_weights(model)
    except ValueError:
        return None
