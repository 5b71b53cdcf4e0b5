"""Published networks against ours: fixtures, deterministic checkpoints in the official nesting, comparison.

Each published network has a module `tests/parity/<folder with - as _>.py` that gives

    NAMES: dict[str, str]                       fixture variant -> registry name
    def options(meta) -> dict[str, object]      what a user passes to `load` beside the path
    def architecture(meta) -> dict[str, object] what loading must find by itself (default: nothing)
    def nest(state, meta) -> object             what the published file holds (default: the bare state)
    def arrays(case, predictor) -> dict         every array of the fixture, from our network
    def open_model(case, folder) -> Any         instead of `load`, where that does not take the network
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stereopsis.models.registry import create, entry, name_of
from stereopsis.structures import StereoPair


@dataclass(frozen=True)
class Case:
    """One fixture: what the published network gave, and what it was given."""

    path: Path

    @property
    def network(self) -> str:
        """The reference folder, e.g. "raft-stereo"."""
        return self.path.parents[1].name

    @property
    def module(self) -> ModuleType:
        return importlib.import_module(f"parity.{self.network.replace('-', '_')}")

    @cached_property
    def parity(self) -> ModuleType:
        """The reference's own `parity.py`: deterministic weights, input pairs, fixture files."""
        spec = importlib.util.spec_from_file_location("reference_parity", self.path.parents[2] / "parity.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules.setdefault(spec.name, importlib.util.module_from_spec(spec))
        spec.loader.exec_module(module)
        return module

    @cached_property
    def fixture(self) -> Any:
        return self.parity.Fixture.load(self.path)

    @property
    def meta(self) -> dict[str, Any]:
        return self.fixture.meta

    @property
    def expected(self) -> dict[str, np.ndarray]:
        return self.fixture.arrays

    @cached_property
    def manifest(self) -> dict[str, Any]:
        return json.loads((self.path.parents[1] / "manifest.json").read_text())

    @property
    def variant(self) -> dict[str, Any]:
        return self.manifest["variants"][self.meta["variant"]]

    @property
    def name(self) -> str:
        """The registry name that the fixture's variant must be recognised as."""
        return self.module.NAMES[self.meta["variant"]]

    @property
    def options(self) -> dict[str, object]:
        return self.module.options(self.meta)

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """The fixture's pair, uint8 [h w c]."""
        meta = self.meta
        left, right, _ = self.parity.stereo_pair(
            meta["height"], meta["width"], meta["channels"], meta["max_shift"], meta["seed"]
        )
        return left, right

    def pair(self, *, reverse_channels: bool = False) -> StereoPair:
        """The fixture's pair; reversed where released weights expect BGR and the fixture was fed RGB."""
        left, right = self.images()
        if reverse_channels:
            left, right = left[..., ::-1], right[..., ::-1]
        return StereoPair.from_arrays(np.ascontiguousarray(left), np.ascontiguousarray(right))

    def state(self) -> dict[str, Tensor]:
        """Deterministic tensors under their published names, in the shapes that this case's options give."""
        found = entry(self.name)
        told = getattr(self.module, "architecture", lambda _meta: {})(self.meta)
        own = create(self.name, **{**self.options, **told}).state_dict()
        published = self.variant["state"]
        tags = {key: torch.zeros(()).expand(shape) for key, (shape, _) in published.items()}
        mapped = {id(tensor): key for key, tensor in found.network.from_official(tags).items()}
        state: dict[str, Tensor] = {}
        for key, (shape, dtype) in published.items():
            ours = mapped.get(id(tags[key]))
            if ours is not None and ours not in own:
                assert self.options, f"{key} maps to {ours}, which our {self.name} does not have"
                continue  # an option removed this tensor
            if ours is not None:
                shape = list(own[ours].shape)
            state[key] = torch.from_numpy(self._weight(key, tuple(shape), dtype))
        return state

    def _weight(self, key: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        source = self.variant.get("aliases", {}).get(key, key)
        value = self.parity.weight_for(source, shape, dtype)
        for pattern, factor in self.meta.get("gain", self.variant.get("gain", {})).items():
            if re.search(pattern, source):
                value = value * np.asarray(factor, dtype=value.dtype)
        return np.asarray(value)

    def write_checkpoint(self, path: Path) -> None:
        """A file as published: official names under the official prefix, in the official nesting."""
        prefix = self.manifest.get("checkpoint_prefix", "")
        state = {prefix + key: value for key, value in self.state().items()}
        nest = getattr(self.module, "nest", None)
        torch.save(nest(state, self.meta) if nest else state, path)

    def open(self, folder: Path) -> Any:
        """The predictor that `load` makes of such a file, by its path alone."""
        if hasattr(self.module, "open_model"):
            return self.module.open_model(self, folder)
        from stereopsis.prediction.loading import load

        path = folder / "published.pth"
        self.write_checkpoint(path)
        predictor = load(path, **self.options)
        path.unlink()
        assert name_of(predictor.model) == self.name
        return predictor


@contextmanager
def tap(model: nn.Module, modules: Mapping[str, str]) -> Iterator[dict[str, list[Any]]]:
    """Outputs of submodules while the block runs: name -> list, a value for each call of the module.

    Tensors are copied as they appear, since networks go on adding to them in place.
    """
    taken: dict[str, list[Any]] = {name: [] for name in modules}
    handles = [
        model.get_submodule(path).register_forward_hook(
            lambda _module, _inputs, output, name=name: taken[name].append(
                output.clone() if isinstance(output, Tensor) else output
            )
        )
        for name, path in modules.items()
    ]
    try:
        yield taken
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def tap_inputs(model: nn.Module, modules: Mapping[str, str]) -> Iterator[dict[str, list[tuple[Any, ...]]]]:
    """Like `tap`, of the positional inputs of submodules."""
    taken: dict[str, list[tuple[Any, ...]]] = {name: [] for name in modules}
    handles = [
        model.get_submodule(path).register_forward_pre_hook(
            lambda _module, inputs, name=name: taken[name].append(inputs)
        )
        for name, path in modules.items()
    ]
    try:
        yield taken
    finally:
        for handle in handles:
            handle.remove()


def difference(case: Case, name: str, ours: np.ndarray) -> tuple[float, float]:
    """(largest difference where it counts, largest allowed); infinite where infinities or shapes part."""
    theirs = case.expected[name]
    if ours.shape != theirs.shape:
        raise AssertionError(f"{name}: our shape is {ours.shape}, the fixture's {theirs.shape}")
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    infinite = ~np.isfinite(theirs)
    parted = infinite != ~np.isfinite(ours)
    if parted.mean() > (0.001 if infinite.any() else 0.0):
        return float("inf"), 0.0
    counts = ~(infinite | parted)
    distances = np.sort(np.abs(ours[counts] - theirs[counts]), axis=None)
    free = int(case.meta.get("outlier_fraction", 0.0) * distances.size)
    largest = float(distances[: distances.size - free].max(initial=0.0))
    return largest, _allowed(case, name, theirs[counts])


def _allowed(case: Case, name: str, theirs: np.ndarray) -> float:
    meta = case.meta
    if name in meta.get("tolerances", {}):
        return meta["tolerances"][name]
    if name == "disparity":
        return meta["tolerance"]
    if name in meta.get("rounding", {}):
        return 10 * meta["rounding"][name]
    return 1e-3 * float(np.abs(theirs).max(initial=0.0))
