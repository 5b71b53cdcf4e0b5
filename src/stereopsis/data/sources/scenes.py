"""Scene folders with a `scene.json`: the open scenes, rendered data, and anybody's own.

`scene.json` names the two images, `disparity_left` and `disparity_right` (file and encoding), an
`occlusion_mask` of the left view (file, and the values that mean occluded) and the `calibration`.
Disparity is positive pixels of the images given; unknown is infinity in PFM and 0 in PNG.
"""

from __future__ import annotations

from pathlib import Path

from stereopsis.data.files import MapFile, MaskFile, PairFiles
from stereopsis.data.sources.registry import Card, source, unknown_split
from stereopsis.io.scene import DisparityFile, read_scene


def scene_files(path: Path) -> PairFiles | None:
    """The pair that a `scene.json` describes; None where it is not rectified."""
    scene = read_scene(path)
    if not scene.rectified:
        return None
    occlusion = scene.occlusion
    return PairFiles(
        name=scene.name,
        dataset=scene.dataset or path.parent.parent.name,
        left=scene.left,
        right=scene.right,
        disparity=_map_file(scene.disparity),
        disparity_right=_map_file(scene.disparity_right),
        occluded=(MaskFile(occlusion.path, occlusion.occluded),) if occlusion else (),
        calibration=scene.calibration,
    )


def _map_file(file: DisparityFile | None) -> MapFile | None:
    return MapFile(file.path, file.encoding) if file else None


def rendered_splits(root: Path) -> set[str]:
    """`synthetic/DISTRIBUTION seed SEED` of every rendered pair in a folder of scenes."""
    found = {read_scene(path).rendered for path in _scenes_in(root)}
    return {f"synthetic/{rendered[0]} seed {rendered[1]}" for rendered in found if rendered}


def _scenes_in(root: Path) -> list[Path]:
    return [root / "scene.json"] if (root / "scene.json").exists() else sorted(root.glob("*/scene.json"))


def _list_scenes(name: str, root: Path, split: str) -> list[PairFiles]:
    if split not in ("truth", "all"):
        raise unknown_split(name, split)
    pairs = [files for path in _scenes_in(root) if (files := scene_files(path)) is not None]
    return [files for files in pairs if split == "all" or files.disparity is not None]


@source(
    "open",
    Card(
        title="Open scenes: real and rendered pairs from ten public data sets",
        splits=("truth", "all"),
        pairs="12 with truth, 4 without",
        image="423x370 to 2464x2056",
        disk="30 MB",
        licence="as each data set's authors state; several for research only, not for redistribution",
        link="scene.json of each scene names its source",
        folder="real",
    ),
)
def open_scenes(root: Path, split: str) -> list[PairFiles]:
    return _list_scenes("open", root, split)


@source(
    "scenes",
    Card(
        title="Any folder of scene folders with scene.json, as stereopsis render writes them",
        splits=("all", "truth"),
        pairs="any",
        image="any",
        disk="-",
        licence="the owner's",
        link="-",
    ),
)
def scenes(root: Path, split: str) -> list[PairFiles]:
    return _list_scenes("scenes", root, split)
