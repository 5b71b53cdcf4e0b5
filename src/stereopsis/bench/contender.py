"""What is measured: a predictor by name or file, how it runs, and how it is built in a process of its own."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stereopsis.bench.reference import REFERENCES
from stereopsis.models.base import MonoModel, StereoModel
from stereopsis.models.registry import create, entry, list_models
from stereopsis.prediction.loading import CLASSICAL, load, shipped_weights
from stereopsis.prediction.network import NetworkPredictor
from stereopsis.prediction.runtimes import SUFFIXES
from stereopsis.structures import Predictor


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One row of a bench.

    name: shown; predictor: what `load` takes, or a reference row's name; runtime: "torch", "onnx", ...
    as shown; options: of `load`; random: a network's weights are random where none come with it.
    """

    name: str
    predictor: str
    runtime: str = "torch"
    options: Mapping[str, Any] = field(default_factory=dict)
    random: bool = False

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Contender:
        return cls(**json.loads(text))

    def build(self) -> Predictor:
        """The predictor; ValueError or OSError with what to do."""
        if self.predictor in REFERENCES:
            return REFERENCES[self.predictor]()
        if not self.random:
            return load(self.predictor, **self.options)
        options = dict(self.options)
        run = {key: options.pop(key) for key in ("device", "precision", "both", "compile") if key in options}
        model = create(self.predictor, **options)
        if isinstance(model, MonoModel):
            raise ValueError(f"{self.predictor} is monocular: stereo predictors are measured")
        return NetworkPredictor(model, **run)


def contender(name: str, **options: Any) -> Contender:
    """By a name of `stereopsis models`, a reference row's, `sgbm`, or a weights or exported file.

    A network whose weights do not come with the package is measured with random ones, which take as long.
    Raises ValueError or OSError with what to do.
    """
    if name in REFERENCES or name in CLASSICAL:
        return Contender(name=name, predictor=name, runtime="OpenCV")
    if Path(name).suffix in SUFFIXES:
        runtime = {".onnx": "ONNX Runtime", ".xml": "OpenVINO"}[Path(name).suffix]
        return Contender(name=Path(name).stem, predictor=name, runtime=runtime, options=options)
    if name not in list_models():
        if not Path(name).suffix:
            entry(name)  # raises, naming the nearest
        return Contender(name=Path(name).stem, predictor=name, options=options)
    if not issubclass(entry(name).network, StereoModel):
        raise ValueError(f"{name} is monocular: stereo predictors are measured")
    return Contender(name=name, predictor=name, options=options, random=not _shipped(name))


def _shipped(name: str) -> bool:
    try:
        shipped_weights(name)
    except ValueError:
        return False
    return True
