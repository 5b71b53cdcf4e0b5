"""Named numbers and matrices in the YAML and XML files of OpenCV and ROS.

Only what calibrations need of both languages is read: at the top level a name with a number, a list of
numbers, or a matrix with `data`. Nothing in the file is executed or expanded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from stereopsis.io.files import read_text

_TOP = re.compile(r"^([A-Za-z_]\w*)[ \t]*:", re.MULTILINE)
_FLOW = re.compile(r"\[([^\]]*)\]")
_DATA = re.compile(r"\bdata\s*:")


def read_matrices(path: str | Path) -> dict[str, np.ndarray]:
    """Everything numeric at the top level of the file, flattened, float64, by name.

    Text values (ROS's `distortion_model`) are left out: see `read_word`. Raises ValueError where the
    file is neither YAML nor XML of that kind.
    """
    text = read_text(path, "a calibration")
    found = _from_xml(text, path) if text.lstrip().startswith("<") else _from_yaml(text)
    return {name: values for name, values in found.items() if values.size}


def read_word(path: str | Path, name: str) -> str | None:
    """The text that stands after a top-level name of a YAML file, None where there is none."""
    match = re.search(
        rf"^{name}[ \t]*:[ \t]*['\"]?([\w/.-]+)", read_text(path, "a calibration"), re.MULTILINE
    )
    return match.group(1) if match else None


def matrices_size(found: Mapping[str, np.ndarray]) -> tuple[int, int] | None:
    """(height, width) from the names that OpenCV's and ROS's programs give it."""
    for width, height in (
        ("image_width", "image_height"),
        ("width", "height"),
        ("imageWidth", "imageHeight"),
    ):
        if width in found and height in found:
            return image_size(found[height][0], found[width][0])
    for name in ("image_size", "imageSize", "size"):
        if name in found and found[name].size == 2:
            return image_size(found[name][1], found[name][0])
    return None


def image_size(height: float, width: float) -> tuple[int, int]:
    """(height, width) as whole numbers; ValueError where they are none."""
    if not (height >= 1 and width >= 1 and float(height).is_integer() and float(width).is_integer()):
        raise ValueError(f"the image size {width}x{height} is none: whole positive numbers were expected")
    return int(height), int(width)


def _from_yaml(text: str) -> dict[str, np.ndarray]:
    starts = list(_TOP.finditer(text))
    ends = [*(match.start() for match in starts[1:]), len(text)]
    blocks = zip(starts, ends, strict=False)  # a text without names has no block, and still an end
    return {match[1]: _numbers(_payload(text[match.end() : end])) for match, end in blocks}


def _payload(block: str) -> str:
    """The part of a YAML block that holds its numbers: after `data:`, or all of it."""
    data = _DATA.search(block)
    block = block[data.end() :] if data else re.sub(r"#[^\n]*", "", block)
    flow = _FLOW.search(block)
    if flow:
        return flow[1]
    return (
        re.sub(r"^\s*-", " ", block, flags=re.MULTILINE)
        if re.search(r"^\s*-\s", block, re.MULTILINE)
        else block
    )


def _from_xml(text: str, path: str | Path) -> dict[str, np.ndarray]:
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError(f"{path} declares XML entities: a plain calibration file was expected")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is no whole XML file ({error}): export it again") from error
    found: dict[str, np.ndarray] = {}
    for element in root:
        data = element.find("data")
        found[element.tag] = _numbers((element if data is None else data).text or "")
        for child in element:
            found[f"{element.tag}.{child.tag}"] = _numbers(child.text or "")
    return found


def _numbers(text: str) -> np.ndarray:
    """The numbers of a text that holds nothing else, else none."""
    words = re.sub(r"[,;]", " ", text.replace(".Nan", "nan").replace(".Inf", "inf")).split()
    try:
        return np.array([float(word) for word in words])
    except ValueError:
        return np.empty(0)
