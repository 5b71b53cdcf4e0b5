"""An exported file beside its original, in figures: on the same pairs, with and without truth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stereopsis.metrics.disparity import bad, epe
from stereopsis.structures import Predictor, StereoPair, StereoSample
from stereopsis.synthesis.stream import SyntheticStream

Judged = Literal["fp32", "fp16", "bf16", "int8"]

CLOSE = 1e-3
"""Pixels: what counts as the same disparity."""

LEAST_CLOSE = 0.999
"""Of pixels, for fp32."""

LARGEST_EPE_CHANGE = {"fp16": 0.05, "bf16": 0.05, "int8": 0.1}
"""Pixels."""

LARGEST_BAD2_CHANGE = {"int8": 0.005}
"""Share of pixels."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Differences over all pixels of some pairs, in pixels of disparity.

    close: the share of pixels within CLOSE; confidence: its largest difference; epe, bad2: (original,
    exported) against the truth, bad2 as a share, both NaN without truth; sizes: WIDTHxHEIGHT of the pairs.
    """

    runtime: str
    pairs: int
    sizes: tuple[str, ...]
    largest: float
    mean: float
    close: float
    confidence: float
    epe: tuple[float, float]
    bad2: tuple[float, float]

    @property
    def epe_change(self) -> float:
        return self.epe[1] - self.epe[0]

    @property
    def bad2_change(self) -> float:
        return self.bad2[1] - self.bad2[0]


@torch.no_grad()
def measure_parity(
    original: Predictor, exported: Predictor, samples: Iterable[StereoSample], *, runtime: str
) -> Parity:
    """Both predictors on the same pairs, one at a time; truth that is nowhere valid counts as none."""
    rows: list[_Row] = []
    for sample in samples:
        ours, theirs = original(sample.pair), exported(sample.pair)
        difference = (ours.disparity - theirs.disparity).abs().double()
        assert ours.confidence is not None
        assert theirs.confidence is not None
        truth, valid = sample.disparity, sample.valid
        rows.append(
            _Row(
                size=f"{sample.pair.size[1]}x{sample.pair.size[0]}",
                difference=torch.nan_to_num(difference, nan=math.inf).flatten(),
                confidence=float((ours.confidence - theirs.confidence).abs().max()),
                epe=(_epe(ours.disparity, truth, valid), _epe(theirs.disparity, truth, valid)),
                bad2=(_bad2(ours.disparity, truth, valid), _bad2(theirs.disparity, truth, valid)),
            )
        )
    if not rows:
        raise ValueError("parity needs at least one pair")
    differences = torch.cat([row.difference for row in rows])
    return Parity(
        runtime=runtime,
        pairs=len(rows),
        sizes=tuple(dict.fromkeys(row.size for row in rows)),
        largest=float(differences.max()),
        mean=float(differences.mean()),
        close=float((differences <= CLOSE).double().mean()),
        confidence=max(row.confidence for row in rows),
        epe=(_mean(row.epe[0] for row in rows), _mean(row.epe[1] for row in rows)),
        bad2=(_mean(row.bad2[0] for row in rows), _mean(row.bad2[1] for row in rows)),
    )


@dataclass(frozen=True)
class _Row:
    size: str
    difference: Float[Tensor, " n"]
    confidence: float
    epe: tuple[float, float]
    bad2: tuple[float, float]


def _epe(disparity: Float[Tensor, "h w"], truth: Float[Tensor, "h w"], mask: Bool[Tensor, "h w"]) -> float:
    return float(epe(disparity, truth, mask))


def _bad2(disparity: Float[Tensor, "h w"], truth: Float[Tensor, "h w"], mask: Bool[Tensor, "h w"]) -> float:
    return float(bad(disparity, truth, mask, threshold=2.0))


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def failures(parity: Parity, precision: Judged, *, trained: bool) -> list[str]:
    """What is out of tolerance, a sentence each; none where all is well.

    fp32 is judged pixel by pixel, whatever the weights. The others are judged by their accuracy, which
    random weights do not have: ValueError there, and where the pairs had no truth.
    """
    if precision == "fp32":
        if parity.close >= LEAST_CLOSE:
            return []
        return [
            f"only {100 * parity.close:.2f} % of pixels are within {CLOSE} px of the original, "
            f"{100 * LEAST_CLOSE} % are wanted"
        ]
    if not trained:
        raise ValueError(
            f"{precision} is judged by the accuracy it costs, and random weights have none: give trained ones"
        )
    if math.isnan(parity.epe_change):
        raise ValueError(f"{precision} is judged by the accuracy it costs: give pairs with truth")
    found = []
    if parity.epe_change > LARGEST_EPE_CHANGE[precision]:
        found.append(
            f"EPE grows by {parity.epe_change:.3f} px, at most {LARGEST_EPE_CHANGE[precision]} px is allowed"
        )
    if precision in LARGEST_BAD2_CHANGE and parity.bad2_change > LARGEST_BAD2_CHANGE[precision]:
        found.append(
            f"bad-2 grows by {100 * parity.bad2_change:.2f} points, at most "
            f"{100 * LARGEST_BAD2_CHANGE[precision]} are allowed"
        )
    return found


def rendered_samples(sizes: Iterable[tuple[int, int]], *, each: int, seed: int) -> Iterator[StereoSample]:
    """Rendered pairs with exact truth: `each` of every (height, width)."""
    for size in sizes:
        stream = SyntheticStream(seed, size=size)
        for index in range(each):
            yield stream[index]


def without_truth(pairs: Iterable[StereoPair]) -> Iterator[StereoSample]:
    """Pairs of cameras, of which no truth is known."""
    for pair in pairs:
        nothing = torch.zeros(pair.size)
        yield StereoSample(pair, nothing, nothing.bool())
