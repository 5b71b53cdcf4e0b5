"""DrivingStereo (Yang et al., CVPR 2019).

`{train,test}-left-image/[left-image-{half,full}-size/]<date>/<frame>.{jpg,png}`, `-right-image`,
`-disparity-map/ [disparity-map-{half,full}-size/]<date>/<frame>.png`; the weathers
`{sunny,cloudy,foggy,rainy}/ {left,right}-image-{half,full}-size/` and `disparity-map-{half,full}-size/`.
16-bit PNG, / 256 at half size and / 128 at full size, positive pixels, 0 unknown; sparse, from lidar.
"""

from __future__ import annotations

from pathlib import Path

from stereopsis.data.files import MapFile, PairFiles
from stereopsis.data.sources.paths import below, swapped
from stereopsis.data.sources.registry import Card, source, unknown_split

_WEATHERS = ("sunny", "cloudy", "foggy", "rainy")
_SPLITS = ("train", "test", "train-full", "test-full", *_WEATHERS, *(f"{w}-full" for w in _WEATHERS))


@source(
    "drivingstereo",
    Card(
        title="DrivingStereo",
        splits=_SPLITS,
        pairs="174,437 training, 7,751 test, 500 per weather",
        image="881x400 (half), 1762x800 (full)",
        disk="about 150 GB at half size",
        licence="MIT (research)",
        link="https://drivingstereo-dataset.github.io",
    ),
)
def drivingstereo(root: Path, split: str) -> list[PairFiles]:
    if split not in _SPLITS:
        raise unknown_split("drivingstereo", split)
    part, _, full = split.partition("-")
    other = "half" if full else "full"
    left = part if part in _WEATHERS else f"{part}-left-image"
    names: dict[str, dict[str, str]] = {"right": {}, "truth": {}}
    for resolution in ("half", "full"):
        names["right"][f"left-image-{resolution}-size"] = f"right-image-{resolution}-size"
        names["truth"][f"left-image-{resolution}-size"] = f"disparity-map-{resolution}-size"
    names["right"][left] = left.replace("left", "right")
    names["truth"][left] = left.replace("left-image", "disparity-map")
    pairs = []
    for image in sorted(path for path in (root / left).rglob("*") if path.suffix in (".jpg", ".png")):
        folders = image.relative_to(root).parts[:-1]
        if f"left-image-{other}-size" in folders or any(
            name.startswith(("right", "disp")) for name in folders
        ):
            continue
        truth = swapped(image, root, names["truth"], suffix=".png")
        pairs.append(
            PairFiles(
                name=below(image, root),
                dataset=f"DrivingStereo ({part})" if part in _WEATHERS else "DrivingStereo",
                left=image,
                right=swapped(image, root, names["right"]),
                disparity=MapFile(truth, "png16/128" if full else "png16/256"),
            )
        )
    return pairs
