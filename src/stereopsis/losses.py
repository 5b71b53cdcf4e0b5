"""What training minimises: functions of (output, sample) that give a scalar.

Every loss counts the pixels whose truth is valid and inside its range, `min_disparity < truth <
max_disparity` (pixels); where no pixel counts it is 0 with a gradient of 0. Losses are frozen
dataclasses, so that a recipe is their fields; `create_loss` makes one by name.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from stereopsis.structures import IterativeOutput, MixtureOutput, StereoOutput, StereoSample, VolumeOutput

Mask = Bool[Tensor, "b h w"]


@dataclass(frozen=True, kw_only=True)
class Range:
    """The truth that counts. min_disparity is excluded (-inf: zeros count), max_disparity too."""

    min_disparity: float = -math.inf
    max_disparity: float = math.inf

    def mask(self, sample: StereoSample) -> Mask:
        truth = sample.disparity
        return sample.valid & (truth > self.min_disparity) & (truth < self.max_disparity)


@dataclass(frozen=True, kw_only=True)
class SmoothL1Loss(Range):
    """Smooth L1 of the final disparity and of the stages before it, as volumes are trained.

    weights: of the last stages and the final disparity, in order (one weight: the final alone); beta:
    pixels below which it is quadratic; aligned: how stages of lower resolution grow to the image's;
    normalised: divided by the sum of the weights.
    """

    weights: tuple[float, ...] = (1.0,)
    beta: float = 1.0
    aligned: bool = False
    normalised: bool = False

    def __call__(self, output: StereoOutput, sample: StereoSample) -> Float[Tensor, ""]:
        mask = self.mask(sample)
        stages = output.stages if isinstance(output, VolumeOutput) else ()
        predictions = [*stages, output.disparity][-len(self.weights) :]
        if len(predictions) < len(self.weights):
            raise ValueError(
                f"smooth_l1 has {len(self.weights)} weights, the network gives {len(predictions)} disparities"
            )
        total = sum(
            weight
            * _masked_mean(_smooth_l1(_grown(p, sample, self.aligned) - sample.disparity, self.beta), mask)
            for weight, p in zip(self.weights, predictions, strict=True)
        )
        assert isinstance(total, Tensor)
        return total / sum(self.weights) if self.normalised else total


@dataclass(frozen=True, kw_only=True)
class SequenceLoss(Range):
    """L1 of every iterate, the later the heavier (RAFT): sum of g^(N - 1 - i) times the mean error.

    g is `gamma^(15 / (N - 1))` where `adjusted`, so that recipes carry over between numbers of
    iterations; initial: weight of the smooth L1 of the disparity before the first iteration (IGEV).
    smooth: smooth L1 of the iterates too.
    """

    gamma: float = 0.9
    adjusted: bool = True
    initial: float = 0.0
    smooth: bool = False

    def __call__(self, output: StereoOutput, sample: StereoSample) -> Float[Tensor, ""]:
        if not isinstance(output, IterativeOutput) or not output.iterates:
            raise ValueError("the sequence loss needs a network that gives its iterates")
        mask = self.mask(sample)
        count = len(output.iterates)
        gamma = self.gamma ** (15 / (count - 1)) if self.adjusted and count > 1 else self.gamma
        errors = [_grown(p, sample, False) - sample.disparity for p in output.iterates]
        terms = [
            gamma ** (count - 1 - i) * _masked_mean(_smooth_l1(e, 1.0) if self.smooth else e.abs(), mask)
            for i, e in enumerate(errors)
        ]
        total = torch.stack(terms).sum()
        if self.initial and output.initial is not None:
            error = _grown(output.initial, sample, False) - sample.disparity
            total = total + self.initial * _masked_mean(_smooth_l1(error, 1.0), mask)
        return total


@dataclass(frozen=True, kw_only=True)
class AdaptiveRobustLoss(Range):
    """Barron's general robust loss (CVPR 2019) over the whole cascade, every entry and pixel alike.

    Where the output has the right view's disparity and the sample its truth, both views count equally.
    """

    alpha: float = 1.0
    scale: float = 2.0

    def __call__(self, output: VolumeOutput, sample: StereoSample) -> Float[Tensor, ""]:
        mask = self.mask(sample)
        predictions = torch.stack([_grown(p, sample, True) for p in (*output.stages, output.disparity)])
        errors = adaptive_robust(sample.disparity - predictions, alpha=self.alpha, scale=self.scale)
        return _masked_mean(errors, mask.expand_as(errors))


@dataclass(frozen=True, kw_only=True)
class MixtureLoss(Range):
    """Negative log-likelihood of a mixture of Laplacians on the grid of the output (SMD-Nets, CVPR 2021).

    `unit` pixels are 1: the published loss divides disparity by the largest.
    """

    unit: float = 256.0

    def __call__(self, output: MixtureOutput, sample: StereoSample) -> Float[Tensor, ""]:
        if output.pi is None or output.mu is None or output.b is None:
            raise ValueError("the mixture loss needs a network that gives pi, mu and b")
        truth = sample.disparity[:, None] / self.unit
        log = -mixture_log_likelihood(truth, output.pi[:, None], output.mu / self.unit, output.b / self.unit)
        return _masked_mean(log, self.mask(sample))


def adaptive_robust(error: Float[Tensor, "*b"], *, alpha: float, scale: float) -> Float[Tensor, "*b"]:
    """`|a-2|/a * (((x/c)^2 / |a-2| + 1)^(a/2) - 1)` for finite alpha a other than 0 and 2, scale c."""
    distance = abs(alpha - 2)
    return distance / alpha * (((error / scale) ** 2 / distance + 1) ** (alpha / 2) - 1)


def mixture_log_likelihood(
    truth: Float[Tensor, "b 1 *n"],
    pi: Float[Tensor, "b 1 *n"],
    mu: Float[Tensor, "b k *n"],
    b: Float[Tensor, "b k *n"],
) -> Float[Tensor, "b *n"]:
    """Logarithm of `pi Lap(truth; mu0, b0) + (1 - pi) Lap(truth; mu1, b1)`; k = 1 has no pi."""
    laplace = -(truth - mu).abs() / b - (2 * b).log()
    if mu.shape[1] == 1:
        return laplace[:, 0]
    tiny = torch.finfo(pi.dtype).tiny
    weights = torch.cat([pi, 1 - pi], 1).clamp(min=tiny).log()
    return torch.logsumexp(weights + laplace, 1)


LOSSES: dict[str, Callable[..., Any]] = {
    "smooth_l1": SmoothL1Loss,
    "sequence": SequenceLoss,
    "adaptive_robust": AdaptiveRobustLoss,
    "mixture": MixtureLoss,
}


def create_loss(name: str, **options: object) -> Callable[[Any, StereoSample], Tensor]:
    """The loss of that name; ValueError for an unknown name or option, naming the nearest."""
    if name not in LOSSES:
        raise ValueError(f"no loss is called {name!r}: there are {', '.join(LOSSES)}")
    fields = {field.name for field in dataclasses.fields(LOSSES[name])}  # pyright: ignore[reportArgumentType]
    for key in options:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(
                f"the loss {name} has no option {key!r}{hint} It has {', '.join(sorted(fields))}"
            )
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    return LOSSES[name](**plain)


def _grown(disparity: Tensor, sample: StereoSample, aligned: bool) -> Float[Tensor, "b h w"]:
    """A disparity (full-resolution pixels) at the resolution of the truth."""
    size = sample.disparity.shape[-2:]
    if disparity.shape[-2:] == size:
        return disparity.float()
    grown = F.interpolate(disparity[:, None].float(), size, mode="bilinear", align_corners=aligned)
    return grown[:, 0]


def _smooth_l1(error: Tensor, beta: float) -> Tensor:
    return F.smooth_l1_loss(error, torch.zeros_like(error), reduction="none", beta=beta)


def _masked_mean(values: Tensor, mask: Tensor) -> Float[Tensor, ""]:
    """Mean where the mask is True; 0, still differentiable, where it is nowhere. NaN outside is harmless."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)
