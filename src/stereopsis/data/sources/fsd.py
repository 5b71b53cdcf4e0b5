"""FSD, the data of FoundationStereo (Wen et al., CVPR 2025).

`<scene>/dataset/data/{left,right}/rgb/0000.{jpg,png}`, truth `left/disparity/0000.png`: RGB PNG,
disparity = (255² R + 255 G + B) / 1000, positive pixels.
"""

from __future__ import annotations

from pathlib import Path

from stereopsis.data.files import MapFile, PairFiles
from stereopsis.data.sources.paths import below
from stereopsis.data.sources.registry import Card, source, unknown_split


@source(
    "fsd",
    Card(
        title="FSD: FoundationStereo's synthetic data",
        splits=("train",),
        pairs="about 1,000,000",
        image="1280x720",
        disk="over 1 TB",
        licence="NVIDIA, non-commercial",
        link="https://github.com/NVlabs/FoundationStereo",
    ),
)
def fsd(root: Path, split: str) -> list[PairFiles]:
    if split != "train":
        raise unknown_split("fsd", split)
    lefts = sorted(p for p in root.rglob("left/rgb/*") if p.suffix in (".jpg", ".png"))
    return [
        PairFiles(
            name=below(left, root),
            dataset="FSD",
            left=left,
            right=left.parents[2] / "right" / "rgb" / left.name,
            disparity=MapFile(left.parents[1] / "disparity" / f"{left.stem}.png", "fsd"),
        )
        for left in lefts
    ]
