"""The three containers of `torch.save`: the zip archive, the stream of pickles, and the tar before both."""

from __future__ import annotations

import io
import re
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import IO, cast

from stereopsis.io.pickles import ByteStream, load
from stereopsis.io.storages import (
    SYMBOLS,
    Archive,
    Storage,
    are_counts,
    construct,
    lazy_tensor,
    storage_dtype,
    storage_of,
)

MAX_PICKLE_BYTES = 256 * 2**20
MAX_ENTRIES = 200_000
MAX_TENSORS = 1_000_000
STREAM_MAGIC = 0x1950A86A20F9469CFC6C
STREAM_PROTOCOL = 1001

_NO_SYMBOLS = re.compile(r"(?!)")
_TENSOR_TYPES = re.compile(r"torch(\.cuda|\.sparse)?\.\w+(Tensor|Storage)")


def open_archive(file: ByteStream, length: int) -> Archive:
    """What a checkpoint of `length` bytes holds, its container told by content.

    Raises ValueError where the content is hostile or none of these, and what parsers raise where damaged.
    """
    start = file.read(512)
    file.seek(0)
    if start[:4] == b"PK\x03\x04":
        return _open_zip(file, length)
    if start[257:262] == b"ustar":
        return _open_tar(file, length)
    if start[:1] == b"\x80":
        return _open_stream(file, length)
    if start[8:9] == b"{":
        raise ValueError("it looks like safetensors: name it .safetensors")
    if start.startswith(b"version https://git-lfs"):
        raise ValueError("it is a Git LFS pointer, not the weights: fetch the file itself")
    raise ValueError("it does not start like a file of torch.save (zip, stream or tar)")


# The zip archive: data.pkl, and an entry data/KEY for each storage.


def _open_zip(file: ByteStream, length: int) -> Archive:
    archive = zipfile.ZipFile(cast(IO[bytes], file))
    entries = _checked_entries(archive, length)
    pickles = [name for name in entries if PurePosixPath(name).name == "data.pkl"]
    if len(pickles) != 1:
        raise ValueError("the zip archive holds no single data.pkl, so torch.save did not write it")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in entries:
        raise ValueError("it is a TorchScript program, not a state dict: save model.state_dict() instead")
    if entries[pickles[0]].file_size > MAX_PICKLE_BYTES:
        raise ValueError("its data.pkl is absurdly large")
    order = archive.read(entries[f"{root}byteorder"]) if f"{root}byteorder" in entries else b"little"
    if order not in (b"little", b"big"):
        raise ValueError("its byte order is neither little nor big")
    storages: dict[str, Storage] = {}

    def persistent(identifier: object) -> Storage:
        storage = _known(identifier, storages)
        info = entries.get(f"{root}data/{storage.key}")
        if info is None:
            raise ValueError(f"the storage {storage.key[:80]!r} is missing from the archive")
        if info.file_size != storage.end:
            raise ValueError(
                f"the storage {storage.key[:80]!r} has {info.file_size} bytes, its tensors need {storage.end}"
            )
        return storage

    def read(key: str) -> bytearray:
        info = entries[f"{root}data/{key}"]
        with archive.open(info) as entry:
            data = _read_all(entry, info.file_size)
            entry.read(1)  # at its end the check sum is compared
        return data

    tree = load(io.BytesIO(archive.read(entries[pickles[0]])), construct, persistent, symbols=SYMBOLS)
    return Archive(tree, read, order == b"little")


def _checked_entries(archive: zipfile.ZipFile, length: int) -> dict[str, zipfile.ZipInfo]:
    """The entries by name: unique, inside the archive, stored uncompressed, no longer than the file."""
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
        if info.file_size > length or not 0 <= info.header_offset < length or info.flag_bits & 0x1:
            raise ValueError(f"the zip archive's entry {shown} is encrypted or larger than the file")
        entries[info.filename] = info
    if sum(info.file_size for info in found) > length:
        raise ValueError("the zip archive's entries overlap")
    return entries


def _known(identifier: object, storages: dict[str, Storage]) -> Storage:
    """The storage of a persistent id, of one element size wherever it is mentioned."""
    storage = storage_of(identifier)
    if storages.setdefault(storage.key, storage).dtype.itemsize != storage.dtype.itemsize:
        raise ValueError(f"the storage {storage.key[:80]!r} has two element sizes")
    return storage


# The stream: magic number, protocol, machine, the object, the keys of its storages, the storages.


def _open_stream(file: ByteStream, length: int) -> Archive:
    storages: dict[str, Storage] = {}
    if _plain_pickle(file) != STREAM_MAGIC or _plain_pickle(file) != STREAM_PROTOCOL:
        raise ValueError("it is a pickle, but not one that torch.save wrote")
    machine = _plain_pickle(file)
    if not isinstance(machine, dict):
        raise ValueError("its description of the machine that wrote it is missing")
    tree = load(file, construct, lambda identifier: _known(identifier, storages), symbols=SYMBOLS)
    keys = _plain_pickle(file)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("its list of storages is damaged")
    places = _places(file, keys, storages, length)
    for key, storage in storages.items():
        if key not in places or storage.end > places[key][1]:
            raise ValueError(f"the storage {key[:80]!r} is missing or smaller than its tensors need")
    return Archive(tree, lambda key: _read_at(file, *places[key]))


def _places(
    file: ByteStream, keys: list[str], storages: Mapping[str, Storage], length: int
) -> dict[str, tuple[int, int]]:
    """(offset, bytes) of each storage that follows: its count of elements, then the elements."""
    places: dict[str, tuple[int, int]] = {}
    for key in keys:
        if key not in storages or key in places:
            raise ValueError(f"the storage {key[:80]!r} belongs to no tensor, or comes twice")
        places[key] = _skip_storage(file, storages[key].dtype.itemsize, length)
    return places


def _skip_storage(file: ByteStream, itemsize: int, length: int) -> tuple[int, int]:
    """(offset, bytes) of the storage here, which is passed; numbers are little-endian, wherever written."""
    (numel,) = struct.unpack("<q", file.read(8))
    start, size = file.tell(), numel * itemsize
    if numel < 0 or start + size > length:
        raise EOFError("its storages reach beyond its end")
    file.seek(start + size)
    return start, size


def _read_at(file: ByteStream, offset: int, size: int) -> bytearray:
    file.seek(offset)
    return _read_all(file, size)


def _read_all(file: ByteStream, size: int) -> bytearray:
    """Exactly `size` bytes, without a second copy of them."""
    data = bytearray(size)
    view, filled = memoryview(data), 0
    while filled < size and (chunk := file.read(min(size - filled, 2**24))):
        view[filled : filled + len(chunk)] = chunk
        filled += len(chunk)
    if filled != size:
        raise EOFError("a storage ends early")
    return data


def _plain_pickle(file: ByteStream, symbols: re.Pattern[str] = _NO_SYMBOLS) -> object:
    """The next pickle, which may hold plain values (and `symbols`, never called) only."""

    def refuse(*_: object) -> object:
        raise ValueError("it holds objects where only plain values belong")

    return load(file, refuse, refuse, symbols=symbols)


# The tar archive (torch before 0.1.10): members storages, tensors, pickle.


def _open_tar(file: ByteStream, length: int) -> Archive:
    archive = tarfile.open(fileobj=cast(IO[bytes], file), mode="r:")  # noqa: SIM115 (storages are read later)
    members = {name: _tar_member(archive, name, length) for name in ("storages", "tensors", "pickle")}
    places, objects = _tar_storages(members["storages"], length)
    _tar_tensors(members["tensors"], objects)

    def persistent(identifier: object) -> object:
        if not isinstance(identifier, str | int) or str(identifier) not in objects:
            raise ValueError("it refers to an object outside itself that is not a tensor")
        return objects[str(identifier)]

    tree = load(members["pickle"], construct, persistent, symbols=SYMBOLS)
    return Archive(tree, lambda key: _read_at(members["storages"], *places[key]))


def _tar_member(archive: tarfile.TarFile, name: str, length: int) -> ByteStream:
    found = [member for member in archive.getmembers() if member.name == name]
    if len(found) != 1 or not found[0].isreg() or found[0].issparse() or found[0].size > length:
        raise ValueError(f"the tar archive holds no single plain member {name!r}")
    member = archive.extractfile(found[0])
    if member is None:
        raise ValueError(f"the tar archive's member {name!r} is no file")
    return member


def _tar_storages(file: ByteStream, length: int) -> tuple[dict[str, tuple[int, int]], dict[str, object]]:
    """Where each storage lies, and storages by the number that the other members use."""
    places: dict[str, tuple[int, int]] = {}
    objects: dict[str, object] = {}
    for _ in range(_tar_count(file)):
        entry = _plain_pickle(file, _TENSOR_TYPES)
        if not isinstance(entry, tuple) or len(entry) != 3:
            raise ValueError("it has a damaged storage")
        key, dtype = str(entry[0]), storage_dtype(entry[2])
        places[key] = _skip_storage(file, dtype.itemsize, length)
        objects[key] = Storage(key, dtype, places[key][1] // dtype.itemsize)
    views = _plain_pickle(file)
    for view in views if isinstance(views, list) else []:
        if not isinstance(view, tuple) or len(view) != 4 or not are_counts(view):
            raise ValueError("it has a damaged view of a storage")
        root = objects.get(str(view[1]))
        if not isinstance(root, Storage) or view[2] + view[3] > root.numel:
            raise ValueError("it has a view outside its storage")
        objects[str(view[0])] = Storage(root.key, root.dtype, view[3], root.offset + view[2])
    return places, objects


def _tar_tensors(file: ByteStream, objects: dict[str, object]) -> None:
    """Adds the tensors to `objects`."""
    for _ in range(_tar_count(file)):
        entry = _plain_pickle(file, _TENSOR_TYPES)
        if not isinstance(entry, tuple) or len(entry) != 3:
            raise ValueError("it has a damaged tensor")
        (dimensions,) = struct.unpack("<i4x", file.read(8))
        if not 0 <= dimensions <= 16:
            raise ValueError("it has a tensor of absurd dimensions")
        shape = struct.unpack(f"<{2 * dimensions + 1}q", file.read(8 * (2 * dimensions + 1)))
        size, stride, offset = shape[:dimensions], shape[dimensions:-1], shape[-1]
        objects[str(entry[0])] = lazy_tensor(objects.get(str(entry[1])), offset, size, stride)


def _tar_count(file: ByteStream) -> int:
    count = _plain_pickle(file)
    if not isinstance(count, int) or not 0 <= count <= MAX_TENSORS:
        raise ValueError("it counts an absurd number of tensors")
    return count
