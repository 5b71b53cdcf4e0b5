"""Storages and tensors as torch's files describe them, checked before a byte of them is read."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeGuard

import torch
from torch import Tensor

from stereopsis.io.pickles import Symbol

MAX_DIMENSIONS = 16
MAX_COUNT = 2**48

STORAGE_DTYPES = {
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
DTYPES = {str(dtype): dtype for dtype in (*STORAGE_DTYPES.values(), torch.uint16, torch.uint32, torch.uint64)}
SYMBOLS = re.compile(
    r"torch\._utils\._rebuild_(tensor|tensor_v2|tensor_v3|parameter|parameter_with_state)"
    r"|torch\._tensor\._rebuild_from_type_v2"
    rf"|torch(\.cuda|\.storage)?\.({'|'.join(STORAGE_DTYPES)})"
)
"""The names that `construct` builds, and those of storages."""
_REBUILD = "torch._utils._rebuild_"


@dataclass(frozen=True)
class Storage:
    """A run of numbers of the file: `numel` of them, from element `offset` of the storage called `key`."""

    key: str
    dtype: torch.dtype
    numel: int
    offset: int = 0

    @property
    def end(self) -> int:
        """Bytes of the storage called `key` that this run needs."""
        return (self.offset + self.numel) * self.dtype.itemsize


@dataclass(frozen=True)
class LazyTensor:
    """A strided view of a storage, known to lie inside it."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass
class Archive:
    """A file's tree of plain values and lazy tensors, and a way to the bytes of its storages."""

    tree: object
    read: Callable[[str], bytearray]
    little_endian: bool = True
    loaded: dict[str, Tensor] = field(default_factory=dict)

    def tensor(self, lazy: LazyTensor) -> Tensor:
        """The tensor itself; tensors of one storage share memory, as they did when they were saved."""
        if not math.prod(lazy.size):
            return torch.empty(lazy.size, dtype=lazy.dtype)
        key, itemsize = lazy.storage.key, lazy.storage.dtype.itemsize
        if key not in self.loaded:
            data = self.read(key)
            data = data if self.little_endian else _swapped(data, itemsize)
            self.loaded[key] = torch.frombuffer(data, dtype=torch.uint8)
        run = self.loaded[key][lazy.storage.offset * itemsize : lazy.storage.end]
        return run.view(lazy.dtype).as_strided(lazy.size, lazy.stride, lazy.offset)


def storage_of(identifier: object) -> Storage:
    """The storage of a persistent id: ("storage", type, key, location, numel[, (key, offset, numel)])."""
    if not isinstance(identifier, tuple) or len(identifier) not in (5, 6) or identifier[0] != "storage":
        raise ValueError("it refers to an object outside itself that is not a storage")
    kind, key, numel = identifier[1], identifier[2], identifier[4]
    if not isinstance(key, str | int) or not isinstance(numel, int) or not are_counts((numel,)):
        raise ValueError("it has a storage of absurd size")
    dtype = storage_dtype(kind)
    view = identifier[5] if len(identifier) == 6 else None
    if view is None:
        return Storage(str(key), dtype, numel)
    bounds = view[1:] if isinstance(view, tuple) and len(view) == 3 else None
    if not are_counts(bounds) or sum(bounds) > numel:
        raise ValueError("it has a view outside its storage")
    return Storage(str(key), dtype, numel=bounds[1], offset=bounds[0])


def storage_dtype(kind: object) -> torch.dtype:
    name = kind.name.rpartition(".")[2] if isinstance(kind, Symbol) else ""
    if name not in STORAGE_DTYPES:
        raise ValueError("it has a storage of an unknown number format")
    return STORAGE_DTYPES[name]


def are_counts(values: object) -> TypeGuard[tuple[int, ...]]:
    """True for a tuple of integers that could be sizes, strides or offsets."""
    return isinstance(values, tuple) and all(
        isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_COUNT for value in values
    )


def construct(name: str, arguments: tuple[object, ...]) -> object:
    """What a file may build beside plain values: tensors. Hooks and gradients in `arguments` are dropped."""
    kind = name.rpartition(".")[2]
    if kind in ("_rebuild_tensor", "_rebuild_tensor_v2") and len(arguments) >= 4:
        return lazy_tensor(*arguments[:4])
    if kind == "_rebuild_tensor_v3" and len(arguments) >= 7:
        return lazy_tensor(*arguments[:4], dtype=arguments[6])
    if kind.startswith("_rebuild_parameter") and arguments and isinstance(arguments[0], LazyTensor):
        return arguments[0]
    if kind == "_rebuild_from_type_v2" and len(arguments) >= 3:
        function, inner = arguments[0], arguments[2]
        if isinstance(function, Symbol) and isinstance(inner, tuple) and function.name.startswith(_REBUILD):
            return construct(function.name, inner)
    raise ValueError(f"it calls {name} in a way that torch.save never does")


def lazy_tensor(
    storage: object, offset: object, size: object, stride: object, dtype: object = None
) -> LazyTensor:
    """A view of a storage; ValueError where sizes, strides or offset are absurd or reach outside it."""
    if not isinstance(storage, Storage):
        raise ValueError("it has a tensor without a storage")
    if not (isinstance(offset, int) and are_counts((offset,)) and are_counts(size) and are_counts(stride)):
        raise ValueError("it has a tensor of absurd size, stride or offset")
    if len(size) != len(stride) or len(size) > MAX_DIMENSIONS:
        raise ValueError("it has a tensor whose size and stride do not belong together")
    kind = storage.dtype
    if dtype is not None:
        if not isinstance(dtype, Symbol) or dtype.name not in DTYPES:
            raise ValueError("it has a tensor of an unknown number format")
        kind = DTYPES[dtype.name]
    available = storage.numel * storage.dtype.itemsize // kind.itemsize
    numel = math.prod(size)
    last = offset + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
    if numel > available or (numel and last >= available):
        raise ValueError("it has a tensor that reaches outside its storage")
    return LazyTensor(storage, kind, offset, size, stride)


def _swapped(data: bytearray, itemsize: int) -> bytearray:
    """The same numbers in the other byte order."""
    swapped = bytearray(len(data))
    for place in range(itemsize):
        swapped[place::itemsize] = data[itemsize - 1 - place :: itemsize]
    return swapped
