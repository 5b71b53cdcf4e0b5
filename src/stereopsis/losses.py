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
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from stereopsis.layers.mixture import negative_log_likelihood
from stereopsis.layers.sampling import sample_points
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
    smooth: smooth L1 of the iterates too. Where iterates have vertical displacements, which are truly
    zero, both components count half.
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
        sizes = [_smooth_l1(e, 1.0) if self.smooth else e.abs() for e in errors]
        if output.vertical:
            sizes = [(size + v.abs()) / 2 for size, v in zip(sizes, output.vertical, strict=True)]
        terms = [gamma ** (count - 1 - i) * _masked_mean(size, mask) for i, size in enumerate(sizes)]
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
        left = self._side((*output.stages, output.disparity), sample)
        truth = sample.disparity_right
        if output.right_disparity is None or truth is None:
            return left
        right = dataclasses.replace(sample, disparity=truth, valid=truth.isfinite())
        return (left + self._side((*output.right_stages, output.right_disparity), right)) / 2

    def _side(self, cascade: tuple[Tensor, ...], sample: StereoSample) -> Float[Tensor, ""]:
        mask = self.mask(sample)
        predictions = torch.stack([_grown(disparity, sample, True) for disparity in cascade])
        errors = adaptive_robust(sample.disparity - predictions, alpha=self.alpha, scale=self.scale)
        return _masked_mean(errors, mask.expand_as(errors))


@dataclass(frozen=True, kw_only=True)
class MixtureLoss(Range):
    """Negative log-likelihood of the truth at points drawn anew each time (SMD-Nets, CVPR 2021).

    sampling: "random" draws `points` from a jittered grid, "edges" half of them near depth edges, within
    boxes of `dilation` pixels (see `sample_points`). Truth may be finer than the images: points are drawn
    on its grid, in its pixels. Truth of 0 and beyond the network's maximum do not count; a network that
    regresses gets L1. Points come from a generator of its own, seeded with `seed`.
    """

    points: int = 50_000
    sampling: Literal["random", "edges"] = "edges"
    dilation: int = 10
    seed: int = 0
    generator: torch.Generator = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "generator", torch.Generator().manual_seed(self.seed))

    def __call__(self, output: MixtureOutput, sample: StereoSample) -> Float[Tensor, ""]:
        if output.field is None:
            raise ValueError("the mixture loss needs a network that can be queried at any position")
        scale = sample.disparity.shape[-1] / output.disparity.shape[-1]
        unit = output.field.max_disparity * output.scale * scale
        losses = []
        for index, valid in enumerate(self.mask(sample)):
            drawn = sample_points(
                sample.disparity[index],
                valid,
                number=self.points,
                sampling=self.sampling,
                dilation=self.dilation,
                generator=self.generator,
            )
            mixture = output.select(index).query(drawn.positions, scale=scale)
            losses.append(negative_log_likelihood(mixture, drawn.labels, unit=unit))
        counted = torch.cat(losses)
        return counted.mean() if counted.numel() else output.disparity.sum() * 0


def adaptive_robust(error: Float[Tensor, "*b"], *, alpha: float, scale: float) -> Float[Tensor, "*b"]:
    """`|a-2|/a * (((x/c)^2 / |a-2| + 1)^(a/2) - 1)` for finite alpha a other than 0 and 2, scale c."""
    distance = abs(alpha - 2)
    return distance / alpha * (((error / scale) ** 2 / distance + 1) ** (alpha / 2) - 1)


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
    fields = {f.name for f in dataclasses.fields(LOSSES[name]) if f.init}  # pyright: ignore[reportArgumentType]
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
