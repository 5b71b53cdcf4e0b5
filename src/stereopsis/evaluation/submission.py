"""Predictions packed as the benchmarks want them, and packs checked against the benchmarks' rules.

- `kitti2012`: `000000_10.png` .. `000194_10.png`, 16-bit PNG, disparity * 256, in the archive's root.
- `kitti2015`: `disp_0/000000_10.png` .. `disp_0/000199_10.png`, alike.
- `middlebury-v3-{q,h,f}`: `{training,test}{Q,H,F}/<Scene>/disp0<METHOD>.pfm`, `time<METHOD>.txt` (seconds).
- `eth3d`: `low_res_two_view/<scene>.pfm` and `<scene>.txt` (`runtime <seconds>`), training and test.

Disparity is positive, of the image's size; unknown is 0 in PNG and infinity in PFM, NaN is forbidden.
KITTI's PNG ends at 255.996 px: what is larger is cut to that.
"""

from __future__ import annotations

import re
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stereopsis.data.dataset import StereoDataset
from stereopsis.data.files import PairFiles
from stereopsis.data.sources.registry import list_pairs
from stereopsis.evaluation.run import ByScene, predictor_for
from stereopsis.io.atomic import writing
from stereopsis.io.disparity import write_disparity
from stereopsis.io.images import read_stored
from stereopsis.io.pfm import read_pfm
from stereopsis.structures import Predictor

_LARGEST_PNG = 65535 / 256


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """splits: (split of the data set, number of its pairs); disparity, timing: members of the archive, with
    `{split}`, `{name}` and `{method}`; time_format: of the seconds."""

    name: str
    dataset: str
    splits: tuple[tuple[str, int], ...]
    disparity: str
    timing: str | None = None
    time_format: str = "{:.6f}"

    def members(self, split: str, name: str, method: str) -> tuple[str, str | None]:
        """The paths in the archive of a pair's disparity and of its time."""
        facts = {"split": split, "name": name, "method": method}
        return self.disparity.format(**facts), self.timing and self.timing.format(**facts)


def _middlebury(size: str) -> Benchmark:
    return Benchmark(
        name=f"middlebury-v3-{size.lower()}",
        dataset="middlebury-v3",
        splits=((f"training{size}", 15), (f"test{size}", 15)),
        disparity="{split}/{name}/disp0{method}.pfm",
        timing="{split}/{name}/time{method}.txt",
    )


_BENCHMARKS = (
    Benchmark(name="kitti2012", dataset="kitti2012", splits=(("test", 195),), disparity="{name}.png"),
    Benchmark(name="kitti2015", dataset="kitti2015", splits=(("test", 200),), disparity="disp_0/{name}.png"),
    *(_middlebury(size) for size in "QHF"),
    Benchmark(
        name="eth3d",
        dataset="eth3d",
        splits=(("train", 27), ("test", 20)),
        disparity="low_res_two_view/{name}.pfm",
        timing="low_res_two_view/{name}.txt",
        time_format="runtime {:.6f}",
    ),
)


def list_benchmarks() -> list[str]:
    """Names of the benchmarks."""
    return [known.name for known in _BENCHMARKS]


def benchmark(name: str) -> Benchmark:
    """The benchmark of that name; ValueError where there is none."""
    for known in _BENCHMARKS:
        if known.name == name:
            return known
    raise ValueError(f"no benchmark is called {name!r}: there are {', '.join(list_benchmarks())}")


def submission_pairs(wanted: Benchmark, root: Path | None) -> list[tuple[str, PairFiles]]:
    """(split, pair) of everything that must be predicted; ValueError where the data set is not whole."""
    found = []
    for split, count in wanted.splits:
        pairs = list_pairs(wanted.dataset, split, root=root)
        if len(pairs) != count:
            raise ValueError(
                f"{wanted.name} wants {count} pairs of {wanted.dataset}, split {split}: {len(pairs)} are here"
            )
        found += [(split, files) for files in pairs]
    return found


def write_submission(
    path: str | Path,
    predictor: Predictor | ByScene,
    wanted: Benchmark,
    pairs: Sequence[tuple[str, PairFiles]],
    *,
    method: str,
    advance: Callable[[], None] | None = None,
) -> None:
    """Predicts every pair and writes the archive, whole or not at all.

    method: the name that Middlebury's files carry. Raises ValueError or OSError, naming the pair, where
    one cannot be read or predicted: the benchmarks refuse incomplete archives.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", method):
        raise ValueError(f"the method's name becomes part of file names: letters and digits, not {method!r}")
    with writing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for split, files in pairs:
            disparity, seconds = _predicted(predictor, files)
            member, timing = wanted.members(split, files.name, method)
            archive.writestr(_entry(member), _encoded(disparity, Path(member).suffix))
            if timing is not None:
                archive.writestr(_entry(timing), wanted.time_format.format(seconds) + "\n")
            if advance is not None:
                advance()


def check_submission(
    path: str | Path, wanted: Benchmark, pairs: Sequence[tuple[str, PairFiles]], *, method: str
) -> list[str]:
    """What the benchmark would refuse or punish in an archive, a sentence each; none where all is well."""
    expected: dict[str, PairFiles] = {}
    timings: set[str] = set()
    for split, files in pairs:
        member, timing = wanted.members(split, files.name, method)
        expected[member] = files
        timings |= {timing} if timing else set()
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name for name in archive.namelist() if not name.endswith("/")}
            faults = [f"{name} is missing" for name in sorted((expected.keys() | timings) - names)]
            faults += [f"{name} is not asked for" for name in sorted(names - expected.keys() - timings)]
            for member in sorted(expected.keys() & names):
                faults += _map_faults(member, archive.read(member), expected[member])
            for member in sorted(timings & names):
                faults += _timing_faults(member, archive.read(member), wanted)
    except (zipfile.BadZipFile, OSError) as error:
        return [f"{path} is no whole zip archive ({error})"]
    return faults


def _predicted(predictor: Predictor | ByScene, files: PairFiles) -> tuple[np.ndarray, float]:
    try:
        pair = StereoDataset([files])[0].pair
        predict = predictor_for(predictor, files.name)
        started = time.perf_counter()
        disparity = predict(pair).disparity.cpu().numpy()
        seconds = time.perf_counter() - started
    except (ValueError, OSError, RuntimeError) as error:
        raise ValueError(f"{files.name} cannot be predicted, so there is no archive: {error}") from error
    if disparity.shape != pair.size:
        raise ValueError(f"{files.name}: the disparity is {disparity.shape}, its image {pair.size}")
    return disparity.astype(np.float32), seconds


def _encoded(disparity: np.ndarray, suffix: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"disparity{suffix}"
        if suffix == ".png":
            known = np.isfinite(disparity)
            cut = np.where(known, np.clip(disparity, 0, _LARGEST_PNG), disparity)
            write_disparity(path, cut.astype(np.float32), encoding="png16/256")
        else:
            write_disparity(path, disparity, encoding="pfm")
        return path.read_bytes()


def _entry(member: str) -> zipfile.ZipInfo:
    """An archive's entry with a fixed date, so that equal predictions give equal archives."""
    entry = zipfile.ZipInfo(member, date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _map_faults(member: str, content: bytes, files: PairFiles) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"map{Path(member).suffix}"
        path.write_bytes(content)
        try:
            values = read_pfm(path) if path.suffix == ".pfm" else read_stored(path)
        except (ValueError, OSError) as error:
            return [f"{member} cannot be read: {str(error).replace(str(path), member)}"]
    size = read_stored(files.left).shape[:2]
    if values.shape != size:
        return [f"{member} is {values.shape[1::-1]}, its image {size[::-1]} (width, height)"]
    if path.suffix == ".png":
        if values.dtype != np.uint16:
            return [f"{member} is {values.dtype}: 16 bits in one channel are asked for"]
        return [f"{member} has no disparity at all"] if not values.any() else []
    faults = []
    if np.isnan(values).any():
        faults.append(f"{member} holds NaN: unknown is infinity")
    if (values < 0).any():
        faults.append(f"{member} holds negative disparities")
    if not np.isfinite(values).any():
        faults.append(f"{member} has no disparity at all")
    return faults


def _timing_faults(member: str, content: bytes, wanted: Benchmark) -> list[str]:
    prefix = wanted.time_format.partition("{")[0]
    text = content.decode("utf-8", errors="replace").strip()
    try:
        if not text.startswith(prefix.strip()):
            raise ValueError(text)
        seconds = float(text.removeprefix(prefix.strip()))
    except ValueError:
        return [f"{member} must read {(prefix + '<seconds>')!r}, it reads {text[:40]!r}"]
    return [] if 0 < seconds < 1e6 else [f"{member} gives {seconds} seconds"]
