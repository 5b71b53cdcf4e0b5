"""Point clouds as binary PLY (Turk 1994), little endian: what Open3D, trimesh and MeshLab read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, UInt8

from stereopsis.io.atomic import writing
from stereopsis.io.files import read_bytes

_TYPES = {
    "char": "i1",
    "uchar": "u1",
    "int8": "i1",
    "uint8": "u1",
    "short": "i2",
    "ushort": "u2",
    "int16": "i2",
    "uint16": "u2",
    "int": "i4",
    "uint": "u4",
    "int32": "i4",
    "uint32": "u4",
    "float": "f4",
    "float32": "f4",
    "double": "f8",
    "float64": "f8",
}


@dataclass(frozen=True)
class PointCloud:
    """points: metres, x right, y down, z forward (the left camera's frame); colours: RGB."""

    points: Float32[np.ndarray, "n 3"]
    colours: UInt8[np.ndarray, "n 3"] | None = None
    scalars: Mapping[str, np.ndarray] = field(default_factory=dict)


def write_ply(
    path: str | Path,
    points: Float[np.ndarray, "n 3"],
    *,
    colours: UInt8[np.ndarray, "n 3"] | None = None,
    scalars: Mapping[str, Float[np.ndarray, " n"]] | None = None,
) -> None:
    """Points [n 3] in metres with RGB colours and named scalars (`confidence`), whole or not at all.

    Raises ValueError for points that are not finite, and for scalars with names that PLY cannot hold.
    """
    scalars = scalars or {}
    if not np.isfinite(points).all():
        raise ValueError(
            f"{path}: the points hold NaN or infinite values: filter them by range before writing"
        )
    taken = {"x", "y", "z", "red", "green", "blue"}
    for name in scalars:
        if not re.fullmatch(r"[A-Za-z_]\w*", name) or name in taken:
            raise ValueError(f"{path}: {name!r} is no name of a scalar: letters, digits and _ were expected")
    fields = [(name, "<f4") for name in "xyz"]
    fields += [(name, "u1") for name in ("red", "green", "blue")] if colours is not None else []
    fields += [(name, "<f4") for name in scalars]
    vertices = np.empty(len(points), fields)
    for index, name in enumerate("xyz"):
        vertices[name] = points[:, index]
    if colours is not None:
        for index, name in enumerate(("red", "green", "blue")):
            vertices[name] = colours[:, index]
    for name, values in scalars.items():
        vertices[name] = values
    properties = [f"property {'uchar' if kind == 'u1' else 'float'} {name}" for name, kind in fields]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}", *properties]
    with writing(path) as temporary, temporary.open("wb") as file:
        file.write("\n".join([*header, "end_header", ""]).encode("ascii"))
        file.write(vertices.tobytes())


def read_ply(path: str | Path) -> PointCloud:
    """The vertices of a binary little-endian PLY whose first element they are; ValueError for any other."""
    data = read_bytes(path, "a PLY")
    head, separator, body = data.partition(b"end_header\n")
    lines = head.decode("latin-1").split("\n")
    if not separator or lines[:2] != ["ply", "format binary_little_endian 1.0"]:
        raise ValueError(f"{path} is no binary little-endian PLY file: export it as one")
    count, layout = _vertex_layout(lines)
    names = layout.names or ()
    if not {"x", "y", "z"} <= set(names):
        raise ValueError(f"{path} does not begin with vertices of x, y and z: export a point cloud")
    if len(body) < count * layout.itemsize:
        raise ValueError(
            f"{path} is truncated: {count} vertices need {count * layout.itemsize} bytes of data"
        )
    vertices = np.frombuffer(body, layout, count)
    colour = ("red", "green", "blue")
    coloured = all(name in names and layout[name] == np.uint8 for name in colour)
    return PointCloud(
        np.stack([vertices[name] for name in "xyz"], axis=1).astype(np.float32),
        np.stack([vertices[name] for name in colour], axis=1) if coloured else None,
        {name: vertices[name].copy() for name in names if name not in {*"xyz", *colour}},
    )


def _vertex_layout(lines: list[str]) -> tuple[int, np.dtype]:
    """Number and fields of the first element's vertices; no fields where it holds none."""
    first = next((index for index, line in enumerate(lines) if line.startswith("element ")), len(lines) - 1)
    match = re.fullmatch(r"element vertex ([0-9]{1,12})", lines[first])
    fields: dict[str, str] = {}
    for line in lines[first + 1 :] if match else []:
        words = line.split()
        if len(words) != 3 or words[0] != "property" or words[1] not in _TYPES:
            break
        fields[words[2]] = "<" + _TYPES[words[1]]
    return int(match[1]) if match else 0, np.dtype(list(fields.items()))
