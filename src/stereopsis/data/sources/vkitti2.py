"""Virtual KITTI 2 (Cabon et al., 2020).

`Scene01/<variation>/frames/rgb/Camera_{0,1}/rgb_00000.jpg`, `frames/depth/Camera_{0,1}/depth_00000.png`:
16-bit PNG, depth in centimetres (65535 is the sky, 655.35 m). Focal length 725.0087 px, baseline 0.532725 m.
"""

from __future__ import annotations

from pathlib import Path

from stereopsis.data.files import MapFile, PairFiles
from stereopsis.data.sources.paths import below, present
from stereopsis.data.sources.registry import Card, source, unknown_split
from stereopsis.structures import Calibration

_CALIBRATION = Calibration(focal=725.0087, baseline=0.532725, cx=620.5, cy=187.0, size=(375, 1242))


@source(
    "vkitti2",
    Card(
        title="Virtual KITTI 2",
        splits=("all", "clone"),
        pairs="21,260",
        image="1242x375",
        disk="20 GB of images and depth",
        licence="CC BY-NC-SA 3.0",
        link="https://europe.naverlabs.com/research/computer-vision/proxy-virtual-worlds-vkitti-2/",
    ),
)
def vkitti2(root: Path, split: str) -> list[PairFiles]:
    if split not in ("all", "clone"):
        raise unknown_split("vkitti2", split)
    variation = "*" if split == "all" else split
    pairs = []
    for left in sorted(root.glob(f"Scene*/{variation}/frames/rgb/Camera_0/rgb_*.jpg")):
        frames, number = left.parents[2], left.stem.removeprefix("rgb_")
        truth, other = (frames / "depth" / f"Camera_{c}" / f"depth_{number}.png" for c in (0, 1))
        pairs.append(
            PairFiles(
                name=below(left, root),
                dataset="Virtual KITTI 2",
                left=left,
                right=frames / "rgb" / "Camera_1" / left.name,
                disparity=MapFile(truth, "depth-png16*100"),
                disparity_right=MapFile(other, "depth-png16*100") if present(other) else None,
                calibration=_CALIBRATION,
            )
        )
    return pairs
