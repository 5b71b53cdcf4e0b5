"""Does a confidence know where the disparity is wrong? Curves and numbers of one image.

All take the absolute error in pixels and the confidence (0..1, larger is surer) of the pixels that are
measured and answered, as flat tensors. Pixels of equal confidence share their mean error, so that no
number depends on the order of ties. No pixels: NaN.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def sparsification(
    error: Float[Tensor, " n"], confidence: Float[Tensor, " n"], *, steps: int = 100
) -> Float[Tensor, " steps"]:
    """Mean error of what is left after removing the least confident 0, 1/steps, ... (steps-1)/steps.

    At every step the ceil((1 - removed) n) surest pixels stay (Ilg et al., ECCV 2018).
    """
    if error.numel() == 0:
        return torch.full((steps,), torch.nan, dtype=torch.float64)
    order = confidence.sort(descending=True, stable=True)
    running = _shared_in_ties(error.double()[order.indices], order.values).cumsum(0)
    return running[(kept := _kept(error.numel(), steps)) - 1] / kept


def ause(error: Float[Tensor, " n"], confidence: Float[Tensor, " n"], *, steps: int = 100) -> float:
    """Area under the sparsification error: mean gap to the curve that removes the largest errors first.

    In pixels, 0 for a perfect ranking; not divided by the EPE.
    """
    gap = sparsification(error, confidence, steps=steps) - sparsification(error, -error, steps=steps)
    return gap.mean().item()


def auroc(error: Float[Tensor, " n"], confidence: Float[Tensor, " n"], *, threshold: float) -> float:
    """The probability that a pixel with error > threshold has less confidence than one without (ties half).

    NaN where all pixels, or none, are wrong.
    """
    wrong = error > threshold
    bad, good = int(wrong.sum()), int((~wrong).sum())
    if bad == 0 or good == 0:
        return float("nan")
    _, inverse, counts = confidence.unique(sorted=True, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    rank = (last - (counts.double() - 1) / 2)[inverse]
    return ((rank[~wrong].sum() - good * (good + 1) / 2) / (bad * good)).item()


def risk_coverage(
    error: Float[Tensor, " n"],
    confidence: Float[Tensor, " n"],
    *,
    threshold: float,
    steps: int = 100,
) -> Float[Tensor, " steps"]:
    """The share of errors > threshold among the surest 1, (steps-1)/steps, ... 1/steps of the pixels."""
    return sparsification((error > threshold).double(), confidence, steps=steps)


def calibration_error(
    error: Float[Tensor, " n"], confidence: Float[Tensor, " n"], *, threshold: float, bins: int = 10
) -> float:
    """Expected calibration error of the confidence read as the probability that error <= threshold.

    Bins of equal width over 0..1 (the last one closed); mean |share right - mean confidence|, weighted
    by the pixels of each bin.
    """
    count = error.numel()
    if count == 0:
        return float("nan")
    index = (confidence.double() * bins).floor().long().clamp(0, bins - 1)
    gap = (error <= threshold).double() - confidence.double()
    return (
        torch.zeros(bins, dtype=torch.float64).index_add_(0, index.cpu(), gap.cpu()).abs().sum().item()
        / count
    )


def _kept(count: int, steps: int) -> Tensor:
    return torch.tensor([-(-count * (steps - step) // steps) for step in range(steps)]).clamp(min=1)


def _shared_in_ties(error: Tensor, ordered: Tensor) -> Tensor:
    """Errors (in the order of confidence) with each run of equal confidence replaced by its mean."""
    _, inverse, counts = ordered.unique_consecutive(return_inverse=True, return_counts=True)
    total = torch.zeros(len(counts), dtype=error.dtype).index_add_(0, inverse, error)
    return (total / counts)[inverse]
