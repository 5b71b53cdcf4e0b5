"""Stereo pairs found in a folder or by a glob, with their calibration where one lies beside them.

A folder's pairs, the first of these that applies: the one that its `scene.json` names; files of the
common names (`im0`/`im1`, `left`/`right`, `view1`/`view5`, ...: see `stereopsis.io.names`); files whose
names differ in a side (`shelf_left_003`, `shelf_right_003`). Two folders of these names
(`left`/`right`, `image_2`/`image_3`, ...) pair their files of equal names. Folders below are searched too.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stereopsis.io.files import existing_folder
from stereopsis.io.images import IMAGE_SUFFIXES
from stereopsis.io.names import EXACT, right_name
from stereopsis.io.scene import Scene, read_scene

LAYOUTS = "scene.json, im0/im1, left/right, view1/view5, name_left/name_right, or folders left/ and right/"

_MAPS = re.compile(r"disp|depth|occ|mask|conf|noc|flow|valid|normal", re.IGNORECASE)
_CALIBRATIONS = re.compile(r"(calib\w*|calibration|intrinsics|K|extrinsics)\.(txt|json|ya?ml|xml)")


@dataclass(frozen=True)
class PairPaths:
    """One pair on disk.

    name: unique in its list, with `/` between folders; calibration: a file for
    `stereopsis.io.calibration.read_calibration`, or for `read_raw_calibration` where `rectified` is False.
    """

    name: str
    left: Path
    right: Path
    calibration: Path | None = None
    rectified: bool = True


def find_pairs(where: str | Path) -> list[PairPaths]:
    """The pairs in a folder, below it, or matched by a glob (of folders, or of left images), sorted by name.

    Raises FileNotFoundError or ValueError where there is none, naming the layouts that are known, and
    where an image of one folder has no partner in the other.
    """
    path = Path(where)
    if not path.exists() and any(sign in str(where) for sign in "*?["):
        pairs = _matched(str(where))
    elif path.is_file() and path.name == "scene.json":
        pairs = [_from_scene(read_scene(path), path.parent.name)]
    else:
        root = existing_folder(path)
        pairs = list(_search(root, root, set()))
    if not pairs:
        raise ValueError(f"{where} holds no stereo pair: known are {LAYOUTS}")
    return _uniquely_named(sorted(pairs, key=lambda pair: (pair.name, str(pair.left))))


def _matched(pattern: str) -> list[PairPaths]:
    matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207 - absolute too
    if not matches:
        raise FileNotFoundError(f"nothing matches {pattern}: check the pattern, and quote it in a shell")
    seen: set[Path] = set()
    pairs = [pair for folder in matches if folder.is_dir() for pair in _search(folder, folder.parent, seen)]
    for file in matches:
        if file.name == "scene.json":
            pairs.append(_from_scene(read_scene(file), file.parent.name))
        elif file.suffix.lower() in IMAGE_SUFFIXES:
            pairs.extend(_of_left_image(file))
    return list(dict.fromkeys(pairs))


def _of_left_image(file: Path) -> Iterator[PairPaths]:
    """The pair of a left image by its scene, its own name or its folder's; none for any other image."""
    if (file.parent / "scene.json").is_file():
        scene = read_scene(file.parent)
        if scene.left.name == file.name:
            yield _from_scene(scene, file.parent.name)
            return
    stem, folder = right_name(file.stem), right_name(file.parent.name)
    root = file.parent.parent
    if stem is not None and not _MAPS.search(file.stem):
        other = _with_stem(file.parent, stem)
        if other is not None:
            yield PairPaths(f"{file.parent.name}/{file.stem}", file, other, _calibration(file, root))
            return
    if folder is not None and (root / folder).is_dir():
        other = _counterpart(file, root / folder, file.parent)
        if other is not None:
            yield PairPaths(file.stem, file, other, _calibration(file, root))


def _search(folder: Path, root: Path, seen: set[Path]) -> Iterator[PairPaths]:
    """The pairs of a folder and of those below it; a folder is entered once, whatever links lead to it."""
    if folder.resolve() in seen:
        return
    seen.add(folder.resolve())
    name = folder.relative_to(root).as_posix() if folder != root else folder.resolve().name
    if (folder / "scene.json").is_file():
        yield _from_scene(read_scene(folder), name)
        return
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    folders = [entry for entry in entries if entry.is_dir()]
    files = [entry for entry in entries if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file()]
    inside = _pairs_of_files(files)
    for left, right in inside:
        own = name if len(inside) == 1 else (left.stem if folder == root else f"{name}/{left.stem}")
        yield PairPaths(own, left, right, _calibration(left, root))
    used: set[Path] = set()
    for left, right in _pairs_of_folders(folders):
        found = list(_equal_names(left, right, root))
        used |= {left, right} if found else set()
        yield from found
    for entry in folders:
        if entry not in used:
            yield from _search(entry, root, seen)


def _from_scene(scene: Scene, name: str) -> PairPaths:
    calibration = scene.left.parent / "scene.json" if scene.calibration else scene.raw_calibration
    return PairPaths(name, scene.left, scene.right, calibration, scene.rectified)


def _pairs_of_files(files: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Exact names where there are any, else names that differ in a side, truth and masks left out."""
    by_stem = {file.stem: file for file in reversed(files)}
    lower = {stem.lower(): file for stem, file in by_stem.items()}
    exact = [(lower[left], lower[right]) for left, right in EXACT if left in lower and right in lower]
    if exact:
        return exact
    sides = ((file, right_name(stem)) for stem, file in by_stem.items() if not _MAPS.search(stem))
    return sorted((file, by_stem[other]) for file, other in sides if other in by_stem)


def _pairs_of_folders(folders: Sequence[Path]) -> list[tuple[Path, Path]]:
    by_name = {folder.name: folder for folder in folders}
    named = ((folder, right_name(name)) for name, folder in by_name.items() if not _MAPS.search(name))
    return [(folder, by_name[other]) for folder, other in named if other in by_name]


def _equal_names(left: Path, right: Path, root: Path) -> Iterator[PairPaths]:
    """Files of one folder with those of equal names in the other; nothing where none are equal."""
    files = sorted(file for file in left.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    partners = [(file, _counterpart(file, right, left)) for file in files]
    if all(other is None for _, other in partners):
        return
    prefix = left.parent.relative_to(root).as_posix()
    for file, other in partners:
        if other is None:
            raise ValueError(f"{file} has no partner in {right}: add it, or move this one away")
        own = file.relative_to(left).with_suffix("").as_posix()
        yield PairPaths(own if prefix == "." else f"{prefix}/{own}", file, other, _calibration(file, root))


def _counterpart(file: Path, right: Path, left: Path) -> Path | None:
    """The right folder's file of the same name, else of the same stem, else of the right view's stem."""
    beside = right / file.relative_to(left)
    if beside.is_file():
        return beside
    return _with_stem(beside.parent, file.stem) or _with_stem(beside.parent, right_name(file.stem))


def _with_stem(folder: Path, stem: str | None) -> Path | None:
    if stem is None:
        return None
    candidates = (folder / (stem + suffix) for suffix in IMAGE_SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def _calibration(image: Path, root: Path) -> Path | None:
    """The nearest calibration file: beside the image or in KITTI's folders, then so on up to the root."""
    for folder in (image.parent, *image.parent.parents):
        for below in ("calib", "calib_cam_to_cam"):
            for stem in (image.stem, image.stem.split("_")[0]):
                if (folder / below / f"{stem}.txt").is_file():
                    return folder / below / f"{stem}.txt"
        found = sorted(file for file in folder.iterdir() if _CALIBRATIONS.fullmatch(file.name))
        if found:
            return found[0]
        if folder == root:
            break
    return None


def _uniquely_named(pairs: Sequence[PairPaths]) -> list[PairPaths]:
    seen: dict[str, int] = {}
    named = []
    for pair in pairs:
        seen[pair.name] = seen.get(pair.name, 0) + 1
        again = seen[pair.name] > 1
        named.append(replace(pair, name=f"{pair.name}-{seen[pair.name]}") if again else pair)
    return named
