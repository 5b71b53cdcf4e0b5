"""Argoverse 1 stereo (Chang et al., CVPR 2019).

`rectified_stereo_images_v1.1/{train,val,test}/<log>/stereo_front_left_rect/stereo_front_left_rect_<time>.jpg`,
the right view alike, `vehicle_calibration_stereo_info.json` in the log's folder; truth
`disparity_maps_v1.1/{train,val}/ <log>/stereo_front_left_rect_disparity/disparity_<time>.png` and, of
objects, `..._objects_disparity/`: 16-bit PNG / 256, positive pixels, 0 unknown; sparse, from lidar.
"""

from __future__ import annotations

from pathlib import Path

from stereopsis.data.files import CalibrationFile, MapFile, MaskFile, PairFiles, Region
from stereopsis.data.sources.paths import below, present
from stereopsis.data.sources.registry import Card, source, unknown_split

_LEFT, _RIGHT = "stereo_front_left_rect", "stereo_front_right_rect"


@source(
    "argoverse",
    Card(
        title="Argoverse 1 stereo",
        splits=("train", "val", "test"),
        pairs="5,530 training, 1,094 test",
        image="2464x2056",
        disk="15 GB",
        licence="CC BY-NC-SA 4.0",
        link="https://www.argoverse.org/av1.html",
    ),
)
def argoverse(root: Path, split: str) -> list[PairFiles]:
    if split not in ("train", "val", "test"):
        raise unknown_split("argoverse", split)
    base = root / "rectified_stereo_images_v1.1" / split
    truths = root / "disparity_maps_v1.1" / split
    pairs = []
    for left in sorted(base.glob(f"*/{_LEFT}/{_LEFT}_*.jpg")):
        log, time = left.parent.parent, left.stem.removeprefix(f"{_LEFT}_")
        truth, objects = (
            present(truths / log.name / f"{_LEFT}_{kind}" / f"disparity_{time}.png")
            for kind in ("disparity", "objects_disparity")
        )
        calibration = present(log / "vehicle_calibration_stereo_info.json")
        pairs.append(
            PairFiles(
                name=below(left, base),
                dataset="Argoverse",
                left=left,
                right=log / _RIGHT / f"{_RIGHT}_{time}.jpg",
                disparity=MapFile(truth, "png16/256") if truth else None,
                regions=(Region("foreground", MaskFile(objects, (0,), inverted=True)),) if objects else (),
                calibration=CalibrationFile(calibration) if calibration else None,
            )
        )
    return pairs
