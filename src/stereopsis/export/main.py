"""One export from network to proven file: converted, stored, run beside the original, judged, named."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stereopsis.export import onnx as as_onnx
from stereopsis.export import openvino as as_openvino
from stereopsis.export.onnx import OnnxModel, to_onnx
from stereopsis.export.openvino import OpenVinoModel, to_openvino
from stereopsis.export.original import Original
from stereopsis.export.parity import Judged, Parity, failures, measure_parity
from stereopsis.export.quantise import calibration_feeds, quantise_onnx, quantise_openvino
from stereopsis.io.atomic import check_target
from stereopsis.prediction.exported import ExportedPredictor
from stereopsis.prediction.header import Images, Storage
from stereopsis.prediction.network import NetworkPredictor
from stereopsis.prediction.runtimes import bfloat16_computed
from stereopsis.structures import StereoSample

Target = Literal["onnx", "openvino"]
SUFFIX: dict[Target, str] = {"onnx": ".onnx", "openvino": ".xml"}


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Of int8: how many rendered pairs, from which seed, at which (height, width) where any size is taken."""

    pairs: int = 16
    seed: int = 1
    size: tuple[int, int] = (384, 512)


@dataclass(frozen=True)
class Proof:
    """What one way of running the file gave: fp32, fp16 or int8 as stored, or bf16 arithmetic.

    failures: sentences, empty where within tolerance; judged is False where there was nothing to judge by.
    """

    precision: Judged
    parity: Parity
    failures: tuple[str, ...]
    judged: bool


def convert(
    original: Original,
    target: Target,
    *,
    precision: Storage = "fp32",
    size: tuple[int, int] | None = None,
    any_batch: bool = True,
    images: Images = "float32",
    calibration: Calibration | None = None,
) -> OnnxModel | OpenVinoModel:
    """The model in memory, not yet proven; arguments as of `to_onnx`."""
    model = to_onnx(original, size=size, any_batch=any_batch, images=images)
    return with_precision(model if target == "onnx" else to_openvino(model), precision, calibration)


def with_precision(
    model: OnnxModel | OpenVinoModel, precision: Storage, calibration: Calibration | None = None
) -> OnnxModel | OpenVinoModel:
    """An fp32 model stored or computing in another precision."""
    if precision == "fp32":
        return model
    if precision == "fp16":
        if isinstance(model, OnnxModel):
            return as_onnx.halve_storage(model)
        return as_openvino.halve_storage(model)
    chosen = calibration or Calibration()
    feeds = calibration_feeds(model.header, pairs=chosen.pairs, seed=chosen.seed, size=chosen.size)
    return quantise_onnx(model, feeds) if isinstance(model, OnnxModel) else quantise_openvino(model, feeds)


def write_proven(
    model: OnnxModel | OpenVinoModel,
    original: Original,
    path: str | Path,
    samples: Iterable[StereoSample],
) -> list[Proof]:
    """Run the file beside the original on these pairs; it appears at `path` only if nothing failed.

    What was judged goes into the file, with its figures. An OpenVINO file is also tried in bfloat16, judged
    where the weights are trained. Raises ValueError for int8 of random weights: nothing can judge it.
    """
    path = Path(path)
    target: Target = "onnx" if isinstance(model, OnnxModel) else "openvino"
    suffix = SUFFIX[target]
    check_export_target(path, target)
    if model.header.precision != "fp32" and not original.trained:
        raise ValueError(
            f"{model.header.precision} is judged by the accuracy it costs, and random weights have none: "
            f"give trained weights"
        )
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.") as folder:
        draft = Path(folder) / path.name
        model.write(draft)
        proofs = prove(draft, original, list(samples))
        if any(proof.failures for proof in proofs):
            return proofs
        figures = {proof.precision: plain(proof.parity) for proof in proofs if proof.judged}
        model.write(draft, dataclasses.replace(model.header, parity=figures))
        if suffix == ".xml":
            draft.with_suffix(".bin").replace(path.with_suffix(".bin"))
        draft.replace(path)
    return proofs


def prove(path: Path, original: Original, samples: Sequence[StereoSample]) -> list[Proof]:
    """The file as it is stored, and in bfloat16 where its runtime can compute so, if slowly."""
    stored = ExportedPredictor(path)
    proofs = [_proof(stored.header.precision, stored, original, samples)]
    if path.suffix == ".xml" and stored.header.precision != "int8" and bfloat16_computed():
        proofs.append(_proof("bf16", ExportedPredictor(path, precision="bfloat16"), original, samples))
    return proofs


def _proof(
    precision: Judged, exported: ExportedPredictor, original: Original, samples: Sequence[StereoSample]
) -> Proof:
    beside = NetworkPredictor(original.model, certainty=original.certainty)
    # A file of one size takes that size alone, so that nothing enlarges its images.
    predictor = beside if exported.header.size is None else beside.at_size
    parity = measure_parity(predictor, exported, samples, runtime=exported.runtime)
    judged = precision == "fp32" or (original.trained and not math.isnan(parity.epe_change))
    found = failures(parity, precision, trained=original.trained) if judged else []
    return Proof(precision, parity, tuple(found), judged)


def check_export_target(path: Path, target: Target) -> None:
    """ValueError where no such file can be written there, for programs that ask before their work."""
    if path.suffix != SUFFIX[target] and not path.is_dir():
        raise ValueError(f"{path}: this export is written as {SUFFIX[target]}, name a file that ends so")
    check_target(path)


def plain(parity: Parity) -> dict[str, object]:
    """Figures as JSON has them: None for what is not known."""

    def known(value: object) -> object:
        if isinstance(value, tuple):
            return [known(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {name: known(value) for name, value in dataclasses.asdict(parity).items()}
