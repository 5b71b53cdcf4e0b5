"""The numbers of one image: every column of a protocol, its histogram of errors, its sparsification curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from stereopsis.data.dataset import Annotations
from stereopsis.evaluation.protocols import Column
from stereopsis.metrics import confidence as confidence_metrics
from stereopsis.metrics import depth as depth_metrics
from stereopsis.metrics import disparity as disparity_metrics
from stereopsis.metrics import edges as edge_metrics
from stereopsis.structures import StereoOutput, StereoSample, luma

HISTOGRAM = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 8.0, 16.0, 32.0, math.inf)
"""Edges of the histogram of absolute errors, in pixels; unanswered pixels fall into the last bin."""

CURVE_STEPS = 20
"""Points of the sparsification curves."""

POOLED = ("epe", "d1", "bad-", "density", "see", "edge-epe", "abs-rel", "mae-mm", "delta-")
"""Metrics that are means over pixels, so that images can be pooled by their number of pixels."""


@dataclass(frozen=True)
class Figure:
    """value: NaN where the mask is empty or absent; pixels: how many the value is a mean over."""

    value: float
    pixels: int


@dataclass(frozen=True)
class Curves:
    """Errors of one image over all its truth: counts per `HISTOGRAM` bin, the mean error after removing
    the least confident share, and after removing the largest errors."""

    histogram: tuple[int, ...]
    by_confidence: tuple[float, ...]
    by_error: tuple[float, ...]


@dataclass(frozen=True)
class Masks:
    """The masks of one image, made when asked for."""

    sample: StereoSample
    annotations: Annotations

    def named(self, name: str) -> Bool[Tensor, "h w"] | None:
        """None where the data has no such mask."""
        valid, occluded = self.sample.valid, self.sample.occluded
        if name == "all":
            return valid
        if name in ("noc", "occ"):
            return None if occluded is None else valid & (~occluded if name == "noc" else occluded)
        if name == "edges":
            return valid & edge_metrics.boundaries(known_truth(self.sample), dilation=10)
        if name == "textureless":
            return valid & textureless(self.sample)
        if name == "background":
            foreground = self.annotations.regions.get("foreground")
            return None if foreground is None else valid & ~foreground
        region = self.annotations.regions.get(name)
        return None if region is None else valid & region


def known_truth(sample: StereoSample) -> Tensor:
    """The truth with infinity where it is unknown, so that holes make no edges and no neighbours."""
    return torch.where(sample.valid, sample.disparity, torch.inf)


def textureless(sample: StereoSample) -> Bool[Tensor, "h w"]:
    """Squared horizontal gradient of gray (0..255), mean of 3x3, below 4 (Scharstein & Szeliski 2002)."""
    gray = luma(sample.pair.left) * 255
    gradient = F.pad(gray[..., 1:] - gray[..., :-1], (0, 1)).square()
    return F.avg_pool2d(gradient[None], 3, stride=1, padding=1, count_include_pad=False)[0, 0] < 4


@dataclass(frozen=True)
class _Pixels:
    """The pixels under one mask and range: where they are, and their values as an image of one row."""

    mask: Bool[Tensor, "h w"]
    disparity: Float[Tensor, "1 n"]
    truth: Float[Tensor, "1 n"]
    answered: int

    @classmethod
    def of(cls, mask: Tensor, output: StereoOutput, sample: StereoSample) -> _Pixels:
        disparity, truth = (values[mask].double()[None] for values in (output.disparity, sample.disparity))
        return cls(mask, disparity, truth, int(disparity.isfinite().sum()))

    @property
    def measured(self) -> int:
        return self.truth.shape[-1]


def measure(
    output: StereoOutput, sample: StereoSample, annotations: Annotations, columns: Sequence[Column]
) -> tuple[Figure, ...]:
    """A figure for each column; the disparity must have the size of the sample."""
    masks = Masks(sample, annotations)
    groups = list(dict.fromkeys((column.mask, column.above, column.below) for column in columns))
    figures: dict[Column, Figure] = {}
    for name, above, below in groups:
        own = [
            column for column in columns if (column.mask, column.above, column.below) == (name, above, below)
        ]
        mask = masks.named(name)
        if mask is None:
            figures |= dict.fromkeys(own, Figure(math.nan, 0))
            continue
        within = mask & (sample.disparity > above) & (sample.disparity < below)
        pixels = _Pixels.of(within, output, sample)
        figures |= {column: _figure(column.metric, output, sample, annotations, pixels) for column in own}
    return tuple(figures[column] for column in columns)


def curves(output: StereoOutput, sample: StereoSample) -> Curves:
    """The image's histogram and sparsification curves; without confidence the first curve is empty."""
    error, confidence = _answered(output, _Pixels.of(sample.valid, output, sample))
    edges = torch.tensor(HISTOGRAM[1:-1])
    counts = torch.bincount(torch.bucketize(error, edges), minlength=len(edges) + 1)
    counts[-1] += int(sample.valid.sum()) - error.numel()
    best = confidence_metrics.sparsification(error, -error, steps=CURVE_STEPS)
    ranked = (
        ()
        if confidence is None
        else tuple(confidence_metrics.sparsification(error, confidence, steps=CURVE_STEPS).tolist())
    )
    return Curves(tuple(counts.tolist()), ranked, tuple(best.tolist()))


def _figure(
    metric: str, output: StereoOutput, sample: StereoSample, annotations: Annotations, pixels: _Pixels
) -> Figure:
    maps = pixels.disparity, pixels.truth, torch.ones_like(pixels.truth, dtype=torch.bool)
    name, _, number = metric.rpartition("-")
    if metric in _MEANS:
        counted = pixels.answered if metric in ("epe", "rms") else pixels.measured
        return Figure(_MEANS[metric](*maps).item(), counted)
    if name == "bad":
        return Figure(disparity_metrics.bad(*maps, threshold=float(number)).item(), pixels.measured)
    if metric.startswith("a") and metric[1:].isdigit():
        share = int(metric[1:]) / 100
        return Figure(disparity_metrics.quantile(*maps, share=share).item(), pixels.answered)
    if metric in ("see", "edge-epe"):
        return _edge_figure(metric, output.disparity, sample, annotations, pixels.mask)
    if metric in ("abs-rel", "mae-mm", "rmse", "rmse-mm") or name == "delta":
        return _depth_figure(metric, output, sample, pixels.mask)
    return Figure(_confidence_value(metric, output, pixels), pixels.answered)


_MEANS = {
    "epe": disparity_metrics.epe,
    "rms": disparity_metrics.rms,
    "d1": disparity_metrics.d1,
    "density": disparity_metrics.density,
}


def _edge_figure(
    metric: str, disparity: Tensor, sample: StereoSample, annotations: Annotations, mask: Tensor
) -> Figure:
    truth = known_truth(sample)
    if metric == "edge-epe":
        edges = edge_metrics.boundaries(truth, dilation=10)
        value = disparity_metrics.epe(disparity, truth, mask & edges)
    else:
        instances = annotations.instances
        edges = (
            edge_metrics.boundaries(truth)
            if instances is None
            else edge_metrics.instance_boundaries(instances)
        )
        value = edge_metrics.see(disparity, truth, mask, edges=edges)
    return Figure(value.item(), int((mask & edges & disparity.isfinite()).sum()))


def _depth_figure(metric: str, output: StereoOutput, sample: StereoSample, mask: Tensor) -> Figure:
    calibration = sample.info[0].calibration if sample.info else None
    if calibration is None:
        return Figure(math.nan, 0)
    depth, truth = calibration.depth(output.disparity), calibration.depth(sample.disparity)
    pixels = int((mask & truth.isfinite()).sum())
    if metric == "abs-rel":
        return Figure(depth_metrics.abs_rel(depth, truth, mask).item(), pixels)
    if metric == "mae-mm":
        return Figure(1000 * depth_metrics.mae(depth, truth, mask).item(), pixels)
    if metric in ("rmse", "rmse-mm"):
        unit = 1000 if metric == "rmse-mm" else 1
        return Figure(unit * depth_metrics.rmse(depth, truth, mask).item(), pixels)
    power = int(metric.rpartition("-")[2])
    return Figure(depth_metrics.delta(depth, truth, mask, power=power).item(), pixels)


def _confidence_value(metric: str, output: StereoOutput, pixels: _Pixels) -> float:
    name, _, number = metric.partition("-")
    if name not in ("ause", "auroc", "ece"):
        raise ValueError(f"there is no metric {metric!r}")
    error, confidence = _answered(output, pixels)
    if confidence is None:
        return math.nan
    if name == "ause":
        return confidence_metrics.ause(error, confidence)
    if name == "auroc":
        return confidence_metrics.auroc(error, confidence, threshold=float(number))
    return confidence_metrics.calibration_error(error, confidence, threshold=float(number))


def _answered(output: StereoOutput, pixels: _Pixels) -> tuple[Tensor, Tensor | None]:
    """Absolute error and confidence (NaN read as 0) of the pixels that were answered."""
    where = pixels.disparity.isfinite()[0]
    error = (pixels.disparity - pixels.truth).abs()[0, where]
    if output.confidence is None:
        return error, None
    return error, output.confidence[pixels.mask][where].double().nan_to_num(nan=0.0)


def poolable(metric: str) -> bool:
    """True where images can be pooled by their numbers of pixels."""
    return metric.startswith(POOLED)
