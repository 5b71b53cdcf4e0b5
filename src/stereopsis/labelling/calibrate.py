"""Fits a predictor's confidence on pairs whose truth is known, and measures it on others."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch

from stereopsis.io.weights import read_weights, write_weights
from stereopsis.metrics.confidence import auroc, ause, calibration_error, sparsification
from stereopsis.prediction.certainty import (
    CUES,
    THRESHOLD,
    Certainty,
    Observations,
    available_cues,
    fit,
)
from stereopsis.structures import Predictor, StereoOutput, StereoSample

PIXELS = 4000
"""Pixels drawn of each pair to fit on."""

MEASURED = 50_000
"""Pixels of each pair, or a few more, that confidence is measured on."""

CHEAP = tuple(name for name in CUES if name != "left-right")
"""Cues that cost no second pass."""

Answer = tuple[StereoSample, StereoOutput]


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How well confidence knows where the disparity is right, means over pairs.

    ause: pixels, of the sparsification error; random: what a confidence without any knowledge would have;
    auroc, ece: of errors up to 1 px, over all pairs' pixels for ece; right: share of such pixels.
    """

    ause: float
    random: float
    auroc: float
    ece: float
    right: float


def answers(predictor: Predictor, samples: Iterable[StereoSample]) -> Iterator[Answer]:
    """The predictor's outputs beside their samples."""
    for sample in samples:
        with torch.inference_mode():
            yield sample, predictor(sample.pair)


def fitted(
    answered: Sequence[Answer], *, cues: Sequence[str] | None = None, seed: int = 0, facts: str = ""
) -> Certainty:
    """Weights from the pairs of even places, the curve from the others.

    cues: names, None: all that the outputs have and that cost no second pass. Raises ValueError where
    there are fewer than two pairs, or all pixels are right or wrong.
    """
    if len(answered) < 2:
        raise ValueError(f"confidence is fitted on at least 2 pairs, not {len(answered)}")
    names = cues
    if names is None:
        there = available_cues(answered[0][0].pair, answered[0][1])
        names = [name for name in there if name in CHEAP]
    generator = torch.Generator().manual_seed(seed)
    parts = [
        Observations.of(
            sample.pair,
            output,
            sample.disparity,
            sample.valid,
            names=names,
            pixels=PIXELS,
            generator=generator,
        )
        for sample, output in answered
    ]
    told: dict[str, object] = {"pairs": len(answered), "threshold": THRESHOLD, "data": facts}
    return fit(Observations.join(parts[::2]), Observations.join(parts[1::2]), cues=names, facts=told)


def best(
    answered: Sequence[Answer], held_back: Sequence[Answer], *, facts: str = "", cues: Sequence[str] = CHEAP
) -> tuple[Certainty, Quality]:
    """The certainty that ranks held-back pairs best: of the network's own confidence, or of several cues.

    cues: those that it may take. Cues that gain less than 1 % of AUSE are not worth it.
    """
    there = available_cues(answered[0][0].pair, answered[0][1])
    allowed = [name for name in there if name in cues]
    own = [name for name in allowed if name == "own"]
    found = []
    for names in (own, allowed):
        if names:
            certainty = fitted(answered, cues=names, facts=facts)
            found.append((certainty, quality(held_back, certainty)))
    if len(found) == 2 and found[0][1].ause <= 1.01 * found[1][1].ause:
        return found[0]
    return found[-1]


def quality(answered: Iterable[Answer], certainty: Certainty | None = None) -> Quality:
    """Of the outputs' own confidence, or of what a certainty makes of them; pairs without truth left out."""
    rows, errors, confidences = [], [], []
    for sample, output in answered:
        confidence = output.confidence if certainty is None else certainty(sample.pair, output)
        known = sample.valid & output.disparity.isfinite()
        if confidence is None or not bool(known.any()):
            continue
        error = (output.disparity - sample.disparity).abs()[known].double()
        sure = confidence[known].double()
        step = max(1, len(error) // MEASURED)
        error, sure = error[::step], sure[::step]
        best_curve = sparsification(error, -error)
        rows.append(
            (
                ause(error, sure),
                float(error.mean() - best_curve.mean()),
                auroc(error, sure, threshold=THRESHOLD),
            )
        )
        errors.append(error)
        confidences.append(sure)
    if not rows:
        raise ValueError("confidence cannot be measured: there is no truth, or no confidence")
    error, sure = torch.cat(errors), torch.cat(confidences)
    columns = [[value for value in column if not math.isnan(value)] for column in zip(*rows, strict=True)]
    means = [fmean(column) if column else math.nan for column in columns]
    return Quality(
        ause=means[0],
        random=means[1],
        auroc=means[2],
        ece=calibration_error(error, sure, threshold=THRESHOLD),
        right=float((error <= THRESHOLD).double().mean()),
    )


def store(path: Path, certainty: Certainty, *, into: Path | None = None) -> None:
    """Writes a weights file again with this certainty in its header, whole or not at all."""
    state, header = read_weights(path)
    if header is None:
        raise ValueError(f"{path} has no header of ours: stereopsis import-weights gives it one")
    write_weights(into or path, state, dataclasses.replace(header, certainty=certainty.plain()))
