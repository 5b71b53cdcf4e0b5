"""How much memory a prediction takes, and how large windows may be under a limit.

SGBM's figures were measured (peak resident memory, 0.5 to 5 megapixels). A network's are measured when
asked for: the tensors alive at once during two small predictions, side by side in width because
correlation volumes grow with it, times an allowance for what kernels take beside tensors.
"""

from __future__ import annotations

import resource
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stereopsis.prediction.classical import SGBM
from stereopsis.structures import Predictor, StereoPair

_SGBM_BYTES = 110
"""Per pixel: both views, both disparities, the check and the filling, of float32 and 16 bits."""

_SGBM_VOLUME_BYTES = 4.5
"""Per pixel and disparity of the mode `hh`, which holds the costs and their sums, 16 bits each."""

_KERNEL_ALLOWANCE = 1.6
_OUTPUT_BYTES = 150
"""Per pixel of the whole pair, beside the windows: blended maps, pictures, depth, points."""

_TRIAL_HEIGHT, _TRIAL_WIDTHS = 128, (256, 512)


def bytes_per_pixel(predictor: Predictor, width: int) -> float:
    """Peak working memory of a prediction at this width, a pixel of one image."""
    if isinstance(predictor, SGBM):
        volume = predictor.disparities(width) * _SGBM_VOLUME_BYTES if predictor.mode == "hh" else 0.0
        return _SGBM_BYTES + volume
    narrow, wide = (
        peak_tensor_bytes(lambda trial=trial: predictor(_trial_pair(trial))) / (_TRIAL_HEIGHT * trial)
        for trial in _TRIAL_WIDTHS
    )
    growth = max(0.0, (wide - narrow) / (_TRIAL_WIDTHS[1] - _TRIAL_WIDTHS[0]))
    return _KERNEL_ALLOWANCE * (wide + growth * max(0, width - _TRIAL_WIDTHS[1]))


def window_pixels(predictor: Predictor, size: tuple[int, int], max_memory: int) -> int:
    """Pixels of a window so that predicting a pair of (height, width) `size` keeps below `max_memory` bytes.

    That is main memory, or a GPU's where the predictor runs on one. What is held already counts. Raises
    ValueError where that leaves nothing to work with.
    """
    device = getattr(predictor, "device", None)
    if isinstance(device, torch.device) and device.type == "cuda":
        held = torch.cuda.memory_allocated(device)
    else:
        held = resident_bytes() + _OUTPUT_BYTES * size[0] * size[1]
    pixels = int((max_memory - held) / bytes_per_pixel(predictor, size[1]))
    if pixels < 256 * 256:
        least = held + 256 * 256 * bytes_per_pixel(predictor, size[1])
        raise ValueError(
            f"--max-memory {max_memory / 2**20:.0f}M is too little for a pair of {size[1]}x{size[0]} with "
            f"this model: at least {least / 2**20:.0f}M, or a smaller --scale"
        )
    return pixels


def resident_bytes() -> int:
    """Main memory that this process holds now (where the system does not tell: its peak so far)."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize()
    return peak_resident_bytes()


def peak_resident_bytes() -> int:
    """The most main memory that this process has held."""
    status = Path("/proc/self/status")
    if status.exists():  # `ru_maxrss` would count what the process was before it became this program
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_tensor_bytes(work: Callable[[], Any]) -> int:
    """The most bytes that tensors made during `work()` hold at once."""
    with _Tally() as tally:
        work()
    return tally.peak


class _Tally(TorchDispatchMode):
    """Adds up the storages that appear and takes off those that go."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def _trial_pair(width: int) -> StereoPair:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, _TRIAL_HEIGHT, width, generator=generator)
    return StereoPair(image, image.roll(-8, dims=-1))
