"""Who is measured: a predictor with its name and what it was trained on, from what the user types."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stereopsis.evaluation.protocols import Protocol
from stereopsis.evaluation.run import ByScene
from stereopsis.io.disparity import read_disparity
from stereopsis.io.files import existing_file, existing_folder
from stereopsis.io.weights import read_header
from stereopsis.prediction.classical import RecordedSGBM
from stereopsis.prediction.loading import load
from stereopsis.prediction.provenance import file_digest, weights_file
from stereopsis.structures import Predictor, StereoOutput, StereoPair

_SUFFIXES = (".pfm", ".npy", ".npz", ".exr", ".png")


@dataclass(frozen=True)
class Contestant:
    """A predictor and its name; trained_on: the splits that its weights say, `dataset/split` or `dataset`;
    digest: SHA-256 of the file that it was read from, empty where there is none."""

    name: str
    predictor: Predictor | ByScene
    trained_on: tuple[str, ...] = ()
    digest: str = ""


@dataclass(frozen=True)
class DisparityFolder:
    """Disparities that another program wrote: `<scene>.pfm` (npy, npz, exr, KITTI's png), or
    `<scene>/disparity.pfm`, or a single such file in `<scene>/`. Unknown pixels are unanswered."""

    folder: Path

    def for_scene(self, name: str) -> Predictor:
        path = self.find(name)

        def recorded(pair: StereoPair) -> StereoOutput:
            disparity, valid = read_disparity(path)
            if disparity.shape != pair.size:
                raise ValueError(
                    f"{path} is {disparity.shape[1]}x{disparity.shape[0]}, "
                    f"its image {pair.size[1]}x{pair.size[0]}: they must be equal"
                )
            return StereoOutput(torch.from_numpy(np.where(valid, disparity, np.float32(np.inf))))

        return recorded

    def find(self, name: str) -> Path:
        """The file of a scene; FileNotFoundError where there is none."""
        for stem in (name, f"{name}/disparity", f"{name}/disp0"):
            for suffix in _SUFFIXES:
                path = self.folder / f"{stem}{suffix}"
                if path.is_file():
                    return path
        inside = self.folder / name
        single = [p for p in inside.glob("*") if p.suffix in _SUFFIXES[:-1]] if inside.is_dir() else []
        if len(single) == 1:
            return single[0]
        raise FileNotFoundError(f"{self.folder} has no disparity of {name}: {name}.pfm was expected")


@dataclass(frozen=True)
class RecordedRanges:
    """`sgbm-oracle`: each scene's search range from a recorded baseline, for comparison only."""

    record: Path

    def for_scene(self, name: str) -> Predictor:
        return RecordedSGBM.of_scene(name, self.record)


def contestant(
    spec: str, *, weights: Path | None = None, record: Path | None = None, **options: Any
) -> Contestant:
    """What `spec` names: `sgbm-oracle`, a folder of disparities, or whatever `stereopsis.load` takes."""
    if spec == "sgbm-oracle":
        if weights is not None or options:
            raise ValueError("sgbm-oracle has neither weights nor options: its settings are the record's")
        return Contestant(spec, RecordedRanges(existing_file(record or _record(), "a recorded baseline")))
    if Path(spec).is_dir():
        if weights is not None or options:
            raise ValueError(f"{spec} is a folder of disparities: it takes neither weights nor options")
        return Contestant(spec, DisparityFolder(existing_folder(spec)))
    settings = [f"{key}={value}" for key, value in sorted(options.items())]
    name = " ".join([spec, *([str(weights)] if weights else []), *settings])
    predictor = load(spec, weights=weights, **options)
    path = weights_file(spec, weights)
    return Contestant(name, predictor, _trained_on(path), "" if path is None else file_digest(path))


def leaks(trained_on: Sequence[str], protocol: Protocol) -> list[str]:
    """The parts of the protocol whose images the weights were trained on."""
    found = []
    for part in protocol.parts:
        measured = (part.label, *part.contains)
        if any(_overlap(trained, label) for trained in trained_on for label in measured):
            found.append(part.label)
    return found


def leak_note(contestant: Contestant, protocol: Protocol, *, allowed: bool) -> tuple[str, ...]:
    """A note on what the weights had seen of the protocol; ValueError where that is not allowed."""
    found = leaks(contestant.trained_on, protocol)
    if not found:
        return ()
    seen = f"{contestant.name} was trained on images of {', '.join(found)}"
    if not allowed:
        raise ValueError(f"{seen}: its figures there mean little; --allow-leak measures all the same")
    return (f"LEAK: {seen}",)


def _overlap(first: str, second: str) -> bool:
    """True where one names the other, or the whole data set of the other."""
    return first == second or first == second.partition("/")[0] or first.partition("/")[0] == second


def _trained_on(path: Path | None) -> tuple[str, ...]:
    if path is None or path.suffix != ".safetensors":
        return ()
    header = read_header(path)
    splits = header.training.get("splits", ()) if header else ()
    if not isinstance(splits, list | tuple):
        raise ValueError(f"{path}: its header's training splits are no list")
    return tuple(str(split) for split in splits)


def _record() -> Path:
    base = os.environ.get("STEREOPSIS_DATA")
    if not base:
        raise ValueError("sgbm-oracle needs its recorded baseline: give --record, or set STEREOPSIS_DATA")
    return Path(base) / "sgbm_baseline.json"
