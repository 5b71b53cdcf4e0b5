"""Spring (Mehl et al., CVPR 2023).

`[spring/]{train,test}/0001/frame_left/frame_left_0001.png`, `frame_right/...`, truth of the training part
`disp1_left/disp1_left_0001.dsp5`, `disp1_right/...`: HDF5 at twice the image's size, in image pixels,
positive, NaN unknown; every second value belongs to a pixel. `cam_data/intrinsics.txt`: fx fy cx cy per
frame. Baseline 0.065 m.
"""

from __future__ import annotations

from pathlib import Path

from stereopsis.data.files import MapFile, PairFiles
from stereopsis.data.sources.paths import below, present
from stereopsis.data.sources.registry import Card, source, unknown_split
from stereopsis.io.files import read_text
from stereopsis.structures import Calibration


@source(
    "spring",
    Card(
        title="Spring",
        splits=("train", "test"),
        pairs="5,000 training, 1,000 test",
        image="1920x1080",
        disk="60 GB of images and left disparity",
        licence="CC BY 4.0",
        link="https://spring-benchmark.org",
    ),
)
def spring(root: Path, split: str) -> list[PairFiles]:
    if split not in ("train", "test"):
        raise unknown_split("spring", split)
    base = present(root / "spring") or root
    pairs = []
    for sequence in sorted(path for path in (base / split).glob("*") if path.is_dir()):
        calibrations = _calibrations(sequence / "cam_data" / "intrinsics.txt")
        for place, left in enumerate(sorted((sequence / "frame_left").glob("*.png"))):
            number = left.stem.rpartition("_")[2]
            truth, other = (
                present(sequence / f"disp1_{side}" / f"disp1_{side}_{number}.dsp5")
                for side in ("left", "right")
            )
            pairs.append(
                PairFiles(
                    name=below(left, base),
                    dataset="Spring",
                    left=left,
                    right=sequence / "frame_right" / f"frame_right_{number}.png",
                    disparity=MapFile(truth, "dsp5") if truth else None,
                    disparity_right=MapFile(other, "dsp5") if other else None,
                    calibration=calibrations[place] if place < len(calibrations) else None,
                )
            )
    return pairs


def _calibrations(path: Path) -> list[Calibration]:
    if not path.exists():
        return []
    try:
        rows = [[float(word) for word in line.split()] for line in read_text(path, "intrinsics").splitlines()]
        return [Calibration(focal=fx, focal_y=fy, baseline=0.065, cx=cx, cy=cy) for fx, fy, cx, cy in rows]
    except ValueError as error:
        raise ValueError(f"{path}: each line is fx fy cx cy ({error})") from error
