"""InStereo2K: indoor scenes by structured light (Bao et al., 2020).

`{train,test}/[part*/]<id>/left.png`, `right.png`, `left_disp.png`, `right_disp.png`: 16-bit PNG / 100,
positive pixels, 0 unknown.
"""

from __future__ import annotations

from pathlib import Path

from stereopsis.data.files import MapFile, PairFiles
from stereopsis.data.sources.paths import below
from stereopsis.data.sources.registry import Card, source, unknown_split


@source(
    "instereo2k",
    Card(
        title="InStereo2K",
        splits=("train", "test"),
        pairs="2,010 training, 50 test",
        image="1080x860",
        disk="8 GB",
        licence="as its authors state (research)",
        link="https://github.com/YuhuaXu/StereoDataset",
    ),
)
def instereo2k(root: Path, split: str) -> list[PairFiles]:
    if split not in ("train", "test"):
        raise unknown_split("instereo2k", split)
    return [
        PairFiles(
            name=below(left.parent, root),
            dataset="InStereo2K",
            left=left,
            right=left.with_name("right.png"),
            disparity=MapFile(left.with_name("left_disp.png"), "png16/100"),
            disparity_right=MapFile(left.with_name("right_disp.png"), "png16/100"),
        )
        for left in sorted((root / split).rglob("left.png"))
    ]
