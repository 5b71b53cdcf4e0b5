"""Stereopsis: depth from two rectified images.

`predict("left.png", "right.png")` gives disparity and confidence with the default predictor; `load` opens
any other by name or file. Everything here is imported when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stereopsis.models.registry import create as create
    from stereopsis.models.registry import list_models as list_models
    from stereopsis.prediction.loading import load as load
    from stereopsis.prediction.loading import predict as predict
    from stereopsis.structures import Calibration as Calibration
    from stereopsis.structures import FusedOutput as FusedOutput
    from stereopsis.structures import IterativeOutput as IterativeOutput
    from stereopsis.structures import MixtureOutput as MixtureOutput
    from stereopsis.structures import Predictor as Predictor
    from stereopsis.structures import StereoOutput as StereoOutput
    from stereopsis.structures import StereoPair as StereoPair
    from stereopsis.structures import StereoSample as StereoSample
    from stereopsis.structures import VolumeOutput as VolumeOutput

__version__ = "0.1.0"

_homes = {
    "create": "stereopsis.models.registry",
    "list_models": "stereopsis.models.registry",
    "load": "stereopsis.prediction.loading",
    "predict": "stereopsis.prediction.loading",
    **dict.fromkeys(
        (
            "Calibration",
            "FusedOutput",
            "IterativeOutput",
            "MixtureOutput",
            "Predictor",
            "StereoOutput",
            "StereoPair",
            "StereoSample",
            "VolumeOutput",
        ),
        "stereopsis.structures",
    ),
}

__all__ = sorted(_homes)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _homes:
        raise AttributeError(f"module 'stereopsis' has no attribute {name!r}")
    return getattr(importlib.import_module(_homes[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
