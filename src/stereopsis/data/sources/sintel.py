"""MPI Sintel stereo (Butler et al., ECCV 2012).

`training/{clean,final}_{left,right}/<sequence>/frame_0001.png`, truth `training/disparities/...` (RGB PNG,
disparity = 4 R + G / 64 + B / 16384, positive pixels, 0 valid), `training/occlusions/...` (255: hidden from
the right camera) and `training/outofframe/...` (255: its match lies outside the right image).
"""

from __future__ import annotations

from pathlib import Path

from stereopsis.data.files import MapFile, MaskFile, PairFiles
from stereopsis.data.sources.paths import below, present
from stereopsis.data.sources.registry import Card, source, unknown_split


@source(
    "sintel",
    Card(
        title="MPI Sintel stereo",
        splits=("final", "clean"),
        pairs="1,064 training",
        image="1024x436",
        disk="3 GB",
        licence="as its authors state (research; the film is CC BY 3.0)",
        link="http://sintel.is.tue.mpg.de/stereo",
    ),
)
def sintel(root: Path, split: str) -> list[PairFiles]:
    if split not in ("final", "clean"):
        raise unknown_split("sintel", split)
    base = root / "training"
    pairs = []
    for left in sorted((base / f"{split}_left").glob("*/*.png")):
        frame = left.relative_to(base / f"{split}_left")
        hidden = (present(base / folder / frame) for folder in ("occlusions", "outofframe"))
        pairs.append(
            PairFiles(
                name=below(left, base),
                dataset=f"Sintel ({split} pass)",
                left=left,
                right=base / f"{split}_right" / frame,
                disparity=MapFile(base / "disparities" / frame, "sintel"),
                occluded=tuple(MaskFile(path) for path in hidden if path),
            )
        )
    return pairs
