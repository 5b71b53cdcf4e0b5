"""What an exported file says of itself, and the seal that shows whether it is still what was written.

The header travels inside the file: in an ONNX model's metadata, in an OpenVINO model's runtime information.
The seal is a SHA-256 of the whole file, taken with zeros in its own place; an OpenVINO `.xml` also holds
that of the `.bin` beside it. Both are found without parsing the file, so that damage is seen first.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from stereopsis.io.weights import as_tuples
from stereopsis.models.base import Padding

FORMAT = 1
HEADER_KEY = "stereopsis"
SEAL_KEY = "stereopsis_seal"
WEIGHTS_KEY = "stereopsis_weights"

LEFT, RIGHT = "left_image", "right_image"
DISPARITY, CONFIDENCE = "disparity_map", "confidence_map"
"""Inputs and outputs of every exported file: names that no tensor of a network has."""

Images = Literal["float32", "uint8"]
Storage = Literal["fp32", "fp16", "int8"]

_ZEROS = "0" * 64
_SEAL = "stereopsis-seal:"
_WEIGHTS = "stereopsis-weights:"
EMPTY_SEAL = _SEAL + _ZEROS
EMPTY_WEIGHTS = _WEIGHTS + _ZEROS
_BLOCK = 2**20


@dataclass(frozen=True, kw_only=True)
class ExportHeader:
    """What an exported file means.

    network, config, licence, provenance: as in `WeightsHeader`; trained: False where the weights are
    random. images: what it takes: "float32", RGB in [0, 1], [b 3 h w], or "uint8", RGB, [b h w 3].
    size: the only (height, width) that it takes, padding being part of the graph; None: any size,
    enlarged by the caller to `least_pixels` (see `StereoModel`) and padded as `padding` says. batch: the
    only batch size, None for any. precision: of the stored weights (fp16 is storage alone; int8 is
    arithmetic too). opset: of ONNX. parity: figures measured at export, beside the original. certainty:
    as in `WeightsHeader`. version: of the exporting program.
    """

    network: str
    config: Mapping[str, object] = field(default_factory=dict)
    licence: str = ""
    provenance: str = ""
    trained: bool = False
    images: Images = "float32"
    size: tuple[int, int] | None = None
    batch: int | None = None
    padding: Padding = field(default_factory=Padding)
    least_pixels: int = 0
    precision: Storage = "fp32"
    opset: int = 0
    parity: Mapping[str, object] = field(default_factory=dict)
    certainty: Mapping[str, object] = field(default_factory=dict)
    version: str = ""

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, path: Path) -> ExportHeader:
        """The header of the file at `path`; ValueError where it is of another format or not whole."""
        try:
            facts = json.loads(text)
            if facts["format"] != FORMAT:
                raise ValueError(
                    f"{path}: its metadata has format {facts['format']}, this version reads {FORMAT}: "
                    f"install the stereopsis that wrote it, {facts.get('version') or 'a newer one'}"
                )
            known = {f.name for f in dataclasses.fields(cls)}
            given = {name: value for name, value in facts.items() if name in known}
            padding = {name: as_tuples(value) for name, value in given.pop("padding").items()}
            size = given.pop("size")
            config = {name: as_tuples(value) for name, value in given.pop("config").items()}
            header = cls(
                **given, config=config, padding=Padding(**padding), size=None if size is None else tuple(size)
            )
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: its metadata is not whole ({error!r}): export it again") from None
        if header.images not in get_args(Images) or header.precision not in get_args(Storage):
            raise ValueError(f"{path}: it takes {header.images!r} images, which this version does not know")
        return header


def seal(path: Path) -> None:
    """Write the seals of an exported file, whose metadata hold EMPTY_SEAL (and EMPTY_WEIGHTS), into it."""
    if path.suffix == ".xml":
        digest = _digest(path.with_suffix(".bin"), None)
        _replace(path, EMPTY_WEIGHTS.encode(), (_WEIGHTS + digest).encode())
    _replace(path, EMPTY_SEAL.encode(), (_SEAL + _digest(path, _find(path, _SEAL))).encode())


def check_seal(path: Path) -> None:
    """ValueError where the file carries no seal (another program's) or is not the one that was sealed."""
    position = _find(path, _SEAL)
    if position is None:
        raise ValueError(
            f"{path} carries no metadata of stereopsis: it is damaged or another program's; "
            f"write it with stereopsis export"
        )
    _compare(path, path, position, position, _SEAL)
    if path.suffix == ".xml":
        weights = path.with_suffix(".bin")
        if not weights.is_file():
            raise FileNotFoundError(f"{weights} does not exist: {path} needs it beside itself")
        written = _find(path, _WEIGHTS)
        if written is None:
            raise ValueError(f"{path} does not say which weights belong to it: export it again")
        _compare(weights, path, None, written, _WEIGHTS)


def _compare(checked: Path, holder: Path, hole: int | None, position: int, prefix: str) -> None:
    with holder.open("rb") as file:
        file.seek(position + len(prefix))
        written = file.read(64)
    if _digest(checked, hole).encode() != written:
        raise ValueError(f"{checked} is damaged, its checksum differs: fetch or export it again")


def _find(path: Path, prefix: str) -> int | None:
    """Where the last `prefix` begins: metadata come after the weights."""
    if path.stat().st_size == 0:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        position = data.rfind(prefix.encode())
    return None if position < 0 else position


def _digest(path: Path, hole: int | None) -> str:
    """SHA-256 in hexadecimal, the seal at `hole` counted as zeros."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        if hole is None:
            return hashlib.file_digest(file, "sha256").hexdigest()
        left = hole + len(_SEAL)
        while left > 0 and (block := file.read(min(left, _BLOCK))):
            found.update(block)
            left -= len(block)
        found.update(_ZEROS.encode()[: len(file.read(64))])
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def _replace(path: Path, old: bytes, new: bytes) -> None:
    position = _find(path, old.decode())
    if position is None:
        raise ValueError(f"{path} holds no place for its checksum")
    with path.open("r+b") as file:
        file.seek(position)
        file.write(new)
