"""Weights in safetensors, with what they mean in the header: network, config, licence, origin, figures."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stereopsis.io.atomic import check_target, writing
from stereopsis.io.files import existing_file

METADATA_KEY = "stereopsis"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class WeightsHeader:
    """What weights mean.

    network: registry name; config: its config's fields, plain values (JSON; lists come back as tuples);
    licence: of the weights; provenance: where they come from; metrics: measured figures by name;
    training: facts of the training run; certainty: how confidence becomes a probability (see
    `stereopsis.prediction.certainty`; empty: it stays as the network gives it).
    """

    network: str
    config: Mapping[str, object] = field(default_factory=dict)
    licence: str = ""
    provenance: str = ""
    metrics: Mapping[str, object] = field(default_factory=dict)
    training: Mapping[str, object] = field(default_factory=dict)
    certainty: Mapping[str, object] = field(default_factory=dict)


def write_weights(path: str | Path, state: Mapping[str, Tensor], header: WeightsHeader) -> None:
    """Write tensors and header to a `.safetensors` file, whole or not at all.

    Raises ValueError where the header is not plain values or the folder is missing, OSError on a full disk.
    """
    path = Path(path)
    check_weights_target(path)
    try:
        text = json.dumps({"format": FORMAT, **dataclasses.asdict(header)}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: the header must hold plain finite values only: {error}") from None
    try:
        with writing(path) as temporary:
            save_file(_independent(state), temporary, metadata={METADATA_KEY: text})
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from None


def check_weights_target(path: Path) -> None:
    """ValueError where no weights can be written there, for programs that ask before their work."""
    if path.suffix != ".safetensors" and not path.is_dir():
        raise ValueError(f"{path}: weights are written as .safetensors, name a file that ends so")
    check_target(path)


def _independent(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors on the CPU that share no memory, as the format wants them."""
    seen: set[int] = set()
    tensors: dict[str, Tensor] = {}
    for name, tensor in state.items():
        tensor = tensor.detach().cpu().contiguous()
        address = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if address in seen else tensor
        seen.add(address)
    return tensors


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], WeightsHeader | None]:
    """Tensors and header of a `.safetensors` file; the header is None where another program wrote it.

    Raises FileNotFoundError or ValueError, one sentence naming the file.
    """
    path = existing_file(path, "a safetensors")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, RuntimeError, MemoryError) as error:
        raise ValueError(
            f"{path} is not a whole safetensors file ({error}): fetch or write it again"
        ) from None
    text = metadata.get(METADATA_KEY)
    return state, None if text is None else _header(text, path)


def read_header(path: str | Path) -> WeightsHeader | None:
    """The header alone; errors as `read_weights`."""
    path = existing_file(path, "a safetensors")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
    except (SafetensorError, RuntimeError, MemoryError) as error:
        raise ValueError(
            f"{path} is not a whole safetensors file ({error}): fetch or write it again"
        ) from None
    return None if text is None else _header(text, path)


def _header(text: str, path: Path) -> WeightsHeader:
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise ValueError(
            f"{path}: the header is not one that this version reads (format {FORMAT}): write the file again"
        )
    known = {f.name: f.type for f in dataclasses.fields(WeightsHeader)}
    given = {name: value for name, value in facts.items() if name in known}
    for name, value in given.items():
        wanted = str if known[name] == "str" else dict
        if not isinstance(value, wanted):
            raise ValueError(f"{path}: the header's {name} must be {wanted.__name__}, it is {value!r:.80}")
    if "network" not in given:
        raise ValueError(f"{path}: the header names no network")
    given["config"] = {key: as_tuples(value) for key, value in given.get("config", {}).items()}
    return WeightsHeader(**given)


def as_tuples(value: Any) -> Any:
    """Lists, as JSON and YAML hold them, as the tuples that configs keep, at every depth."""
    return tuple(as_tuples(item) for item in value) if isinstance(value, list) else value
