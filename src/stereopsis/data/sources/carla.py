"""HR-VS, rendered in Carla (Yang et al., CVPR 2019, HSMNet).

`[carla-highres/]trainingF/<scene>/im0.png`, `im1.png`, `disp0GT.pfm`, `disp1GT.pfm`, `calib.txt`, as
Middlebury's evaluation. PFM, positive pixels, infinity unknown.
"""

from __future__ import annotations

from pathlib import Path

from stereopsis.data.files import PairFiles
from stereopsis.data.sources.middlebury import scene_folders, scene_pair
from stereopsis.data.sources.paths import present
from stereopsis.data.sources.registry import Card, source, unknown_split


@source(
    "carla",
    Card(
        title="HR-VS: high-resolution virtual stereo (Carla)",
        splits=("train",),
        pairs="780",
        image="2056x2464",
        disk="40 GB",
        licence="as its authors state (research)",
        link="https://github.com/gengshan-y/high-res-stereo",
    ),
)
def carla(root: Path, split: str) -> list[PairFiles]:
    if split != "train":
        raise unknown_split("carla", split)
    base = present(root / "carla-highres") or root
    return [
        scene_pair(folder, "HR-VS", truth=("disp0GT.pfm", "disp1GT.pfm"))
        for folder in scene_folders(base / "trainingF")
    ]
