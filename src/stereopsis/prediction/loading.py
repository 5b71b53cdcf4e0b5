"""A predictor from a name or a file, and one pair's output in one call."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import Tensor

from stereopsis.io.files import read_json
from stereopsis.io.foreign import read_checkpoint
from stereopsis.io.weights import WeightsHeader, read_header, read_weights
from stereopsis.models.base import MonoModel, StereoModel, load_strictly, replace_config
from stereopsis.models.registry import create, entry, list_models, model_from_official, name_of
from stereopsis.prediction.certainty import Certainty
from stereopsis.prediction.classical import SGBM
from stereopsis.prediction.exported import ExportedPredictor
from stereopsis.prediction.network import NetworkPredictor
from stereopsis.prediction.refined import RefinedSGBM
from stereopsis.prediction.rescaled import EnlargingPredictor
from stereopsis.prediction.runtimes import SUFFIXES, bfloat16_supported, installation, installed
from stereopsis.prediction.started import started
from stereopsis.structures import Predictor, StereoOutput, StereoPair

DEFAULT = "sgbm-refined"
"""What `predict` uses where nothing is named: the lowest errors among what comes with the package."""

_WEIGHTS = Path(__file__).resolve().parents[1] / "weights"
_QUICKEST = {"openvino": ".xml", "onnx": ".onnx"}
"""Runtimes of exported files, the quicker first, as measured with `stereopsis bench`."""

_log = logging.getLogger("stereopsis")
_RUN_OPTIONS = ("device", "precision", "batch_size", "both", "compile")


def predict(
    left: str | Path | np.ndarray | Tensor,
    right: str | Path | np.ndarray | Tensor,
    *,
    model: str | Path | Predictor = DEFAULT,
    **options: Any,
) -> StereoOutput:
    """Disparity (pixels) and confidence (0..1) of a rectified pair: two files, or two arrays or tensors.

    `model` and `options` as for `load`. Raises ValueError or OSError with what to do.
    """
    predictor = load(model, **options) if isinstance(model, str | Path) else model
    if isinstance(left, str | Path) and isinstance(right, str | Path):
        return predictor(StereoPair.open(left, right))
    if isinstance(left, str | Path) or isinstance(right, str | Path):
        raise ValueError("give both images as files or both as arrays")
    return predictor(StereoPair.from_arrays(left, right))


def load(model: str | Path, *, weights: str | Path | None = None, **options: Any) -> Predictor:
    """A predictor: a classical matcher by name, a network by name, or the network that a file holds.

    model: a name of `stereopsis models`, or a path to `.safetensors` or a published `.pth`, `.pth.tar`,
    `.tar`, `.pt`, `.ckpt`, whose architecture is found from its tensors, or to an exported `.onnx` or
    `.xml`. weights: a file for a network given by name, which it must hold. options: device, precision,
    batch_size, both, compile (see `NetworkPredictor`), and any field of the network's config (iterations,
    max_disparity, stop_below, ...); of an exported file those of `ExportedPredictor`, as its config is fixed.
    start: for recurrent networks "sgbm", "coarse" or "previous", what their updates start from (`started`).

    runtime: of a network by name on the CPU, as it was published: "auto" takes the quickest that is
    installed among the exports that come with the package and were found equal ("openvino", "onnx"), else
    "torch"; the predictor's `runtime` says which.
    Raises ValueError or OSError with what to do.
    """
    name = str(model)
    if name in CLASSICAL:
        if weights is not None:
            raise ValueError(f"{name} has no weights: leave {weights} out")
        return CLASSICAL[name](**options)
    if Path(name).suffix in SUFFIXES:
        return _exported(Path(name), weights, options)
    runtime = options.pop("runtime", "auto")
    if runtime not in ("torch", *_QUICKEST) and runtime != "auto":
        raise ValueError(f"runtime must be auto, torch, {' or '.join(_QUICKEST)}, not {runtime!r}")
    if name in list_models() and weights is None and runtime != "torch":
        exported = _quickest(name, runtime, options)
        if exported is not None:
            return exported
    start = options.pop("start", None)
    run = {key: options.pop(key) for key in _RUN_OPTIONS if key in options}
    if weights is not None:
        entry(name)
        path = Path(weights)
    elif name in list_models():
        path = shipped_weights(name)
    elif Path(name).suffix or Path(name).exists():
        path = Path(name)
    else:
        entry(name)  # raises, naming the nearest
        raise AssertionError(name)
    loaded = _load_model(path, options)
    if weights is not None:
        check_named(path, loaded, name)
    if isinstance(loaded, MonoModel):
        raise ValueError(f"{name} is monocular: it gives relative depth of one image, not disparity")
    network = NetworkPredictor(loaded, certainty=stored_certainty(path), **run)
    return network if start is None else started(network, start)


def stored_certainty(path: Path) -> Certainty | None:
    """What a weights file says that its network's confidence means; None where it says nothing."""
    header = read_header(path) if path.suffix == ".safetensors" else None
    return Certainty.from_plain(header.certainty) if header and header.certainty else None


def check_named(path: Path, loaded: StereoModel[Any, Any] | MonoModel[Any], name: str) -> None:
    """ValueError where a file holds another network, or another variant, than the one that was named."""
    header = read_header(path) if path.suffix == ".safetensors" else None
    held = header.network if header else name_of(loaded)
    if held != name:
        raise ValueError(f"{path} holds {held}, not {name}: name that or no model")


def load_model(path: str | Path, **options: Any) -> StereoModel[Any, Any] | MonoModel[Any]:
    """The network (an `nn.Module`) that a weights file holds; options change fields of its config."""
    return _load_model(Path(path), options)


def _sgbm(**options: Any) -> Predictor:
    known = {field.name for field in dataclasses.fields(SGBM)} - {"certainty"}
    for key in options:
        if key not in known:
            raise ValueError(f"sgbm has no option {key!r}: its options are {', '.join(sorted(known))}")
    stored = _WEIGHTS / "sgbm.certainty.json"
    if not stored.exists() or {"left_right", "fill", "median"} & set(options):
        return SGBM(**options)  # what was fitted knows this program's own settings only
    return SGBM(**options, certainty=Certainty.from_plain(read_json(stored, "a certainty")))


def _refined(**options: Any) -> Predictor:
    known = ("max_disparity", "device", "runtime", "precision")
    for key in options:
        if key not in known:
            raise ValueError(f"sgbm-refined has no option {key!r}: its options are {', '.join(known)}")
    most = options.get("max_disparity")
    if most is not None:  # within the network's own limits; `RefinedSGBM` leaves out what is beyond
        options["max_disparity"] = min(max(most, 64), 768)
    network = cast(EnlargingPredictor, load(_INSIDE["sgbm-refined"], **options))
    return RefinedSGBM(matcher=_sgbm(max_disparity=most), network=network, max_disparity=most)


def _exported(path: Path, weights: str | Path | None, options: dict[str, Any]) -> Predictor:
    if weights is not None:
        raise ValueError(f"{path} holds its own weights: leave {weights} out")
    known = ("device", "precision", "threads", "batch_size", "both")
    for key in options:
        if key not in known:
            raise ValueError(
                f"{path} is exported, its {key} cannot be chosen any more: options are {', '.join(known)}"
            )
    return ExportedPredictor(path, **options)


def _quickest(name: str, runtime: str, options: dict[str, Any]) -> Predictor | None:
    """The network's export that comes with the package, if it was found equal, by the quickest runtime here.

    OpenVINO computes in bfloat16 where the processor does and where that was found good enough, else in
    eight bits where such a file comes along and was found good enough. None where options ask for what
    an export cannot do. ValueError where a runtime was named in vain.
    """
    asked = set(options) - {"batch_size", "both", "threads", "precision"}
    plain = not asked or (asked == {"device"} and str(options["device"]) == "cpu")
    for known, suffix in _QUICKEST.items():
        path = _WEIGHTS / f"{name}{suffix}"
        if runtime not in ("auto", known) or not plain or not path.exists():
            continue
        if not installed(suffix):
            _log.warning("%s runs quicker by %s: %s", name, known, installation(suffix))
            continue
        found = ExportedPredictor(path, **options)
        if suffix == ".xml" and "precision" not in options:
            found = _in_fewer_bits(found, options)
        if found.header.parity:
            _log.info("%s runs by %s", name, found.runtime)
            return found
    if runtime != "auto":
        raise ValueError(
            f"no {runtime} export of {name} with these options is here: "
            f"stereopsis export {name} --to {runtime} makes one, and its file is loaded by path"
        )
    return None


def _in_fewer_bits(whole: ExportedPredictor, options: dict[str, Any]) -> ExportedPredictor:
    """The same export as this processor runs it quickest, of what was found good enough."""
    if bfloat16_supported():
        proven = "bf16" in whole.header.parity
        return ExportedPredictor(whole.path, **options, precision="bfloat16") if proven else whole
    path = whole.path.with_name(f"{whole.path.stem}-int8.xml")
    if not path.exists():
        return whole
    found = ExportedPredictor(path, **options)
    return found if "int8" in found.header.parity else whole


CLASSICAL: dict[str, Callable[..., Predictor]] = {"sgbm": _sgbm, "sgbm-refined": _refined}
"""Predictors without weights of their own, by name."""
_INSIDE = {"sgbm-refined": "fast"}
"""The network whose weights such a predictor uses."""


def shipped_weights(name: str) -> Path:
    """The weights of that network that come with the package; ValueError where there are none."""
    path = _WEIGHTS / f"{_INSIDE.get(name, name)}.safetensors"
    if not path.exists():
        raise ValueError(
            f"no weights for {name} come with the package: give its published file, "
            f"stereopsis.load(PATH) or --weights PATH (stereopsis models says where it is published)"
        )
    return path


def _load_model(path: Path, options: dict[str, Any]) -> StereoModel[Any, Any] | MonoModel[Any]:
    try:
        if path.suffix == ".safetensors":
            state, header = read_weights(path)
            if header is not None:
                return _from_header(state, header, options)
            return model_from_official(state, **options)
        return model_from_official(read_checkpoint(path), **options)
    except ValueError as error:
        message = str(error)
        raise ValueError(message if str(path) in message else f"{path}: {message}") from error


def _from_header(
    state: dict[str, Tensor], header: WeightsHeader, options: dict[str, Any]
) -> StereoModel[Any, Any] | MonoModel[Any]:
    config = replace_config(entry(header.network).config, header.config, header.network)
    config = replace_config(config, options, header.network)
    model = create(header.network, **{f.name: getattr(config, f.name) for f in dataclasses.fields(config)})
    load_strictly(model, state, header.network)
    return model
