"""UnrealStereo4K, rendered (Tosi et al., CVPR 2021, SMD-Nets).

`<scene>/Image0/00000.{png,raw}` and `Image1`, truth `Disp0/00000.npy` and `Disp1` (of both views), poses
`Extrinsics0/00000.txt` and `Extrinsics1` (a line of 3x3 intrinsics, a line of 3x4 world to camera). The
quarter-resolution release has the same layout. Lists `[filenames/]{train,val,test}.txt` give
`left right truth [right truth]` in each line; without lists, `all` takes every frame.
Active set: lines of `image truth`, the right view is the projected pattern, `imgLaser.raw` or `.png`.

`.raw` is 2160x3840 bytes, BGR (gray when active). Disparity is positive pixels of the released size.
"""

from __future__ import annotations

from pathlib import Path

from stereopsis.data.files import CalibrationFile, MapFile, PairFiles
from stereopsis.data.sources.paths import below, list_lines, present
from stereopsis.data.sources.registry import Card, source, unknown_split

_LINK = "https://github.com/fabiotosi92/SMD-Nets"
_SPLITS = ("all", "train", "val", "test")


@source(
    "unrealstereo4k",
    Card(
        title="UnrealStereo4K",
        splits=_SPLITS,
        pairs="7,720 training, 280 validation, 200 test",
        image="3840x2160 (quarter release: 960x540)",
        disk="about 500 GB",
        licence="MIT",
        link=_LINK,
    ),
)
def unrealstereo4k(root: Path, split: str) -> list[PairFiles]:
    if split not in _SPLITS:
        raise unknown_split("unrealstereo4k", split)
    if split == "all":
        lefts = {p.with_suffix(".png") for p in root.glob("*/Image0/*") if p.suffix in (".png", ".raw")}
        return [_pair(_preferred(left), root) for left in sorted(lefts)]
    return [_pair(_stored(line[0]), root) for line in list_lines(_list_file(root, split), root=root)]


@source(
    "unrealstereo4k-active",
    Card(
        title="UnrealStereo4K, active: images of a projected pattern",
        splits=("test", "train", "val"),
        pairs="as its lists say",
        image="4112x3008 or 3840x2160",
        disk="as released",
        licence="MIT",
        link=_LINK,
    ),
)
def unrealstereo4k_active(root: Path, split: str) -> list[PairFiles]:
    if split not in _SPLITS[1:]:
        raise unknown_split("unrealstereo4k-active", split)
    pattern = present(root / "imgLaser.png") or root / "imgLaser.raw"
    return [
        PairFiles(
            name=below(image, root),
            dataset="UnrealStereo4K active",
            left=_stored(image),
            right=pattern,
            disparity=MapFile(truth, truth.suffix[1:]),
        )
        for image, truth in list_lines(_list_file(root, split), root=root)
    ]


def _pair(left: Path, root: Path) -> PairFiles:
    scene, frame = left.parent.parent, left.stem
    poses = [scene / f"Extrinsics{camera}" / f"{frame}.txt" for camera in (0, 1)]
    right_truth = present(scene / "Disp1" / f"{frame}.npy")
    return PairFiles(
        name=below(left, root),
        dataset="UnrealStereo4K",
        left=left,
        right=scene / "Image1" / left.name,
        disparity=MapFile(scene / "Disp0" / f"{frame}.npy", "npy"),
        disparity_right=MapFile(right_truth, "npy") if right_truth else None,
        calibration=CalibrationFile(poses[0], "unrealstereo4k", poses[1])
        if all(pose.exists() for pose in poses)
        else None,
    )


def _list_file(root: Path, split: str) -> Path:
    name = f"{split}.txt"
    found = present(root / "filenames" / name) or present(root / name)
    if found is None:
        raise FileNotFoundError(f"{root} has no list {name} (or filenames/{name}): fetch it from {_LINK}")
    return found


def _preferred(image: Path) -> Path:
    """Of a frame that is there in both formats the raw one, which loads faster."""
    raw = image.with_suffix(".raw")
    return raw if raw.exists() else image


def _stored(image: Path) -> Path:
    """The listed image, or the same frame in the other format."""
    other = image.with_suffix(".raw" if image.suffix == ".png" else ".png")
    return image if image.exists() or not other.exists() else other
