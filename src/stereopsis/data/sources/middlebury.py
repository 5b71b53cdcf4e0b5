"""Middlebury 2014, its third evaluation, and 2021 (Scharstein et al., GCPR 2014).

2014: `<Scene>-{perfect,imperfect}/im0.png`, `im1.png` (`im1E`: other exposure, `im1L`: other light),
`disp0.pfm`, `disp1.pfm`, `calib.txt`.
Evaluation 3: `[MiddEval3/]{training,test}{Q,H,F}/<Scene>/im0.png`, `im1.png`, `disp0GT.pfm`, `disp1GT.pfm`,
`mask0nocc.png` (255 visible, 128 occluded, 0 unknown), `calib.txt`; the test part has no truth.
2021: `[data/]<scene>/im0.png`, `im1.png`, `disp0.pfm`, `disp1.pfm`, `calib.txt`.

PFM, positive pixels, infinity unknown; `calib.txt` with `doffs`, baseline in millimetres.
"""

from __future__ import annotations

from pathlib import Path

from stereopsis.data.files import CalibrationFile, MapFile, MaskFile, PairFiles
from stereopsis.data.sources.paths import present
from stereopsis.data.sources.registry import Card, source, unknown_split

_LICENCE = "free to use and publish with citation"
_RIGHT_2014 = {"": "im1.png", "exposure": "im1E.png", "light": "im1L.png"}
_SPLITS_2014 = tuple(
    kind if not other else f"{kind}-{other}" for other in _RIGHT_2014 for kind in ("perfect", "imperfect")
)
_SPLITS_V3 = tuple(f"{part}{size}" for size in "HQF" for part in ("training", "test"))


def scene_pair(folder: Path, dataset: str, *, truth: tuple[str, str], right: str = "im1.png") -> PairFiles:
    """The pair in a folder laid out as Middlebury's since 2014 (ETH3D and HR-VS follow it)."""
    left_truth, right_truth = (present(folder / name) for name in truth)
    mask = present(folder / "mask0nocc.png")
    calibration = present(folder / "calib.txt")
    return PairFiles(
        name=folder.name,
        dataset=dataset,
        left=folder / "im0.png",
        right=folder / right,
        disparity=MapFile(left_truth, "pfm") if left_truth else None,
        disparity_right=MapFile(right_truth, "pfm") if right_truth else None,
        occluded=(MaskFile(mask, (128,)),) if mask else (),
        calibration=CalibrationFile(calibration) if calibration else None,
    )


def scene_folders(root: Path) -> list[Path]:
    """The folders of `root` that hold a left view, in order."""
    return sorted(path.parent for path in root.glob("*/im0.png"))


@source(
    "middlebury2014",
    Card(
        title="Middlebury 2014",
        splits=_SPLITS_2014,
        pairs="23 with truth, each with perfect and imperfect rectification",
        image="about 2960x1980",
        disk="4 GB",
        licence=_LICENCE,
        link="https://vision.middlebury.edu/stereo/data/scenes2014/",
    ),
)
def middlebury2014(root: Path, split: str) -> list[PairFiles]:
    if split not in _SPLITS_2014:
        raise unknown_split("middlebury2014", split)
    kind, _, other = split.partition("-")
    return [
        scene_pair(folder, "Middlebury 2014", truth=("disp0.pfm", "disp1.pfm"), right=_RIGHT_2014[other])
        for folder in scene_folders(root)
        if folder.name.endswith(f"-{kind}") and (folder / _RIGHT_2014[other]).exists()
    ]


@source(
    "middlebury-v3",
    Card(
        title="Middlebury stereo evaluation, version 3",
        splits=_SPLITS_V3,
        pairs="15 training, 15 test, at quarter (Q), half (H) and full size (F)",
        image="about 2900x2000 at full size",
        disk="1 GB",
        licence=_LICENCE,
        link="https://vision.middlebury.edu/stereo/submit3/",
    ),
)
def middlebury_v3(root: Path, split: str) -> list[PairFiles]:
    if split not in _SPLITS_V3:
        raise unknown_split("middlebury-v3", split)
    base = present(root / "MiddEval3") or root
    return [
        scene_pair(folder, "Middlebury v3", truth=("disp0GT.pfm", "disp1GT.pfm"))
        for folder in scene_folders(base / split)
    ]


@source(
    "middlebury2021",
    Card(
        title="Middlebury 2021 (mobile)",
        splits=("all",),
        pairs="24",
        image="1920x1080 or 1080x1920",
        disk="350 MB",
        licence=_LICENCE,
        link="https://vision.middlebury.edu/stereo/data/scenes2021/",
    ),
)
def middlebury2021(root: Path, split: str) -> list[PairFiles]:
    if split != "all":
        raise unknown_split("middlebury2021", split)
    base = present(root / "data") or root
    return [
        scene_pair(folder, "Middlebury 2021", truth=("disp0.pfm", "disp1.pfm"))
        for folder in scene_folders(base)
    ]
