"""UnrealStereo4K fetched a scene at a time, since all of it is about 500 GB.

Its authors publish one zip for each of nine scenes (scripts/download_data.sh of fabiotosi92/SMD-Nets).
"""

from __future__ import annotations

import shutil
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

SCENES = range(9)
ADDRESS = "https://s3.eu-central-1.amazonaws.com/avg-projects/smd_nets/UnrealStereo4K_{scene:05d}.zip"
_PIECE = 1 << 20

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are here and the bytes that there are (None where the server does not say)."""


def fetch_scene(
    root: Path, scene: int, *, address: str = ADDRESS, progress: Progress | None = None
) -> list[Path]:
    """Downloads a scene's zip into `root`, unpacks it there and removes it; gives the unpacked files.

    An interrupted download is continued by the next call. Raises ValueError for a scene that does not
    exist and a damaged zip, OSError where the network or the disk fails.
    """
    if scene not in SCENES:
        raise ValueError(f"UnrealStereo4K has the scenes {SCENES[0]} to {SCENES[-1]}, not {scene}")
    root.mkdir(parents=True, exist_ok=True)
    url = address.format(scene=scene)
    part = root / f".{Path(url).name}.part"
    _download(url, part, progress)
    try:
        files = _unpack(part, root)
    except zipfile.BadZipFile as error:
        part.unlink()
        raise ValueError(f"{url} came damaged ({error}): run it again") from error
    part.unlink()
    return files


def _download(url: str, part: Path, progress: Progress | None) -> None:
    """The rest of the file behind what is there; a finished part is left as it is."""
    here = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={here}-"} if here else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            continued = response.status == 206
            length = response.headers.get("Content-Length")
            total = None if length is None else int(length) + (here if continued else 0)
            with part.open("ab" if continued else "wb") as file:
                while piece := response.read(_PIECE):
                    file.write(piece)
                    if progress is not None:
                        progress(file.tell(), total)
    except urllib.error.HTTPError as error:
        if error.code == 416 and here:  # nothing is left to send
            return
        raise OSError(f"{url} cannot be fetched ({error}): see the data set's page") from error
    except urllib.error.URLError as error:
        raise OSError(f"{url} cannot be reached ({error.reason}): is there a network?") from error
    if total is not None and part.stat().st_size < total:
        raise OSError(f"{url} broke off at {part.stat().st_size} of {total} bytes: run it again to continue")


def _unpack(archive: Path, root: Path) -> list[Path]:
    """Every file of the zip below `root`, streamed; ValueError for names that lead outside."""
    written = []
    with zipfile.ZipFile(archive) as opened:
        for entry in opened.infolist():
            name = PurePosixPath(entry.filename)
            if name.is_absolute() or ".." in name.parts:
                raise ValueError(f"{archive} holds {entry.filename!r}, which leads outside its folder")
            if entry.is_dir():
                continue
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with opened.open(entry) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, _PIECE)
            written.append(target)
    return written
