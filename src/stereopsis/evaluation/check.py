"""Is a data set's truth true? The right image, moved by it, must look like the left one.

Every hypothesis (as given, other sign, other view, images exchanged, other scale, an offset) is a way to
bring one view onto the other; the one with the smallest colour difference explains the data. Views are
normalised to zero mean and unit deviation first, so that exposures may differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import cv2
import numpy as np
import torch
from torch import Tensor

from stereopsis.geometry import warp
from stereopsis.structures import StereoSample
from stereopsis.visual import AnyPicture, disparity_picture, error_picture, image_picture, panel, titled

AS_GIVEN = "as given"
_SCALES = (1 / 256, 1 / 16, 1 / 8, 1 / 4, 1 / 3, 1 / 2, 2.0, 3.0, 4.0, 8.0, 16.0, 256.0)
_OFFSETS = (-3.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 3.0)
_SEEN = 0.3
"""The least share of the truth that a hypothesis must keep inside the image."""
_BETTER = 0.9
"""Another hypothesis must lower the difference to this share to be believed."""
_EXPLAINED = 1.3
"""Without disparity the difference must be this many times as large, if truth is more than 2 px."""


@dataclass(frozen=True, kw_only=True)
class SampleCheck:
    """differences: of each hypothesis, NaN where it leaves the image; range in pixels; density 0..1."""

    name: str
    size: tuple[int, int]
    density: float
    smallest: float
    largest: float
    differences: Mapping[str, float]


@dataclass(frozen=True)
class Verdict:
    """faults: a sentence each, none where all is well; best: the hypothesis that explains the data."""

    best: str
    faults: tuple[str, ...]


def check_sample(sample: StereoSample) -> SampleCheck:
    """Every hypothesis on one sample; ValueError where its truth has no known pixel."""
    if not bool(sample.valid.any()):
        raise ValueError(f"{sample.info[0].name if sample.info else 'the sample'} has no truth to check")
    known = sample.disparity[sample.valid]
    left, right = _normalised(sample.pair.left), _normalised(sample.pair.right)
    truth = torch.where(sample.valid, sample.disparity, torch.inf)
    found = {name: hypothesis(left, right, truth) for name, hypothesis in _HYPOTHESES.items()}
    other = sample.disparity_right
    if other is not None and bool(other.isfinite().any()):
        found["right truth as given"] = _difference(right, left, other, "right")
        found["right truth with the other sign"] = _difference(right, left, other, "left")
    return SampleCheck(
        name=sample.info[0].name if sample.info else "",
        size=sample.pair.size,
        density=float(sample.valid.float().mean()),
        smallest=float(known.min()),
        largest=float(known.max()),
        differences=found,
    )


def verdict(checks: Sequence[SampleCheck]) -> Verdict:
    """What the samples say together: the median over them of each hypothesis against `as given`."""
    if not checks:
        raise ValueError("no sample could be checked")
    ratios = {}
    for name in _HYPOTHESES:
        known = [c.differences[name] / max(c.differences[AS_GIVEN], 1e-9) for c in checks]
        ratios[name] = math.inf if any(math.isnan(ratio) for ratio in known) else median(known)
    best = min(ratios, key=lambda name: ratios[name])
    faults = []
    if math.isinf(ratios[AS_GIVEN]):
        faults.append("most of the truth lies outside the right image")
    if best == AS_GIVEN or ratios[best] >= _BETTER:
        best = AS_GIVEN
    if ratios["no disparity"] < _EXPLAINED * ratios[best] and max(c.largest for c in checks) > 2:
        faults.append("the truth explains the images hardly better than no disparity at all")
        best = AS_GIVEN
    elif best != AS_GIVEN:
        faults.append(f"the images fit better with {best} ({100 * (1 - ratios[best]):.0f} % less difference)")
    pairs = [
        (c.differences["right truth with the other sign"], c.differences["right truth as given"])
        for c in checks
        if "right truth as given" in c.differences
    ]
    if pairs and median(wrong / max(right, 1e-9) for wrong, right in pairs) < _BETTER:
        faults.append("the right view's truth has the wrong sign or belongs to the left view")
    return Verdict(best, tuple(faults))


def contact_sheet(samples: Sequence[StereoSample], *, width: int = 320) -> AnyPicture:
    """A row per sample: left view, truth, right view moved by the truth, their difference (red: 20 %)."""
    return np.concatenate([_contact_row(sample, width) for sample in samples])


def _contact_row(sample: StereoSample, width: int) -> AnyPicture:
    truth = torch.where(sample.valid, sample.disparity, torch.inf)
    moved, seen = warp(sample.pair.right, truth)
    moved = torch.where(seen, moved, 0.0)
    difference = (moved - sample.pair.left).abs().mean(0) * 60
    pictures = {
        sample.info[0].name if sample.info else "left": image_picture(sample.pair.left),
        "truth": disparity_picture(sample.disparity, valid=sample.valid),
        "right, moved by the truth": image_picture(moved),
        "difference": error_picture(difference, torch.zeros_like(difference), seen),
    }
    height = max(1, round(sample.pair.size[0] * width / sample.pair.size[1]))
    cells = [
        titled(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), name[-38:])
        for name, picture in pictures.items()
    ]
    return panel(cells, columns=4)


Hypothesis = Callable[[Tensor, Tensor, Tensor], float]


def _hypotheses() -> dict[str, Hypothesis]:
    found: dict[str, Hypothesis] = {
        AS_GIVEN: lambda left, right, truth: _difference(left, right, truth, "left"),
        "no disparity": lambda left, right, truth: _difference(left, right, truth * 0, "left"),
        "the other sign": lambda left, right, truth: _difference(left, right, truth, "right"),
        "the truth on the right view": lambda left, right, truth: _difference(right, left, truth, "right"),
        "the images exchanged": lambda left, right, truth: _difference(right, left, truth, "left"),
    }
    for scale in _SCALES:
        name = f"the truth times {scale:g}" if scale > 1 else f"the truth divided by {1 / scale:g}"
        found[name] = lambda left, right, truth, s=scale: _difference(left, right, truth * s, "left")
    for offset in _OFFSETS:
        name = f"{offset:+g} px added to the truth"
        found[name] = lambda left, right, truth, o=offset: _difference(left, right, truth + o, "left")
    return found


_HYPOTHESES = _hypotheses()


def _difference(view: Tensor, other: Tensor, disparity: Tensor, side: str) -> float:
    """Mean absolute difference of a view and the other one moved onto it; NaN where too little is seen."""
    moved, seen = warp(other, disparity, view="left" if side == "left" else "right")
    known = int(disparity.isfinite().sum())
    if int(seen.sum()) < _SEEN * known:
        return math.nan
    return float((view - moved).abs().mean(0)[seen].mean())


def _normalised(image: Tensor) -> Tensor:
    mean, deviation = image.mean((-2, -1), keepdim=True), image.std((-2, -1), keepdim=True)
    return (image - mean) / deviation.clamp(min=1e-3)
