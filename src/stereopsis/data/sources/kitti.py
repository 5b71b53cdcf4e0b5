"""KITTI 2012 and 2015 (Geiger et al., CVPR 2012; Menze & Geiger, CVPR 2015).

2012: `{training,testing}/colored_{0,1}/000000_10.png` (gray: `image_{0,1}`), truth
`training/disp_occ/000000_10.png` and `disp_noc` (visible pixels only), `calib/000000.txt`.
2015: `{training,testing}/image_{2,3}/000000_10.png`, truth `disp_occ_0`, `disp_noc_0`, of the right view
`disp_occ_1`, objects `obj_map/000000_10.png` (0 background, 1.. moving cars: the foreground),
`calib_cam_to_cam/000000.txt`.

Disparity is 16-bit PNG / 256, positive pixels, 0 unknown; sparse lidar, denser on 2015's cars.
"""

from __future__ import annotations

from pathlib import Path

from stereopsis.data.files import CalibrationFile, MapFile, MaskFile, PairFiles, Region
from stereopsis.data.sources.paths import present
from stereopsis.data.sources.registry import Card, source, unknown_split

_KITTI = "png16/256"


@source(
    "kitti2012",
    Card(
        title="KITTI 2012 stereo",
        splits=("train", "test", "train-gray", "test-gray"),
        pairs="194 training, 195 test",
        image="about 1242x375",
        disk="2 GB",
        licence="CC BY-NC-SA 3.0",
        link="https://www.cvlibs.net/datasets/kitti/eval_stereo_flow.php?benchmark=stereo",
    ),
)
def kitti2012(root: Path, split: str) -> list[PairFiles]:
    part, _, gray = split.partition("-")
    if part not in ("train", "test") or gray not in ("", "gray"):
        raise unknown_split("kitti2012", split)
    base = root / f"{part}ing"
    views = "image" if gray else "colored"
    pairs = []
    for left in sorted((base / f"{views}_0").glob("*_10.png")):
        calibration = present(base / "calib" / f"{left.stem.removesuffix('_10')}.txt")
        truth = present(base / "disp_occ" / left.name)
        visible = present(base / "disp_noc" / left.name)
        pairs.append(
            PairFiles(
                name=left.stem,
                dataset="KITTI 2012",
                left=left,
                right=base / f"{views}_1" / left.name,
                disparity=MapFile(truth, _KITTI) if truth else None,
                nonoccluded=MapFile(visible, _KITTI) if visible else None,
                calibration=_calibration(calibration, "kitti-gray" if gray else "auto"),
            )
        )
    return pairs


@source(
    "kitti2015",
    Card(
        title="KITTI 2015 stereo (scene flow)",
        splits=("train", "test"),
        pairs="200 training, 200 test",
        image="about 1242x375",
        disk="2 GB",
        licence="CC BY-NC-SA 3.0",
        link="https://www.cvlibs.net/datasets/kitti/eval_scene_flow.php?benchmark=stereo",
    ),
)
def kitti2015(root: Path, split: str) -> list[PairFiles]:
    if split not in ("train", "test"):
        raise unknown_split("kitti2015", split)
    base = root / f"{split}ing"
    pairs = []
    for left in sorted((base / "image_2").glob("*_10.png")):
        truth, visible, truth_right = (
            present(base / folder / left.name) for folder in ("disp_occ_0", "disp_noc_0", "disp_occ_1")
        )
        objects = present(base / "obj_map" / left.name)
        calibration = present(base / "calib_cam_to_cam" / f"{left.stem.removesuffix('_10')}.txt")
        pairs.append(
            PairFiles(
                name=left.stem,
                dataset="KITTI 2015",
                left=left,
                right=base / "image_3" / left.name,
                disparity=MapFile(truth, _KITTI) if truth else None,
                disparity_right=MapFile(truth_right, _KITTI) if truth_right else None,
                nonoccluded=MapFile(visible, _KITTI) if visible else None,
                instances=objects,
                regions=(Region("foreground", MaskFile(objects, (0,), inverted=True)),) if objects else (),
                calibration=_calibration(calibration, "auto"),
            )
        )
    return pairs


def _calibration(path: Path | None, form: str) -> CalibrationFile | None:
    return CalibrationFile(path, form) if path else None
