"""Names that go together: the right view's name from the left view's."""

from __future__ import annotations

import re
from pathlib import Path

EXACT = (
    ("im0", "im1"),
    ("left", "right"),
    ("view1", "view5"),
    ("im2", "im6"),
    ("0", "1"),
    ("l", "r"),
    ("image0", "image1"),
    ("image_2", "image_3"),
    ("image_0", "image_1"),
    ("image_02", "image_03"),
    ("image_00", "image_01"),
    ("colored_0", "colored_1"),
    ("cam0", "cam1"),
    ("left_images", "right_images"),
)
"""Names of files (without suffix) and folders of the left and the right view."""

_SIDE = re.compile(r"(?<![A-Za-z])(left|Left|LEFT|l|L)(?![A-Za-z])")
_RIGHT = {"left": "right", "Left": "Right", "LEFT": "RIGHT", "l": "r", "L": "R"}


def right_name(name: str) -> str | None:
    """The right view's name, without suffix; None where the name is no left view's.

    `im0` -> `im1`, `shelf_left_003` -> `shelf_right_003`, `007L` -> `007R`.
    """
    for left, right in EXACT:
        if name.lower() == left:
            return right.upper() if name != left and name.isupper() else right
    if _SIDE.search(name):
        return _SIDE.sub(lambda match: _RIGHT[match[1]], name)
    return None


def partner(path: Path) -> Path | None:
    """The file beside a left one that belongs to the right view: by its own name, or by its folder's."""
    stem = right_name(path.stem)
    if stem is not None:
        return path.with_name(stem + path.suffix)
    folder = right_name(path.parent.name)
    return None if folder is None else path.parent.with_name(folder) / path.name
