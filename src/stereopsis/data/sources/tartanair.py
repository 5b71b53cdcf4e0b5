"""TartanAir (Wang et al., IROS 2020).

`<environment>/[<environment>/]{Easy,Hard}/P000/image_left/000000_left.png`,
`image_right/000000_right.png`, `depth_left/000000_left_depth.npy`, `depth_right/...`: depth in metres
along the optical axis. Focal length 320 px, baseline 0.25 m: disparity = 80 / depth, positive pixels.
"""

from __future__ import annotations

from pathlib import Path

from stereopsis.data.files import MapFile, PairFiles
from stereopsis.data.sources.paths import below, present
from stereopsis.data.sources.registry import Card, source, unknown_split
from stereopsis.structures import Calibration

_CALIBRATION = Calibration(focal=320.0, baseline=0.25, cx=320.0, cy=240.0, size=(480, 640))


@source(
    "tartanair",
    Card(
        title="TartanAir",
        splits=("all", "Easy", "Hard"),
        pairs="about 306,000",
        image="640x480",
        disk="about 3 TB in all",
        licence="BSD-3-Clause",
        link="https://theairlab.org/tartanair-dataset/",
    ),
)
def tartanair(root: Path, split: str) -> list[PairFiles]:
    if split not in ("all", "Easy", "Hard"):
        raise unknown_split("tartanair", split)
    pairs = []
    for left in sorted(root.rglob("image_left/*_left.png")):
        if split != "all" and split not in left.relative_to(root).parts:
            continue
        run, frame = left.parent.parent, left.name.removesuffix("_left.png")
        other = present(run / "depth_right" / f"{frame}_right_depth.npy")
        pairs.append(
            PairFiles(
                name=below(left, root),
                dataset="TartanAir",
                left=left,
                right=run / "image_right" / f"{frame}_right.png",
                disparity=MapFile(run / "depth_left" / f"{frame}_left_depth.npy", "depth-npy"),
                disparity_right=MapFile(other, "depth-npy") if other else None,
                calibration=_CALIBRATION,
            )
        )
    return pairs
