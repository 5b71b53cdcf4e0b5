"""Scene Flow data sets: FlyingThings3D, Monkaa and Driving (Mayer et al., CVPR 2016).

Layout, full: `[<set>/]frames_{cleanpass,finalpass}/.../left/0006.{png,webp}`, the right view in `right/`,
truth in `[<set>/]disparity/.../{left,right}/0006.pfm`; archives that prefix these folders
(`driving_frames_cleanpass`, `driving_disparity`) are found too. FlyingThings3D has `TRAIN` and `TEST`
below; Monkaa and Driving are all training. Layout, the DispNet subset:
`FlyingThings3D_subset/{train,val}/{image_clean,image_final}/{left,right}/0000000.png`,
`.../disparity/{left,right}/0000000.pfm`, `.../disparity_occlusions/{left,right}/0000000.png` (255 occluded).

Disparity is positive pixels; where the subset stores the left view's negative, the sign is dropped.
Every pixel has truth. Focal length 1050 px (450 in Driving's 15 mm scenes), baseline 1 unit of Blender.
"""

from __future__ import annotations

from pathlib import Path

from stereopsis.data.files import MapFile, MaskFile, PairFiles
from stereopsis.data.sources.paths import below, present, swapped
from stereopsis.data.sources.registry import Card, source, unknown_split
from stereopsis.structures import Calibration

_SPLITS = tuple(
    f"{part}-{render}"
    for render in ("final", "clean")
    for part in ("train", "test", "flyingthings", "monkaa", "driving", "subset-train", "subset-val")
)


@source(
    "sceneflow",
    Card(
        title="Scene Flow: FlyingThings3D, Monkaa, Driving",
        splits=_SPLITS,
        pairs="35,454 training (22,390 FlyingThings3D, 8,664 Monkaa, 4,400 Driving), 4,370 test",
        image="960x540",
        disk="about 110 GB per pass as PNG, 200 GB of disparity",
        licence="research only, no commercial use",
        link="https://lmb.informatik.uni-freiburg.de/resources/datasets/SceneFlowDatasets.en.html",
    ),
)
def sceneflow(root: Path, split: str) -> list[PairFiles]:
    if split not in _SPLITS:
        raise unknown_split("sceneflow", split)
    part, _, render = split.rpartition("-")
    if part.startswith("subset-"):
        return _subset(root, part.removeprefix("subset-"), render)
    frames = f"frames_{render}pass"
    folders = sorted({*root.glob(f"*{frames}"), *root.glob(f"*/*{frames}")})
    lefts = [
        path for folder in folders for path in sorted(folder.rglob("left/*")) if _wanted(path, part, root)
    ]
    return [_pair(left, root, frames, f"{render} pass") for left in lefts]


def _wanted(path: Path, part: str, root: Path) -> bool:
    if path.suffix not in (".png", ".webp"):
        return False
    parts = path.relative_to(root).parts
    kind = "".join(parts).lower()
    test = "TEST" in parts
    if part in ("train", "test"):
        return test == (part == "test")
    things = "TRAIN" in parts or test
    if part == "flyingthings":
        return things and not test
    return part in kind and not things


def _pair(left: Path, root: Path, frames: str, render: str) -> PairFiles:
    folder = next(part for part in left.relative_to(root).parts if part.endswith(frames))
    truth = {folder: folder.replace(frames, "disparity")}
    right = {"left": "right"}
    return PairFiles(
        name=below(left, root),
        dataset=f"Scene Flow ({render})",
        left=left,
        right=swapped(left, root, right),
        disparity=MapFile(swapped(left, root, truth, suffix=".pfm"), "pfm|abs"),
        disparity_right=MapFile(swapped(left, root, truth | right, suffix=".pfm"), "pfm|abs"),
        calibration=_calibration(450.0 if "15mm_focallength" in left.parts else 1050.0),
    )


def _subset(root: Path, part: str, render: str) -> list[PairFiles]:
    base = present(root / "FlyingThings3D_subset") or root
    images = base / part / f"image_{render}"
    pairs = []
    for left in sorted((images / "left").glob("*.png")):
        maps = [base / part / "disparity" / side / f"{left.stem}.pfm" for side in ("left", "right")]
        hidden = present(base / part / "disparity_occlusions" / "left" / left.name)
        pairs.append(
            PairFiles(
                name=below(left, base),
                dataset=f"Scene Flow subset ({render} pass)",
                left=left,
                right=images / "right" / left.name,
                disparity=MapFile(maps[0], "pfm|abs"),
                disparity_right=MapFile(maps[1], "pfm|abs"),
                occluded=(MaskFile(hidden),) if hidden else (),
                calibration=_calibration(1050.0),
            )
        )
    return pairs


def _calibration(focal: float) -> Calibration:
    return Calibration(focal=focal, baseline=1.0, cx=479.5, cy=269.5, size=(540, 960))
