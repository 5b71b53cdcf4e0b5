"""CREStereo's synthetic data (Li et al., CVPR 2022).

`{tree,shapenet,reflective,hole}/<id>_left.jpg`, `_right.jpg`, `_left.disp.png`, `_right.disp.png`: 16-bit
PNG / 32, positive pixels, 0 unknown.
"""

from __future__ import annotations

from pathlib import Path

from stereopsis.data.files import MapFile, PairFiles
from stereopsis.data.sources.paths import below
from stereopsis.data.sources.registry import Card, source, unknown_split

_KINDS = ("tree", "shapenet", "reflective", "hole")


@source(
    "crestereo",
    Card(
        title="CREStereo synthetic",
        splits=("all", *_KINDS),
        pairs="200,000",
        image="1920x1080",
        disk="400 GB",
        licence="Apache-2.0 repository; data for research",
        link="https://github.com/megvii-research/CREStereo",
    ),
)
def crestereo(root: Path, split: str) -> list[PairFiles]:
    if split not in ("all", *_KINDS):
        raise unknown_split("crestereo", split)
    kinds = _KINDS if split == "all" else (split,)
    pairs = []
    for left in (path for kind in kinds for path in sorted((root / kind).glob("*_left.jpg"))):
        frame = left.name.removesuffix("_left.jpg")
        pairs.append(
            PairFiles(
                name=below(left, root),
                dataset="CREStereo",
                left=left,
                right=left.with_name(f"{frame}_right.jpg"),
                disparity=MapFile(left.with_name(f"{frame}_left.disp.png"), "png16/32"),
                disparity_right=MapFile(left.with_name(f"{frame}_right.disp.png"), "png16/32"),
            )
        )
    return pairs
