"""Networks with a cost volume against the same networks written as their descriptions read, on a CPU.

Processor seconds of volumes (with and without gradients), of reading disparity out, of the whole networks
and of SMD-Nets' head at 640x480, and the peak memory of each, one thread, each measurement in a process of
its own, the two implementations in turn; the least of the rounds is kept, with what the outputs differ by.
The networks have the deterministic weights of the published networks' fixtures ($STEREOPSIS_REFERENCE).

    python benchmarks/volume_networks.py --rounds 2 --output benchmarks/results/volume-networks.json
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import literal_volume as literal
from stereopsis.io.files import write_json
from stereopsis.layers.cost_volume import (
    concatenation_volume,
    correlation_volume,
    difference_volume,
    groupwise_correlation_volume,
)
from stereopsis.layers.regression import upsampled_soft_argmax
from stereopsis.models.base import IMAGENET_MEAN, IMAGENET_STD, StereoModel, normalise
from stereopsis.models.registry import create
from stereopsis.models.smd import DisparityField, SMDConfig, SMDNet

HEIGHT, WIDTH, LEVELS = 480, 640, 48
ROOT = Path(__file__).resolve().parents[1]
REFERENCE = Path(os.environ.get("STEREOPSIS_REFERENCE", ROOT.parent / "shared" / "reference"))


def features(channels: int = 32, *, gradients: bool = False) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    left, right = torch.randn(2, 1, channels, HEIGHT // 4, WIDTH // 4)
    return left.requires_grad_(gradients), right.requires_grad_(gradients)


def _volume(build: Callable[[Tensor, Tensor], Tensor], channels: int = 32) -> Callable[[], Tensor]:
    left, right = features(channels)
    return lambda: build(left, right)


def _gradients(build: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], Tensor]:
    left, right = features(gradients=True)
    return lambda: torch.cat(torch.autograd.grad(build(left, right).square().sum(), (left, right)))


def _scores() -> Tensor:
    torch.manual_seed(0)
    return 3 * torch.randn(1, LEVELS, HEIGHT // 4, WIDTH // 4)


def _read_ours() -> Callable[[], Tensor]:
    scores, levels = _scores(), torch.arange(4.0 * LEVELS)
    return lambda: upsampled_soft_argmax(scores, levels, (HEIGHT, WIDTH))


def _read_literally() -> Callable[[], Tensor]:
    scores, levels = _scores(), torch.arange(4.0 * LEVELS).view(1, -1, 1, 1)

    def read() -> Tensor:
        whole = F.interpolate(scores[:, None], (4 * LEVELS, HEIGHT, WIDTH), mode="trilinear").squeeze(1)
        return torch.sum(F.softmax(whole, 1) * levels, 1)

    return read


@functools.cache
def _case(fixture: str) -> Any:
    sys.path.append(str(ROOT / "tests"))
    from parity.harness import Case

    return Case(REFERENCE / fixture)


def _model(fixture: str, max_disparity: int) -> StereoModel[Any, Any]:
    case = _case(fixture)
    model = create(case.name, max_disparity=max_disparity)
    assert isinstance(model, StereoModel)
    model.load_state_dict(model.from_official(case.state()))
    return model.eval()


def _images(fixture: str) -> list[Tensor]:
    left, right, _ = _case(fixture).parity.stereo_pair(HEIGHT, WIDTH, 3, 24, 0)
    return [torch.from_numpy(image).movedim(-1, 0)[None] / 255 for image in (left, right)]


def _ours(fixture: str, max_disparity: int) -> Callable[[], Tensor]:
    model = _model(fixture, max_disparity)
    left, right = (model.padding.pad(image) for image in _images(fixture))
    return lambda: model(left, right).disparity[..., -HEIGHT:, :WIDTH]


def _literally(
    network: type[literal.Network], fixture: str, max_disparity: int, multiple: int
) -> Callable[[], Tensor]:
    written = network(_case(fixture).state(), max_disparity)
    images = _images(fixture)
    if network is literal.StereoNet:
        left, right = (2 * image - 1 for image in images)
    else:
        added = (0, -WIDTH % multiple, -HEIGHT % multiple, 0)
        left, right = (F.pad(normalise(image, IMAGENET_MEAN, IMAGENET_STD), added) for image in images)
    return lambda: written(left, right)[..., -HEIGHT:, :WIDTH]


def _smd() -> tuple[SMDNet, list[Tensor], Tensor]:
    torch.manual_seed(0)
    model = SMDNet(SMDConfig(max_disparity=4 * LEVELS)).eval()
    maps = [torch.rand(1, c, HEIGHT // 4, WIDTH // 4) for c in model.backbone.channels]
    y, x = torch.meshgrid(torch.linspace(-1, 1, 120), torch.linspace(-1, 1, 640), indexing="ij")
    return model, maps, torch.stack([x, y], -1).view(1, -1, 2)


def _head_ours() -> Callable[[], Tensor]:
    model, maps, _ = _smd()
    field = DisparityField(
        maps=tuple(maps),
        frame=(120, 640),
        image_scale=1.0,
        limit=1.0,
        representation="bimodal",
        head=model.head,
    )
    y, x = torch.meshgrid(torch.arange(120.0), torch.arange(640.0), indexing="ij")
    positions = torch.stack([x, y], -1).view(1, -1, 2)
    return lambda: field.query(positions).mu[..., 0]


def _head_literally() -> Callable[[], Tensor]:
    model, maps, grid = _smd()
    state = {name.replace("head.layers.", "mlp.conv"): t for name, t in model.state_dict().items()}
    return lambda: literal.head(state, maps, grid)[:, 0].sigmoid()


_PSMNET = "psmnet/fixtures/stackhourglass-square.npz"
_HSMNET = "hsmnet/fixtures/hsm-plain.npz"
_STEREONET = "stereonet/fixtures/sceneflow-left.npz"

MEASURED: dict[str, dict[str, Callable[[], Callable[[], Tensor]]]] = {
    "concatenation volume, 32 channels": {
        "ours": lambda: _volume(lambda a, b: concatenation_volume(a, b, LEVELS)),
        "literal": lambda: _volume(lambda a, b: literal.concatenation(a, b, LEVELS)),
    },
    "difference volume, 32 channels": {
        "ours": lambda: _volume(lambda a, b: difference_volume(a, b, LEVELS)),
        "literal": lambda: _volume(lambda a, b: literal.difference(a, b, LEVELS)),
    },
    "correlation volume, 96 channels": {
        "ours": lambda: _volume(lambda a, b: correlation_volume(a, b, LEVELS)[:, None], 96),
        "literal": lambda: _volume(lambda a, b: literal.correlation(a, b, LEVELS), 96),
    },
    "group-wise volume, 96 channels in 8 groups": {
        "ours": lambda: _volume(lambda a, b: groupwise_correlation_volume(a, b, LEVELS, groups=8), 96),
        "literal": lambda: _volume(lambda a, b: literal.correlation(a, b, LEVELS, 8), 96),
    },
    "difference volume, 32 channels, with gradients": {
        "ours": lambda: _gradients(lambda a, b: difference_volume(a, b, LEVELS)),
        "literal": lambda: _gradients(lambda a, b: literal.difference(a, b, LEVELS)),
    },
    "disparity of 192 levels from scores": {"ours": _read_ours, "literal": _read_literally},
    "PSMNet, 192 px": {
        "ours": lambda: _ours(_PSMNET, 192),
        "literal": lambda: _literally(literal.PSMNet, _PSMNET, 192, 16),
    },
    "HSMNet, 384 px": {
        "ours": lambda: _ours(_HSMNET, 384),
        "literal": lambda: _literally(literal.HSMNet, _HSMNET, 384, 64),
    },
    "StereoNet, 256 px": {
        "ours": lambda: _ours(_STEREONET, 256),
        "literal": lambda: _literally(literal.StereoNet, _STEREONET, 256, 1),
    },
    "SMD-Nets' head at 76 800 positions": {"ours": _head_ours, "literal": _head_literally},
}


def measure(name: str, implementation: str, path: Path) -> dict[str, float]:
    """In this process: processor seconds, and how far the peak memory rises.

    Of two passes: the first loads the libraries' code, and what it frees is handed back before the second,
    whose peak counts.
    """
    prepared = MEASURED[name][implementation]()
    gradients = torch.enable_grad() if "gradients" in name else torch.no_grad()
    with gradients:
        seconds = []
        for _ in range(2):
            result = None
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
            before = _resident("VmRSS")
            start = time.process_time()
            result = prepared()
            seconds.append(time.process_time() - start)
            peak = _resident("VmHWM") - before
    assert result is not None
    torch.save(result.detach(), path)
    return {"cpu_seconds": min(seconds), "peak_mb": peak / 1024}


def _resident(field: str) -> int:
    """KiB of this process's memory, now (VmRSS) or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(MEASURED), default=list(MEASURED))
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.child:
        name, implementation, path = arguments.child
        print(json.dumps(measure(name, implementation, Path(path))))
        return
    rows = {name: _compared(name, arguments.rounds) for name in arguments.only}
    report = {
        "what": f"{WIDTH}x{HEIGHT}, volumes at a quarter of it, one thread; least of the rounds, in turn",
        "rounds": arguments.rounds,
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
        "rows": rows,
    }
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.output, report)


def _compared(name: str, rounds: int) -> dict[str, dict[str, float] | float]:
    import tempfile

    runs: dict[str, list[dict[str, float]]] = {"ours": [], "literal": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for implementation, measured in runs.items():
                path = Path(folder) / implementation
                command = [sys.executable, __file__, "--child", name, implementation, str(path)]
                printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                measured.append(json.loads(printed))
        ours, theirs = (torch.load(Path(folder) / implementation) for implementation in runs)
    row: dict[str, dict[str, float] | float] = {
        implementation: {
            key: round(min(run[key] for run in measured), 4 if key == "cpu_seconds" else 1)
            for key in ("cpu_seconds", "peak_mb")
        }
        for implementation, measured in runs.items()
    }
    row["largest_difference"] = float((ours - theirs).abs().max())
    print(name, row, flush=True)
    return row


if __name__ == "__main__":
    main()
