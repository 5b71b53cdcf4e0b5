"""ETH3D low-resolution two-view (Schöps et al., CVPR 2017).

`two_view_training/<scene>/im0.png`, `im1.png`, `calib.txt`; truth in the same folder or in
`two_view_training_gt/<scene>/`: `disp0GT.pfm`, `mask0nocc.png` (255 visible, 128 occluded, 0 unknown).
`two_view_testing/<scene>/` has no truth. Gray images. PFM, positive pixels, infinity unknown.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from stereopsis.data.files import MapFile, MaskFile, PairFiles
from stereopsis.data.sources.middlebury import scene_folders, scene_pair
from stereopsis.data.sources.paths import present
from stereopsis.data.sources.registry import Card, source, unknown_split


@source(
    "eth3d",
    Card(
        title="ETH3D low-resolution two-view",
        splits=("train", "test"),
        pairs="27 training, 20 test",
        image="about 940x490, gray",
        disk="40 MB",
        licence="CC BY-NC-SA 4.0",
        link="https://www.eth3d.net/datasets#low-res-two-view",
    ),
)
def eth3d(root: Path, split: str) -> list[PairFiles]:
    if split not in ("train", "test"):
        raise unknown_split("eth3d", split)
    pairs = []
    for folder in scene_folders(root / f"two_view_{split}ing"):
        files = scene_pair(folder, "ETH3D", truth=("disp0GT.pfm", "disp1GT.pfm"))
        apart = root / "two_view_training_gt" / folder.name
        truth, mask = present(apart / "disp0GT.pfm"), present(apart / "mask0nocc.png")
        if split == "train" and truth is not None:
            occluded = (MaskFile(mask, (128,)),) if mask else ()
            files = replace(files, disparity=MapFile(truth, "pfm"), occluded=occluded)
        pairs.append(files)
    return pairs
