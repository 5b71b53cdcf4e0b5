"""Booster: specular and transparent surfaces (Zama Ramirez et al., CVPR 2022).

`{train,test}/balanced/<scene>/camera_00/im0.png`, `camera_02/im0.png` (several lightings each), truth
`disp_00.npy`, `disp_02.npy` (float, positive pixels, 0 unknown), `mask_00.png` (255 seen by both
cameras), `mask_cat.png` (class of material 0..3, the hardest last), `calib_00-02.xml` (OpenCV; baseline
in millimetres).
"""

from __future__ import annotations

from pathlib import Path

from stereopsis.data.files import CalibrationFile, MapFile, MaskFile, PairFiles, Region
from stereopsis.data.sources.paths import below, present
from stereopsis.data.sources.registry import Card, source, unknown_split


@source(
    "booster",
    Card(
        title="Booster",
        splits=("train", "test"),
        pairs="228 training, 191 test",
        image="4112x3008",
        disk="30 GB",
        licence="as its authors state (research)",
        link="https://cvlab-unibo.github.io/booster-web/",
    ),
)
def booster(root: Path, split: str) -> list[PairFiles]:
    if split not in ("train", "test"):
        raise unknown_split("booster", split)
    base = root / split / "balanced"
    pairs = []
    for left in sorted(base.glob("*/camera_00/*.png")):
        scene = left.parent.parent
        truth, other = present(scene / "disp_00.npy"), present(scene / "disp_02.npy")
        visible, material = present(scene / "mask_00.png"), present(scene / "mask_cat.png")
        calibration = present(scene / "calib_00-02.xml")
        pairs.append(
            PairFiles(
                name=below(left, base),
                dataset="Booster",
                left=left,
                right=scene / "camera_02" / left.name,
                disparity=MapFile(truth, "npy|positive") if truth else None,
                disparity_right=MapFile(other, "npy|positive") if other else None,
                occluded=(MaskFile(visible, (255,), inverted=True),) if visible else (),
                regions=tuple(Region(f"class-{kind}", MaskFile(material, (kind,))) for kind in range(4))
                if material
                else (),
                calibration=CalibrationFile(calibration, "booster") if calibration else None,
            )
        )
    return pairs
