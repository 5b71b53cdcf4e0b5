"""Anybody's own pairs: a folder in a common layout, or a list as CSV.

`folder`: pairs as `stereopsis.io.pairs` finds them (`im0/im1`, `left/right`, ..., folders `left/` and
`right/`). Truth is looked for beside the left image, as `disp0GT`, `disp0`, `disparity`, `disp_left`,
`left_disp`, `gt` or `<left image>_disp`, and, for folders of views, in a folder `disparity`, `disp`,
`disp_occ_0`, `disp_occ` or `gt` under the image's name: PFM, npy, npz, EXR, or 16-bit PNG / 256 (0 unknown).
`depth` or `<left image>_depth` (npy in metres, 16-bit PNG in millimetres) needs a calibration.

`csv`: the split is the file's name. Columns `left`, `right`, and where there are any `name`, `disparity`,
`disparity_right`, `encoding` (of both), `calibration`, `occluded` (a mask, 255 occluded), `dataset`; paths
relative to the list.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from stereopsis.data.files import CalibrationFile, MapFile, MaskFile, PairFiles
from stereopsis.data.sources.paths import below, present
from stereopsis.data.sources.registry import Card, source, unknown_split
from stereopsis.io.files import read_text
from stereopsis.io.pairs import PairPaths, find_pairs

_ENCODINGS = {".pfm": "pfm", ".npy": "npy", ".npz": "npz", ".exr": "exr", ".png": "png16/256"}
_DEPTHS = {".npy": "depth-npy", ".png": "depth-png16*1000"}
_TRUTH = ("disp0GT", "disp0", "disparity", "disp_left", "left_disp", "gt")
_FOLDERS = ("disparity", "disp", "disp_occ_0", "disp_occ", "gt")


@source(
    "folder",
    Card(
        title="Any folder of pairs, with truth where it is found",
        splits=("all", "truth"),
        pairs="any",
        image="any",
        disk="-",
        licence="the owner's",
        link="-",
    ),
)
def folder(root: Path, split: str) -> list[PairFiles]:
    if split not in ("all", "truth"):
        raise unknown_split("folder", split)
    pairs = [_found(paths, root) for paths in find_pairs(root) if paths.rectified]
    return [files for files in pairs if split == "all" or files.disparity is not None]


@source(
    "csv",
    Card(
        title="A list of pairs: a CSV file in the folder, named as the split",
        splits=("pairs.csv",),
        pairs="any",
        image="any",
        disk="-",
        licence="the owner's",
        link="-",
    ),
)
def csv_list(root: Path, split: str) -> list[PairFiles]:
    path = root / (split if split.endswith(".csv") else f"{split}.csv")
    rows = list(csv.DictReader(read_text(path, "a list").splitlines()))
    if not rows or not {"left", "right"} <= rows[0].keys():
        raise ValueError(f"{path} needs a first line with the columns left and right, and a line per pair")
    return [_row(row, path, number) for number, row in enumerate(rows, start=2)]


def _found(paths: PairPaths, root: Path) -> PairFiles:
    return PairFiles(
        name=paths.name,
        dataset=root.name,
        left=paths.left,
        right=paths.right,
        disparity=next(_truth(paths.left), None),
        calibration=CalibrationFile(paths.calibration) if paths.calibration else None,
    )


def _truth(left: Path) -> Iterator[MapFile]:
    """The truth of a left image, disparity before depth."""
    names = [left.with_name(name) for name in _TRUTH] + [left.with_name(f"{left.stem}_disp")]
    names += [left.parent.parent / name / left.stem for name in _FOLDERS]
    for known, stems in (
        (_ENCODINGS, names),
        (_DEPTHS, [left.with_name("depth"), left.with_name(f"{left.stem}_depth")]),
    ):
        for stem in stems:
            for suffix, encoding in known.items():
                path = stem.with_name(stem.name + suffix)
                if path != left and path.is_file():
                    yield MapFile(path, encoding)


def _row(row: Mapping[str, str | None], path: Path, number: int) -> PairFiles:
    def file(column: str) -> Path | None:
        text = (row.get(column) or "").strip()
        return path.parent / text if text else None

    def truth(column: str) -> MapFile | None:
        found = file(column)
        if found is None:
            return None
        encoding = (row.get("encoding") or "").strip() or _ENCODINGS.get(found.suffix.lower())
        if encoding is None:
            raise ValueError(
                f"{path}, line {number}: {found.name} does not tell its encoding: give the column"
            )
        return MapFile(found, encoding)

    left, right = file("left"), file("right")
    if left is None or right is None:
        raise ValueError(f"{path}, line {number}: left and right must both name a file")
    hidden, calibration = file("occluded"), file("calibration")
    return PairFiles(
        name=(row.get("name") or "").strip() or below(left, path.parent),
        dataset=(row.get("dataset") or "").strip() or path.stem,
        left=left,
        right=right,
        disparity=truth("disparity"),
        disparity_right=truth("disparity_right"),
        occluded=(MaskFile(hidden),) if hidden else (),
        calibration=CalibrationFile(calibration) if calibration and present(calibration) else None,
    )
