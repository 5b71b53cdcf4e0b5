"""Published checkpoints (`.pth`, `.pth.tar`, `.tar`, `.ckpt`, `.pt`), read without ever executing what they hold.

Three containers of `torch.save`, told apart by content: the zip archive (torch >= 1.6), the stream of
pickles with a magic number (0.1.10 to 1.5), and the tar archive before it. Pickles are run by
`stereopsis.io.pickles`, which calls nothing; here, tensors are built from bytes after every size, stride
and offset was checked against the storage, and the file's nesting is undone.
"""

from __future__ import annotations

import io
import math
import re
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import torch
from torch import Tensor

from stereopsis.io.pickles import Inert, Symbol, load

MAX_PICKLE_BYTES = 256 * 2**20
MAX_ENTRIES = 200_000
MAX_DIMENSIONS = 16
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001

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

_STORAGE_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
_DTYPES = {
    f"torch.{name}": getattr(torch, name)
    for name in "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool uint16 uint32 uint64".split()
}
_SYMBOLS = re.compile(
    r"torch\._utils\._rebuild_(tensor|tensor_v2|tensor_v3|parameter|parameter_with_state)"
    r"|torch\._tensor\._rebuild_from_type_v2"
    rf"|torch(\.cuda|\.storage)?\.({'|'.join(_STORAGE_DTYPES)})"
)


@dataclass(frozen=True)
class _Storage:
    """A run of numbers somewhere in the file, read when a tensor needs it."""

    key: str
    dtype: torch.dtype
    numel: int
    offset: int = 0
    """First element, within the storage called `key`."""


@dataclass(frozen=True)
class _LazyTensor:
    """A strided view of a storage, checked to lie inside it."""

    storage: _Storage
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass
class _Archive:
    """What a container gives: the object tree, and the bytes of its storages."""

    tree: object
    read: Callable[[str], bytearray]
    little_endian: bool = True
    loaded: dict[str, bytearray] = field(default_factory=dict)

    def tensor(self, lazy: _LazyTensor) -> Tensor:
        key = lazy.storage.key
        if key not in self.loaded:
            data = self.read(key)
            if not self.little_endian:
                data = _swapped(data, lazy.storage.dtype.itemsize)
            self.loaded[key] = data
        data = self.loaded[key]
        if not math.prod(lazy.size):
            return torch.empty(lazy.size, dtype=lazy.dtype)
        flat = torch.frombuffer(data, dtype=torch.uint8)
        start = lazy.storage.offset * lazy.storage.dtype.itemsize
        stop = start + lazy.storage.numel * lazy.storage.dtype.itemsize
        return flat[start:stop].view(lazy.dtype).as_strided(lazy.size, lazy.stride, lazy.offset)


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a published checkpoint by name, nesting and wrappers' prefixes (`module.`) undone.

    Only tensors and plain values are ever built. Raises FileNotFoundError or ValueError, one sentence
    naming the file: not a checkpoint, damaged, or with a pickle that wants to call something (named).
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a checkpoint file")
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: name a checkpoint file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty: expected a checkpoint written by torch.save")
    try:
        with path.open("rb") as file:
            archive = _open(file, path.stat().st_size)
            state = _state_dict(archive.tree)
            return _without_wrappers({name: archive.tensor(lazy) for name, lazy in state.items()})
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a checkpoint: {_sentence(error)}") from None
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        struct.error,
        EOFError,
        LookupError,
        ArithmeticError,
        TypeError,
        RuntimeError,  # NotImplementedError and RecursionError too
        MemoryError,
    ) as error:
        raise ValueError(
            f"{path} cannot be read as a checkpoint: it is damaged or cut short ({_sentence(error)})"
        ) from None


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:300]


def _open(file: BinaryIO, length: int) -> _Archive:
    start = file.read(512)
    file.seek(0)
    if start[:4] == b"PK\x03\x04":
        return _open_zip(file, length)
    if start[257:262] == b"ustar":
        return _open_tar(file, length)
    if start[:1] == b"\x80":
        return _open_stream(file, length)
    if start.startswith(b"version https://git-lfs"):
        raise ValueError("it is a Git LFS pointer, not the weights: fetch the file itself")
    raise ValueError("it does not start like a file of torch.save (zip, legacy stream or tar)")


# The zip archive.


def _open_zip(file: BinaryIO, length: int) -> _Archive:
    archive = zipfile.ZipFile(file)
    entries = _checked_entries(archive, length)
    pickles = [name for name in entries if PurePosixPath(name).name == "data.pkl"]
    if len(pickles) != 1:
        raise ValueError("the zip archive holds no single data.pkl, so torch.save did not write it")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in entries:
        raise ValueError("it is a TorchScript program, not a state dict: save model.state_dict() instead")
    order = archive.read(entries[f"{root}byteorder"]) if f"{root}byteorder" in entries else b"little"
    if order not in (b"little", b"big"):
        raise ValueError("its byte order is neither little nor big")

    def persistent(identifier: object) -> _Storage:
        storage = _storage_of(identifier)
        name = f"{root}data/{storage.key}"
        if name not in entries:
            raise ValueError(f"the storage {storage.key[:80]!r} is missing from the archive")
        expected = storage.numel * storage.dtype.itemsize
        if entries[name].file_size != expected:
            raise ValueError(
                f"the storage {storage.key[:80]!r} has {entries[name].file_size} bytes, "
                f"its tensors need {expected}"
            )
        return storage

    if entries[pickles[0]].file_size > MAX_PICKLE_BYTES:
        raise ValueError("its data.pkl is absurdly large")
    stream = io.BytesIO(archive.read(entries[pickles[0]]))
    tree = load(stream, _construct, persistent, symbols=_SYMBOLS)
    return _Archive(
        tree, lambda key: bytearray(archive.read(entries[f"{root}data/{key}"])), order == b"little"
    )


def _checked_entries(archive: zipfile.ZipFile, length: int) -> dict[str, zipfile.ZipInfo]:
    """The entries by name: unique, inside the archive, stored without compression, no longer than the file."""
    found = archive.infolist()
    if len(found) > MAX_ENTRIES:
        raise ValueError(f"the zip archive has {len(found)} entries")
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in found:
        shown = repr(info.filename[:80])
        name = PurePosixPath(info.orig_filename)
        if name.is_absolute() or ".." in name.parts or re.search(r"[\\:\0]", info.orig_filename):
            raise ValueError(f"the zip archive has an entry that points outside it: {shown}")
        if info.filename in entries:
            raise ValueError(f"the zip archive holds {shown} twice")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise ValueError(f"the zip archive's entry {shown} is compressed, which torch.save never does")
        if info.file_size > length or info.flag_bits & 0x1:
            raise ValueError(f"the zip archive's entry {shown} is encrypted or larger than the file")
        entries[info.filename] = info
    return entries


# The stream of pickles.


def _open_stream(file: BinaryIO, length: int) -> _Archive:
    storages: dict[str, _Storage] = {}

    def persistent(identifier: object) -> _Storage:
        storage = _storage_of(identifier)
        base = storages.setdefault(storage.key, storage)
        if base.dtype.itemsize != storage.dtype.itemsize:
            raise ValueError(f"the storage {storage.key[:80]!r} has two element sizes")
        return storage

    if _plain_pickle(file) != LEGACY_MAGIC or _plain_pickle(file) != LEGACY_PROTOCOL:
        raise ValueError("it is a pickle, but not one that torch.save wrote")
    system = _plain_pickle(file)
    if not isinstance(system, dict):
        raise ValueError("its description of the machine that wrote it is missing")
    little = bool(system.get("little_endian", True))
    tree = load(file, _construct, persistent, symbols=_SYMBOLS)
    keys = _plain_pickle(file)
    if not isinstance(keys, list) or len(set(map(str, keys))) != len(keys):
        raise ValueError("its list of storages is damaged")
    places = _places(file, [str(key) for key in keys], storages, little, length)
    return _Archive(tree, lambda key: _read_at(file, *places[key]), little)


def _places(
    file: BinaryIO, keys: list[str], storages: Mapping[str, _Storage], little: bool, length: int
) -> dict[str, tuple[int, int]]:
    """(offset, bytes) of each storage that follows the pickles: a count of elements, then the elements."""
    places: dict[str, tuple[int, int]] = {}
    position = file.tell()
    for key in keys:
        if key not in storages:
            raise ValueError(f"the storage {key[:80]!r} belongs to no tensor")
        file.seek(position)
        (numel,) = struct.unpack("<q" if little else ">q", file.read(8))
        size = numel * storages[key].dtype.itemsize
        if numel < 0 or position + 8 + size > length:
            raise ValueError("it is cut short: its storages reach beyond its end")
        places[key] = (position + 8, size)
        position += 8 + size
    for key, storage in storages.items():
        if key not in places:
            raise ValueError(f"the storage {key[:80]!r} is missing")
        if (storage.offset + storage.numel) * storage.dtype.itemsize > places[key][1]:
            raise ValueError(f"the storage {key[:80]!r} is smaller than its tensors need")
    return places


def _read_at(file: BinaryIO, offset: int, size: int) -> bytearray:
    file.seek(offset)
    data = bytearray(file.read(size))
    if len(data) != size:
        raise EOFError("a storage ends early")
    return data


_NOTHING = re.compile(r"(?!)")


def _plain_pickle(file: BinaryIO) -> object:
    """The next pickle of the stream, which may hold plain values only."""

    def refuse(*_: object) -> object:
        raise ValueError("it holds objects where only plain values belong")

    return load(file, refuse, refuse, symbols=_NOTHING)


# The tar archive of torch before 0.1.10.


def _open_tar(file: BinaryIO, length: int) -> _Archive:
    raise ValueError("it is a tar archive")


# Storages and tensors.


def _storage_of(identifier: object) -> _Storage:
    """The storage of a persistent id: ("storage", type, key, location, numel[, view])."""
    if (
        not isinstance(identifier, tuple)
        or len(identifier) not in (5, 6)
        or identifier[0] not in ("storage", b"storage")
    ):
        raise ValueError("it refers to an object outside itself that is not a storage")
    kind, key, numel = identifier[1], identifier[2], identifier[4]
    if not isinstance(kind, Symbol) or kind.name.rpartition(".")[2] not in _STORAGE_DTYPES:
        raise ValueError("it has a storage of no known type")
    if not isinstance(key, str | int) or not isinstance(numel, int) or not 0 <= numel < 2**48:
        raise ValueError("it has a storage of absurd size")
    dtype = _STORAGE_DTYPES[kind.name.rpartition(".")[2]]
    view = identifier[5] if len(identifier) == 6 else None
    if view is None:
        return _Storage(str(key), dtype, numel)
    if not (isinstance(view, tuple) and len(view) == 3 and _are_counts(view[1:])):
        raise ValueError("it has a damaged view of a storage")
    if view[1] + view[2] > numel:
        raise ValueError("it has a view outside its storage")
    return _Storage(str(key), dtype, view[2], view[1])


def _are_counts(values: object) -> bool:
    return isinstance(values, tuple) and all(
        isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**48 for value in values
    )


def _construct(name: str, arguments: tuple[object, ...]) -> object:
    """What a file may build beside plain values: tensors."""
    kind = name.rpartition(".")[2]
    if kind in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3") and len(arguments) >= 4:
        dtype = arguments[6] if kind == "_rebuild_tensor_v3" and len(arguments) > 6 else None
        return _tensor(arguments[0], arguments[1], arguments[2], arguments[3], dtype)
    if kind.startswith("_rebuild_parameter") and arguments and isinstance(arguments[0], _LazyTensor):
        return arguments[0]
    if kind == "_rebuild_from_type_v2" and len(arguments) >= 3:
        function, inner = arguments[0], arguments[2]
        if isinstance(function, Symbol) and _SYMBOLS.fullmatch(function.name) and isinstance(inner, tuple):
            if function.name.endswith("_rebuild_from_type_v2"):
                raise ValueError("it has a tensor wrapped twice")
            return _construct(function.name, inner)
    raise ValueError(f"it calls {name} in a way that torch.save never does")


def _tensor(storage: object, offset: object, size: object, stride: object, dtype: object) -> _LazyTensor:
    if not isinstance(storage, _Storage):
        raise ValueError("it has a tensor without a storage")
    if not (_are_counts(size) and _are_counts(stride) and _are_counts((offset,))):
        raise ValueError("it has a tensor of absurd size, stride or offset")
    assert isinstance(size, tuple) and isinstance(stride, tuple) and isinstance(offset, int)
    if len(size) != len(stride) or len(size) > MAX_DIMENSIONS:
        raise ValueError("it has a tensor whose size and stride do not belong together")
    kind = storage.dtype
    if dtype is not None:
        if not isinstance(dtype, Symbol) or dtype.name not in _DTYPES:
            raise ValueError("it has a tensor of an unknown number format")
        kind = _DTYPES[dtype.name]
    available = storage.numel * storage.dtype.itemsize // kind.itemsize
    numel = math.prod(size)
    last = offset + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
    if numel and (last >= available or numel > available):
        raise ValueError("it has a tensor that reaches outside its storage")
    return _LazyTensor(storage, kind, offset, size, stride)


def _swapped(data: bytearray, itemsize: int) -> bytearray:
    """The same numbers in the other byte order."""
    swapped = bytearray(len(data))
    for place in range(itemsize):
        swapped[place::itemsize] = data[itemsize - 1 - place :: itemsize]
    return swapped


# The nesting.


def _state_dict(tree: object) -> dict[str, _LazyTensor]:
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
    """The entry that holds the tensors, None where they lie here."""
    for name in NESTS:
        value = nest.get(name)
        if isinstance(value, dict) and value:
            return value
    if any(isinstance(value, _LazyTensor) for value in nest.values()):
        return None
    holders = [key for key, value in nest.items() if isinstance(value, dict) and _holds_tensors(value)]
    if len(holders) == 1:
        return nest[holders[0]]
    if holders:
        raise ValueError(
            f"its tensors lie in {len(holders)} places ({', '.join(map(str, holders[:4]))}): "
            f"keep one, named state_dict"
        )
    raise ValueError("it holds no tensors")


def _holds_tensors(value: dict[object, object]) -> bool:
    return any(isinstance(item, _LazyTensor) for item in value.values())


def _named_tensors(nest: dict[object, object]) -> dict[str, _LazyTensor]:
    """The tensors; numbers and text among them are left out, anything that hides tensors is refused."""
    tensors: dict[str, _LazyTensor] = {}
    for name, value in nest.items():
        if isinstance(value, _LazyTensor):
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
