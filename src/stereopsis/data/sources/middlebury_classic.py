"""Middlebury 2001, 2003, 2005 and 2006 (Scharstein, Szeliski, Pal, Hirschmüller).

2001: `<scene>/im2.ppm`, `im6.ppm`, `disp2.pgm`, `disp6.pgm` (8 bits / 8); `tsukuba` has
`scene1.row3.col{3,4}.ppm` and `truedisp.row3.col3.pgm` (/ 16), `map` has `im{0,1}.pgm` and
`disp{0,1}.pgm` (/ 4).
2003: `<scene>{,Q,H,F}/im2.{png,ppm}`, `im6`, `disp2.{png,pgm}`, `disp6`: quarter size / 4, half / 2,
full / 1.
2005, 2006: `[{FullSize,HalfSize,ThirdSize}/]<Scene>/view1.png`, `view5.png`, `disp1.png`, `disp5.png` (/ 1,
/ 2, / 3 by size), `dmin.txt`; focal length 3740 px at full size, baseline 160 mm, and `dmin` pixels (full
size) were cropped away between the views, thus `doffs`.

Disparity is positive pixels of the images given, 0 unknown.
"""

from __future__ import annotations

from pathlib import Path

from stereopsis.data.files import MapFile, PairFiles
from stereopsis.data.sources.paths import below, present
from stereopsis.data.sources.registry import Card, source, unknown_split
from stereopsis.io.files import read_text
from stereopsis.structures import Calibration

_LICENCE = "free to use and publish with citation"
_SCALES_2001 = {"tsukuba": 16, "map": 4}
_NAMES_2001 = {
    "tsukuba": ("scene1.row3.col3.ppm", "scene1.row3.col4.ppm", "truedisp.row3.col3.pgm", ""),
    "map": ("im0.pgm", "im1.pgm", "disp0.pgm", "disp1.pgm"),
}
_SIZES_2003 = {"Q": "quarter", "H": "half", "F": "full"}
_SIZES_2005 = {"third": ("ThirdSize", 3), "half": ("HalfSize", 2), "full": ("FullSize", 1)}


@source(
    "middlebury2001",
    Card(
        title="Middlebury 2001",
        splits=("all",),
        pairs="8",
        image="about 430x380",
        disk="20 MB",
        licence=_LICENCE,
        link="https://vision.middlebury.edu/stereo/data/scenes2001/",
    ),
)
def middlebury2001(root: Path, split: str) -> list[PairFiles]:
    if split != "all":
        raise unknown_split("middlebury2001", split)
    pairs = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        names = _NAMES_2001.get(folder.name, ("im2.ppm", "im6.ppm", "disp2.pgm", "disp6.pgm"))
        if not (folder / names[0]).exists():
            continue
        encoding = f"png8*{_SCALES_2001.get(folder.name, 8)}"
        other = present(folder / names[3]) if names[3] else None
        pairs.append(
            PairFiles(
                name=folder.name,
                dataset="Middlebury 2001",
                left=folder / names[0],
                right=folder / names[1],
                disparity=MapFile(folder / names[2], encoding),
                disparity_right=MapFile(other, encoding) if other else None,
            )
        )
    return pairs


@source(
    "middlebury2003",
    Card(
        title="Middlebury 2003: cones and teddy",
        splits=("quarter", "half", "full"),
        pairs="2",
        image="450x375 to 1800x1500",
        disk="30 MB",
        licence=_LICENCE,
        link="https://vision.middlebury.edu/stereo/data/scenes2003/",
    ),
)
def middlebury2003(root: Path, split: str) -> list[PairFiles]:
    if split not in _SIZES_2003.values():
        raise unknown_split("middlebury2003", split)
    scale = {"quarter": 4, "half": 2, "full": 1}[split]
    pairs = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        left = present(folder / "im2.png") or present(folder / "im2.ppm")
        if left is None or _SIZES_2003.get(folder.name[-1], "quarter") != split:
            continue
        truth, other = (
            MapFile(present(folder / f"disp{view}.png") or folder / f"disp{view}.pgm", f"png8*{scale}")
            for view in (2, 6)
        )
        pairs.append(
            PairFiles(
                name=folder.name,
                dataset="Middlebury 2003",
                left=left,
                right=folder / f"im6{left.suffix}",
                disparity=truth,
                disparity_right=other,
            )
        )
    return pairs


@source(
    "middlebury2005",
    Card(
        title="Middlebury 2005",
        splits=("third", "half", "full"),
        pairs="6 with truth",
        image="about 450x370 to 1390x1110",
        disk="50 MB at full size",
        licence=_LICENCE,
        link="https://vision.middlebury.edu/stereo/data/scenes2005/",
    ),
)
def middlebury2005(root: Path, split: str) -> list[PairFiles]:
    return _views_1_and_5(root, split, "middlebury2005", "Middlebury 2005")


@source(
    "middlebury2006",
    Card(
        title="Middlebury 2006",
        splits=("third", "half", "full"),
        pairs="21",
        image="about 430x370 to 1390x1110",
        disk="170 MB at full size",
        licence=_LICENCE,
        link="https://vision.middlebury.edu/stereo/data/scenes2006/",
    ),
)
def middlebury2006(root: Path, split: str) -> list[PairFiles]:
    return _views_1_and_5(root, split, "middlebury2006", "Middlebury 2006")


def _views_1_and_5(root: Path, split: str, name: str, title: str) -> list[PairFiles]:
    if split not in _SIZES_2005:
        raise unknown_split(name, split)
    folder, scale = _SIZES_2005[split]
    base = root / folder
    pairs = []
    for truth in sorted(base.glob("*/disp1.png")):
        scene = truth.parent
        illuminated = present(scene / "view1.png") or scene / "Illum1" / "Exp0" / "view1.png"
        pairs.append(
            PairFiles(
                name=below(scene, base),
                dataset=title,
                left=illuminated,
                right=illuminated.with_name("view5.png"),
                disparity=MapFile(truth, f"png8*{scale}"),
                disparity_right=MapFile(scene / "disp5.png", f"png8*{scale}"),
                calibration=_calibration(scene / "dmin.txt", scale),
            )
        )
    return pairs


def _calibration(dmin: Path, scale: int) -> Calibration | None:
    if not dmin.exists():
        return None
    try:
        cropped = float(read_text(dmin, "a dmin").split()[0])
    except (ValueError, IndexError) as error:
        raise ValueError(f"{dmin} must hold one number, the smallest disparity in pixels") from error
    return Calibration(focal=3740 / scale, baseline=0.16, doffs=cropped / scale)
