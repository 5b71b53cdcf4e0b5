"""SCARED: endoscopic stereo of porcine abdomens (Allan et al., 2021).

Keyframes: `dataset_{1..9}/keyframe_{1..5}/Left_Image.png`, `Right_Image.png`, not rectified, with
`left_depth_map.tiff` and `right_depth_map.tiff` (the point X, Y, Z seen at each pixel of the raw image,
millimetres in that camera's frame, NaN unknown) and `endoscope_calibration.yaml` (OpenCV, millimetres).
Images are rectified and points become disparity on reading. Data sets 8 and 9 are the test part.
Lists: `train_list.txt` or `test_list.txt` with `left right [disparity]` in each line, rectified,
disparity 16-bit PNG / 128, 0 unknown.
"""

from __future__ import annotations

from pathlib import Path

from stereopsis.data.files import CalibrationFile, MapFile, PairFiles
from stereopsis.data.sources.paths import below, list_lines
from stereopsis.data.sources.registry import Card, source, unknown_split
from stereopsis.io.files import existing_file

_SPLITS = ("keyframes", "keyframes-train", "keyframes-test", "list-train", "list-test")


@source(
    "scared",
    Card(
        title="SCARED: stereo correspondence and reconstruction of endoscopic data",
        splits=_SPLITS,
        pairs="45 keyframes (35 training, 10 test)",
        image="1280x1024",
        disk="about 20 GB with videos",
        licence="by agreement with the organisers, research only",
        link="https://endovissub2019-scared.grand-challenge.org",
    ),
)
def scared(root: Path, split: str) -> list[PairFiles]:
    if split not in _SPLITS:
        raise unknown_split("scared", split)
    kind, _, part = split.partition("-")
    if kind == "list":
        return _listed(existing_file(root / f"{part}_list.txt", "a list"), root)
    folders = sorted(path.parent for path in root.glob("dataset_*/keyframe_*/Left_Image.png"))
    return [_keyframe(folder, root) for folder in folders if not part or _is_test(folder) == (part == "test")]


def _is_test(folder: Path) -> bool:
    return folder.parent.name in ("dataset_8", "dataset_9")


def _keyframe(folder: Path, root: Path) -> PairFiles:
    return PairFiles(
        name=below(folder, root),
        dataset="SCARED",
        left=folder / "Left_Image.png",
        right=folder / "Right_Image.png",
        disparity=MapFile(folder / "left_depth_map.tiff", "points-mm"),
        disparity_right=MapFile(folder / "right_depth_map.tiff", "points-mm"),
        calibration=CalibrationFile(folder / "endoscope_calibration.yaml", "scared"),
    )


def _listed(path: Path, root: Path) -> list[PairFiles]:
    pairs = []
    for line in list_lines(path, root=root):
        if len(line) not in (2, 3):
            raise ValueError(f"{path}: each line is `left right [disparity]`, one has {len(line)} paths")
        truth = MapFile(line[2], "png16/128") if len(line) == 3 else None
        pairs.append(
            PairFiles(
                name=below(line[0], root), dataset="SCARED", left=line[0], right=line[1], disparity=truth
            )
        )
    return pairs
