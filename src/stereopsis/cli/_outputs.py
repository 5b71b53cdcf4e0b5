"""What `predict` leaves on disk for one pair, and what it says of it."""

from __future__ import annotations

import math
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stereopsis.confidence import deviation
from stereopsis.geometry import depth_edges, in_range, normals, points
from stereopsis.io.arrays import write_npy
from stereopsis.io.disparity import write_disparity
from stereopsis.io.images import write_image
from stereopsis.io.points import write_ply
from stereopsis.structures import Calibration, StereoOutput, StereoPair
from stereopsis.visual import confidence_picture, disparity_picture, image_picture

_METRIC = ("depth.npy", "depth_deviation.npy", "depth.png", "cloud.ply")
"""Files that there are with a calibration only."""


@dataclass(frozen=True)
class Summary:
    """Of one pair: shares and ranges between the 1st and 99th percentile; depth in metres."""

    name: str
    size: str
    seconds: float
    disparity: tuple[float, float] | None
    confidence: float
    depth: tuple[float, float] | None
    points: int | None
    folder: str
    files: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """Which pixels become points: trusted at least so much, in this range (metres), away from depth edges.

    normals: whether they have the surface's normal, too; points without one are then left out.
    """

    min_confidence: float = 0.3
    near: float = 0.0
    far: float = math.inf
    normals: bool = False

    def keeps(self, output: StereoOutput, depth: Float[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
        kept = in_range(depth, near=self.near, far=self.far) & ~depth_edges(output.disparity)
        return kept if output.confidence is None else kept & (output.confidence >= self.min_confidence)


def named(predictor: str, runtime: str | None) -> str:
    """A predictor as reports call it, with what runs its network."""
    return predictor if runtime is None else f"{predictor} ({runtime})"


def check_folder(folder: Path) -> None:
    """Fails before any work where results cannot be written there later."""
    for part in (folder, *folder.parents):
        if part.exists():
            if not part.is_dir():
                raise ValueError(f"{part} is a file: name a folder for the results")
            if not os.access(part, os.W_OK | os.X_OK):
                raise PermissionError(f"{part} cannot be written: name another folder")
            return


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"{folder} cannot be made ({reason}): name another folder") from error


def write_outputs(
    folder: Path,
    pair: StereoPair,
    output: StereoOutput,
    *,
    calibration: Calibration | None = None,
    both: bool = False,
    cloud: Cloud | None = None,
    limits: tuple[float, float] | None = None,
) -> tuple[tuple[str, ...], int | None]:
    """Writes every file of one pair, each whole or not at all; gives their names and the number of points.

    limits: disparities at the ends of the colour map, None: the picture's own.
    """
    make_folder(folder)
    if calibration is None and (earlier := [name for name in _METRIC if (folder / name).exists()]):
        warnings.warn(
            f"{folder} still holds {', '.join(earlier)} of an earlier run, not of this pair's disparity: "
            "give --calibration to renew them, or another --output",
            stacklevel=1,
        )
    files = ["disparity.pfm", "disparity.png", "confidence.png"]
    _write_view(folder, "disparity", output.disparity, limits)
    confidence = torch.ones_like(output.disparity) if output.confidence is None else output.confidence
    write_image(folder / "confidence.png", confidence_picture(confidence)[..., 0])
    if both and output.right_disparity is not None:
        _write_view(folder, "disparity_right", output.right_disparity, limits)
        files += ["disparity_right.pfm", "disparity_right.png"]
    if both and output.occluded is not None:
        write_image(folder / "occluded.png", output.occluded.numpy().astype(np.uint8) * 255)
        files.append("occluded.png")
    if calibration is None:
        return tuple(files), None
    metric, count = _write_metric(folder, pair, output, calibration, cloud or Cloud())
    return (*files, *metric), count


def _write_view(
    folder: Path, name: str, disparity: Float[Tensor, "h w"], limits: tuple[float, float] | None
) -> None:
    write_disparity(folder / f"{name}.pfm", disparity.numpy())
    write_image(folder / f"{name}.png", disparity_picture(disparity, limits=limits))


def _write_deviation(
    path: Path, disparity: Float[Tensor, "h w"], confidence: Float[Tensor, "h w"], calibration: Calibration
) -> None:
    """Metres of one standard deviation of depth; infinite where depth is, or nothing is known of it."""
    metres = calibration.depth_uncertainty(disparity, deviation(confidence))
    write_npy(path, torch.where(metres.isnan(), math.inf, metres).numpy())


def _write_metric(
    folder: Path, pair: StereoPair, output: StereoOutput, calibration: Calibration, cloud: Cloud
) -> tuple[tuple[str, ...], int]:
    depth = calibration.depth(output.disparity)
    files = ["depth.npy"]
    write_npy(folder / "depth.npy", depth.numpy())
    if output.confidence is not None:
        _write_deviation(folder / "depth_deviation.npy", output.disparity, output.confidence, calibration)
        files.append("depth_deviation.npy")
    write_image(folder / "depth.png", millimetres(depth))
    count = _write_cloud(folder / "cloud.ply", pair, output, calibration, cloud)
    return (*files, "depth.png", "cloud.ply"), count


def _write_cloud(
    path: Path, pair: StereoPair, output: StereoOutput, calibration: Calibration, cloud: Cloud
) -> int:
    places = points(output.disparity, calibration)
    kept = cloud.keeps(output, places[..., 2])
    scalars = {} if output.confidence is None else {"confidence": output.confidence}
    if cloud.normals:
        facing = normals(output.disparity, calibration)
        kept = kept & facing.isfinite().all(-1)
        scalars |= dict(zip(("nx", "ny", "nz"), facing.unbind(-1), strict=True))
    if not bool(kept.any()):
        warnings.warn(
            "no pixel passes the cloud's filters: lower --min-confidence or widen --near and --far",
            stacklevel=1,
        )
    colours = image_picture(pair.left)[kept.numpy()]
    chosen = {name: values[kept].numpy() for name, values in scalars.items()}
    write_ply(path, places[kept].numpy(), colours=colours, scalars=chosen)
    return len(colours)


def millimetres(depth: Float[Tensor, "h w"]) -> np.ndarray:
    """16-bit millimetres; 0 where depth is unknown or beyond 65.535 m, which is said in a warning."""
    known = depth.isfinite()
    beyond = known & (depth * 1000 > 65535)
    if bool(beyond.any()):
        share = float(beyond.float().mean())
        warnings.warn(
            f"{share:.1%} of depth.png is beyond 65.5 m and written as 0: depth.npy has it", stacklevel=1
        )
    values = torch.where(known & ~beyond, depth * 1000, 0.0).round()
    return values.numpy().astype(np.uint16)


def summarised(
    name: str,
    pair: StereoPair,
    output: StereoOutput,
    *,
    seconds: float,
    calibration: Calibration | None,
    folder: Path,
    files: tuple[str, ...],
    count: int | None,
) -> Summary:
    depth = None if calibration is None else calibration.depth(output.disparity)
    confidence = output.confidence
    return Summary(
        name=name,
        size=f"{pair.size[1]}x{pair.size[0]}",
        seconds=round(seconds, 3),
        disparity=_ends(output.disparity),
        confidence=1.0 if confidence is None else round(float(confidence.mean()), 4),
        depth=None if depth is None else _ends(depth),
        points=count,
        folder=str(folder),
        files=files,
    )


def _ends(values: Tensor) -> tuple[float, float] | None:
    known = values[values.isfinite()]
    if known.numel() == 0:
        return None
    known = known[:: max(1, known.numel() // 1_000_000)]
    low, high = np.percentile(known.numpy(), [1, 99])
    return round(float(low), 3), round(float(high), 3)
