"""Falling Things (Tremblay et al., CVPR workshops 2018).

`{single/<object>,mixed}/<scene>/000000.left.jpg`, `.right.jpg`, `.left.depth.png`, `.right.depth.png`: 16-bit
PNG, depth in tenths of a millimetre, 0 unknown. `_camera_settings.json` in each folder gives the focal length
(768.16 px); the baseline is 6 cm.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from stereopsis.data.files import MapFile, PairFiles
from stereopsis.data.sources.paths import below
from stereopsis.data.sources.registry import Card, source, unknown_split
from stereopsis.io.files import read_json
from stereopsis.structures import Calibration


@source(
    "fallingthings",
    Card(
        title="Falling Things",
        splits=("all", "single", "mixed"),
        pairs="61,500",
        image="960x540",
        disk="45 GB",
        licence="CC BY-NC-SA 4.0",
        link="https://research.nvidia.com/publication/2018-06_falling-things",
    ),
)
def fallingthings(root: Path, split: str) -> list[PairFiles]:
    if split not in ("all", "single", "mixed"):
        raise unknown_split("fallingthings", split)
    folders = ("single", "mixed") if split == "all" else (split,)
    pairs = []
    for left in (path for folder in folders for path in sorted((root / folder).rglob("*.left.jpg"))):
        frame = left.name.removesuffix(".left.jpg")
        pairs.append(
            PairFiles(
                name=below(left, root),
                dataset="Falling Things",
                left=left,
                right=left.with_name(f"{frame}.right.jpg"),
                disparity=MapFile(left.with_name(f"{frame}.left.depth.png"), "depth-png16*10000"),
                disparity_right=MapFile(left.with_name(f"{frame}.right.depth.png"), "depth-png16*10000"),
                calibration=_calibration(left.with_name("_camera_settings.json")),
            )
        )
    return pairs


@cache
def _calibration(path: Path) -> Calibration:
    try:
        camera = read_json(path, "camera settings")["camera_settings"][0]["intrinsic_settings"]
        return Calibration(focal=camera["fx"], baseline=0.06, cx=camera["cx"], cy=camera["cy"])
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{path} has no camera_settings with fx, cx and cy: fetch it again") from error
