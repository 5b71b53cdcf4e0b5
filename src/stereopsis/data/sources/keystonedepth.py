"""KeystoneDepth: historical stereographs (Luo et al., 2020).

`<anywhere>/<id>L.png`, `<id>R.png`; truth two folders up, `processed/rectified/disp_info_LR/<id>L.exr` and
`<id>R.exr`: float EXR, positive pixels. Images and maps differ slightly in size and share their centre.
"""

from __future__ import annotations

from pathlib import Path

from stereopsis.data.files import MapFile, PairFiles
from stereopsis.data.sources.paths import below
from stereopsis.data.sources.registry import Card, source, unknown_split


@source(
    "keystonedepth",
    Card(
        title="KeystoneDepth",
        splits=("all",),
        pairs="37,239",
        image="about 700x700",
        disk="about 100 GB",
        licence="as its authors state (research)",
        link="https://roxanneluo.github.io/KeystoneDepth.html",
    ),
)
def keystonedepth(root: Path, split: str) -> list[PairFiles]:
    if split != "all":
        raise unknown_split("keystonedepth", split)
    pairs = []
    for left in sorted(root.rglob("*L.png")):
        frame = left.stem.removesuffix("L")
        maps = left.parent.parent / "processed" / "rectified" / "disp_info_LR"
        right, truth = left.with_name(f"{frame}R.png"), maps / f"{frame}L.exr"
        if not (right.exists() and truth.exists()):
            continue
        pairs.append(
            PairFiles(
                name=below(left, root),
                dataset="KeystoneDepth",
                left=left,
                right=right,
                disparity=MapFile(truth, "exr"),
                disparity_right=MapFile(maps / f"{frame}R.exr", "exr"),
                centre_crop=True,
            )
        )
    return pairs
