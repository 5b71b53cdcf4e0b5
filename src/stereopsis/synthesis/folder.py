"""A rendered data set on disk: one folder a scene, with a `scene.json` as the open scenes have.

A scene folder appears whole: it is written under a temporary name beside its place and renamed. A run
that was stopped is continued by running it again.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
import torch

from stereopsis.io.disparity import write_disparity
from stereopsis.io.images import write_image
from stereopsis.structures import Calibration
from stereopsis.synthesis.distributions import Distribution, distribution
from stereopsis.synthesis.patterns import photographs
from stereopsis.synthesis.render import DATASET, Rendering
from stereopsis.synthesis.stream import SyntheticStream

VISIBLE, OCCLUDED, UNKNOWN = 255, 128, 0
PART = ".part"


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to render: indices [start, start + count) of a stream, into scene folders of `output`."""

    output: Path
    distribution: str | Distribution = "general"
    count: int = 1
    start: int = 0
    seed: int = 0
    size: tuple[int, int] = (480, 640)
    photographs: Path | None = None

    @property
    def kind(self) -> str:
        return self.distribution if isinstance(self.distribution, str) else self.distribution.name

    def name(self, index: int) -> str:
        return f"{self.kind}-{self.seed}-{index:06d}"

    def stream(self) -> SyntheticStream:
        return SyntheticStream(self.seed, self.distribution, size=self.size, folder=self.photographs)


def render_folder(order: Order, *, workers: int = 1) -> Iterator[str]:
    """Renders what is not there yet, in `workers` processes, and yields the name of every scene once.

    Raises ValueError where a scene is there in another size, OSError where it cannot be written or a
    process was killed.
    """
    if isinstance(order.distribution, str):
        distribution(order.distribution)
    if order.photographs is not None:
        photographs(order.photographs)
    order.output.mkdir(parents=True, exist_ok=True)
    indices = range(order.start, order.start + order.count)
    missing = [index for index in indices if not _finished(order, index)]
    for index in sorted(set(indices) - set(missing)):
        yield order.name(index)
    if workers <= 1:
        for index in missing:
            yield _render_one(order, index)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin) as pool:
        pending: list[Future[str]] = [pool.submit(_render_one, order, index) for index in missing]
        try:
            for done in as_completed(pending):
                yield done.result()
        except BrokenProcessPool as error:
            raise OSError(
                "a rendering process was killed, mostly for want of memory: run again with fewer --workers"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin() -> None:
    """One thread for rendering; and another that ends the worker with its parent, however that was killed."""
    torch.set_num_threads(1)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def _finished(order: Order, index: int) -> bool:
    path = order.output / order.name(index) / "scene.json"
    if not path.exists():
        return False
    content = json.loads(path.read_text())
    there = (content["height"], content["width"])
    if there != order.size:
        sizes = [f"{width}x{height}" for height, width in (there, order.size)]
        raise ValueError(
            f"{path.parent} is there already, {sizes[0]} where {sizes[1]} was asked for: name another folder"
        )
    return True


def _render_one(order: Order, index: int) -> str:
    name = order.name(index)
    if not _finished(order, index):  # by another run, since this one began
        rendering = order.stream().rendering(index)
        with _appearing(order.output / name) as folder:
            write_scene(folder, rendering, order, index)
    return name


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A temporary folder beside the target: renamed at the end, removed on any exception.

    What an earlier run left under such a name is removed first, but not what another run writes now. Where
    that one was quicker its scene stays: it is the same.
    """
    for rest in folder.parent.glob(f".{folder.name}.*{PART}"):
        if _abandoned(rest):
            shutil.rmtree(rest, ignore_errors=True)
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}{PART}")
    temporary.mkdir()
    try:
        yield temporary
        try:
            temporary.rename(folder)
        except OSError:
            if not (folder / "scene.json").exists():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _abandoned(temporary: Path) -> bool:
    """Whether nothing was written into it for a minute; a scene takes a second."""
    try:
        return time.time() - temporary.stat().st_mtime > 60
    except FileNotFoundError:
        return False


def write_scene(folder: Path, rendering: Rendering, order: Order, index: int) -> None:
    """Images, truth of both views and `scene.json` into an empty folder."""
    sample, left, right = rendering.sample, rendering.left, rendering.right
    for side, image in (("left", sample.pair.left), ("right", sample.pair.right)):
        pixels = (image * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        write_image(folder / f"{side}.png", np.ascontiguousarray(pixels))
    for side, truth in (("left", left), ("right", right)):
        valid = truth.valid.cpu().numpy()
        write_disparity(folder / f"disp_{side}.npz", truth.disparity.cpu().numpy(), valid=valid)
        mask = np.where(truth.occluded.cpu().numpy(), OCCLUDED, VISIBLE)
        write_image(folder / f"occlusion_{side}.png", np.where(valid, mask, UNKNOWN).astype(np.uint8))
    (folder / "scene.json").write_text(json.dumps(_description(rendering, order, index), indent=1))
    _flush(folder)


def _flush(folder: Path) -> None:
    """To the disk before the rename: a power cut leaves no empty files under a final name."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _description(rendering: Rendering, order: Order, index: int) -> dict[str, object]:
    truth, info = rendering.left, rendering.sample.info[0]
    assert info.calibration is not None
    known = truth.disparity[truth.valid]
    levels = {"visible": [VISIBLE], "occluded": [OCCLUDED], "unknown": [UNKNOWN]}
    height, width = rendering.sample.pair.size
    return {
        "name": info.name,
        "dataset": f"{DATASET}-{order.kind}",
        "left": "left.png",
        "right": "right.png",
        "rectified": True,
        "width": width,
        "height": height,
        "disparity_left": {"file": "disp_left.npz", "encoding": "npz"},
        "disparity_right": {"file": "disp_right.npz", "encoding": "npz"},
        "occlusion_mask": {"file": "occlusion_left.png", **levels},
        "occlusion_mask_right": {"file": "occlusion_right.png", **levels},
        "calibration": _calibration(info.calibration),
        "ground_truth": {
            "density": float(truth.valid.float().mean()),
            "min": float(known.min()) if len(known) else 0.0,
            "max": float(known.max()) if len(known) else 0.0,
        },
        "rendered": {"distribution": order.kind, "seed": order.seed, "index": index},
    }


def _calibration(calibration: Calibration) -> dict[str, object]:
    return {
        "focal_px": calibration.focal,
        "baseline": calibration.baseline,
        "baseline_unit": "m",
        "doffs": calibration.doffs,
        "cx_left": calibration.cx,
        "cx_right": calibration.cx + calibration.doffs,
        "cy": calibration.cy,
    }
