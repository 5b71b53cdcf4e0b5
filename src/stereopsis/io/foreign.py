"""Published checkpoints (`.pth`, `.pth.tar`, `.tar`, `.ckpt`, `.pt`) -> named tensors, nothing executed.

`stereopsis.io.archives` opens the container, `stereopsis.io.pickles` runs its pickles without calling
anything, `stereopsis.io.storages` checks and builds the tensors; here the file's nesting is undone.
"""

from __future__ import annotations

import struct
import tarfile
import zipfile
from pathlib import Path

from torch import Tensor

from stereopsis.io.archives import open_archive
from stereopsis.io.files import existing_file
from stereopsis.io.pickles import Inert
from stereopsis.io.storages import LazyTensor

NESTS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "params",
    "weights",
    "module",
)
"""Entries under which published files keep their tensors, most telling first."""

_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    struct.error,
    EOFError,
    LookupError,
    ArithmeticError,
    TypeError,
    AttributeError,
    RuntimeError,  # its kinds NotImplementedError and RecursionError too
    MemoryError,
)
"""What the parsers of damaged archives raise."""


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a published checkpoint by name, nesting and wrappers' prefixes (`module.`) undone.

    Only tensors and plain values are ever built. Raises OSError or ValueError, one sentence naming the file:
    not a checkpoint, damaged, or with a pickle that wants to call something (named).
    """
    path = existing_file(path, "a checkpoint")
    length = path.stat().st_size
    try:
        with path.open("rb") as file:
            archive = open_archive(file, length)
            state = _state_dict(archive.tree)
            return _without_wrappers({name: archive.tensor(lazy) for name, lazy in state.items()})
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a checkpoint: {_sentence(error)}") from None
    except OSError as error:
        raise OSError(error.errno, error.strerror or "cannot be read", str(path)) from None
    except _DAMAGE as error:
        raise ValueError(
            f"{path} cannot be read as a checkpoint: it is damaged or cut short ({_sentence(error)}); "
            f"fetch it again"
        ) from None


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:400]


def _state_dict(tree: object) -> dict[str, LazyTensor]:
    """The named tensors, found below the entries that published files use."""
    nest = tree
    for _ in range(4):
        if not isinstance(nest, dict):
            break
        inner = _inner(nest)
        if inner is None:
            return _named_tensors(nest)
        nest = inner
    kind = nest.name if isinstance(nest, Inert) else type(nest).__name__
    raise ValueError(f"expected named tensors, found {kind}: save model.state_dict()")


def _inner(nest: dict[object, object]) -> object | None:
    """The entry that holds the tensors; None where they lie here."""
    for name in NESTS:
        value = nest.get(name)
        if isinstance(value, dict) and value:
            return value
    if _holds_tensors(nest):
        return None
    holders = [key for key, value in nest.items() if isinstance(value, dict) and _holds_tensors(value)]
    if len(holders) == 1:
        return nest[holders[0]]
    if holders:
        shown = ", ".join(str(key)[:40] for key in holders[:4])
        raise ValueError(f"its tensors lie in {len(holders)} places ({shown}): keep one, named state_dict")
    raise ValueError("it holds no named tensors: save model.state_dict()")


def _holds_tensors(value: dict[object, object]) -> bool:
    return any(isinstance(item, LazyTensor) for item in value.values())


def _named_tensors(nest: dict[object, object]) -> dict[str, LazyTensor]:
    """The tensors; numbers and text among them are left out, what hides more tensors is refused."""
    tensors: dict[str, LazyTensor] = {}
    for name, value in nest.items():
        if isinstance(value, LazyTensor):
            if not isinstance(name, str):
                raise ValueError("it has a tensor whose name is not text")
            tensors[name] = value
        elif isinstance(value, dict) and _holds_tensors(value):
            raise ValueError(f"its entry {str(name)[:80]!r} holds tensors beside other tensors")
    return tensors


def _without_wrappers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without what DataParallel (`module.`) and torch.compile (`_orig_mod.`) put into them."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        new = ".".join(part for part in name.split(".") if part != "_orig_mod")
        if new in renamed:
            raise ValueError(f"two tensors are both called {new[:80]!r}")
        renamed[new] = tensor
    while renamed and all(name.startswith("module.") for name in renamed):
        renamed = {name.removeprefix("module."): tensor for name, tensor in renamed.items()}
    return renamed
