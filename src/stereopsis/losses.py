"""What training minimises: functions of (output, sample) that give a scalar.

Every loss counts the pixels whose truth is valid and inside its range, `min_disparity < truth <
max_disparity` (pixels), each as much as the sample's weights say (where there are none, all alike); where
no pixel counts it is 0 with a gradient of 0. Losses are frozen
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

from stereopsis.io.weights import as_tuples
from stereopsis.layers.mixture import negative_log_likelihood
from stereopsis.layers.regression import shares_of_levels
from stereopsis.layers.sampling import sample_points
from stereopsis.structures import (
    FusedOutput,
    IterativeOutput,
    MatchingOutput,
    MixtureOutput,
    StereoOutput,
    StereoSample,
    VolumeOutput,
)

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
            * _masked_mean(
                _smooth_l1(_grown(p, sample, self.aligned) - sample.disparity, self.beta), mask, sample.weight
            )
            for weight, p in zip(self.weights, predictions, strict=True)
        )
        assert isinstance(total, Tensor)
        return total / sum(self.weights) if self.normalised else total


@dataclass(frozen=True, kw_only=True)
class SequenceLoss(Range):
    """L1 of every iterate, the later the heavier (RAFT): sum of g^(N - 1 - i) times the mean error.

    Where a network fuses, its monocular iterates count too, each before the stereo one of its iteration.

    g is `gamma^(15 / (N - 1))` where `adjusted`, so that recipes carry over between numbers of
    iterations; initial: weight of the smooth L1 of the disparity before the first iteration (IGEV).
    smooth: smooth L1 of the iterates too. Where iterates have vertical displacements, which are truly
    zero, both components count half. initial_below: the initial disparity counts where the truth is
    smaller, in pixels; wider: (weight, such a bound) for each of IGEV++'s wider initial disparities.
    """

    gamma: float = 0.9
    adjusted: bool = True
    initial: float = 0.0
    smooth: bool = False
    initial_below: float = math.inf
    wider: tuple[tuple[float, float], ...] = ()

    def __call__(self, output: StereoOutput, sample: StereoSample) -> Float[Tensor, ""]:
        if not isinstance(output, IterativeOutput) or not output.iterates:
            raise ValueError("the sequence loss needs a network that gives its iterates")
        mask = self.mask(sample)
        iterates = _in_order(output)
        count = len(iterates)
        gamma = self.gamma ** (15 / (count - 1)) if self.adjusted and count > 1 else self.gamma
        errors = [_grown(p, sample, False) - sample.disparity for p in iterates]
        sizes = [_smooth_l1(e, 1.0) if self.smooth else e.abs() for e in errors]
        if output.vertical:
            sizes = [(size + v.abs()) / 2 for size, v in zip(sizes, output.vertical, strict=True)]
        terms = [
            gamma ** (count - 1 - i) * _masked_mean(size, mask, sample.weight) for i, size in enumerate(sizes)
        ]
        total = torch.stack(terms).sum()
        firsts = [] if output.initial is None else [(output.initial, self.initial, self.initial_below)]
        if self.wider:
            firsts += [(d, *numbers) for d, numbers in zip(output.wider, self.wider, strict=True)]
        for first, weight, below in firsts:
            error = _smooth_l1(_grown(first, sample, False) - sample.disparity, 1.0)
            total = total + weight * _masked_mean(error, mask & (sample.disparity < below), sample.weight)
        return total


def _in_order(output: IterativeOutput) -> list[Tensor]:
    """The iterates of all branches as they came."""
    if not isinstance(output, FusedOutput) or not output.monocular_iterates:
        return list(output.iterates)
    alone = len(output.iterates) - len(output.monocular_iterates)
    mixed = zip(output.monocular_iterates, output.iterates[alone:], strict=True)
    return [*output.iterates[:alone], *(iterate for both in mixed for iterate in both)]


@dataclass(frozen=True, kw_only=True)
class MatchingLoss(Range):
    """STTR's four terms (ICCV 2021, section 3.5), of equal weight.

    The mean of -log of the mass at the true match and, where there is none, in the dustbin; smooth L1 of the
    matched and of the final disparity; binary cross-entropy of the occlusion. Pixels have no match where the
    sample says that they are occluded or the match lies outside the right image; the right view's dustbins
    count where the sample knows occlusion. The true match of column x is at (x - d) / scale, as released,
    which leaves out where the sampled columns begin.
    """

    def __call__(self, output: MatchingOutput, sample: StereoSample) -> Float[Tensor, ""]:
        if output.transport is None or output.matched is None or output.occlusion is None:
            raise ValueError("the matching loss needs a network that gives its transport in training")
        truth = sample.disparity
        columns = torch.arange(truth.shape[-1], device=truth.device)
        known = self.mask(sample)
        hidden = known & (columns < truth)
        if sample.occluded is not None:
            hidden = hidden | sample.occluded
        seen = known & ~hidden
        final = _masked_mean(_smooth_l1(output.disparity.float() - truth, 1.0), seen, sample.weight)
        first, step = output.grid
        grid = (..., slice(first, None, step), slice(first, None, step))
        weight = None if sample.weight is None else sample.weight[grid]
        matched = _masked_mean(_smooth_l1(output.matched - truth[grid], 1.0), seen[grid], weight)
        answered = _masked_mean(_surprise(output.occlusion, hidden), seen | hidden, sample.weight)
        return _response(output, sample, seen, hidden) + matched + final + answered


def _response(output: MatchingOutput, sample: StereoSample, seen: Mask, hidden: Mask) -> Float[Tensor, ""]:
    """The mean of -log of the mass where it belongs, over left pixels and, with occlusion, right ones."""
    assert output.transport is not None
    plan, (first, step) = output.transport.float(), output.grid
    grid = (..., slice(first, None, step), slice(first, None, step))
    columns = torch.arange(seen.shape[-1], device=plan.device)
    targets = columns - sample.disparity
    places = (targets[grid] * (plan.shape[-1] - 1) / seen.shape[-1]).clamp(0, plan.shape[-1] - 2)
    before = places.long()
    after = (before + 1).clamp(max=plan.shape[-1] - 2)
    share = places - before
    rows = plan[..., :-1, :-1]
    mass = rows.gather(-1, before[..., None])[..., 0] * (1 - share)
    mass = mass + rows.gather(-1, after[..., None])[..., 0] * share
    mass = torch.where(hidden[grid], plan[..., :-1, -1], mass)
    values, counts = [mass], [(seen | hidden)[grid]]
    weights = [torch.ones_like(mass) if sample.weight is None else sample.weight[grid]]
    if sample.occluded is not None:
        hit = torch.zeros_like(targets).scatter_reduce(
            -1, targets.round().long().clamp(0, seen.shape[-1] - 1), seen.to(targets.dtype), "amax"
        )
        values.append(plan[..., -1, :-1])
        counts.append(hit[grid] == 0)
        weights.append(torch.ones_like(values[-1]))
    surprise = -(torch.cat(values, -1) + 1e-6).log()
    return _masked_mean(surprise, torch.cat(counts, -1), torch.cat(weights, -1))


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
        known = truth.isfinite()
        # Infinite errors would turn gradients to NaN even where the mask leaves them out.
        right = dataclasses.replace(
            sample, disparity=torch.where(known, truth, 0.0), valid=known, weight=None
        )
        return (left + self._side((*output.right_stages, output.right_disparity), right)) / 2

    def _side(self, cascade: tuple[Tensor, ...], sample: StereoSample) -> Float[Tensor, ""]:
        mask = self.mask(sample)
        predictions = torch.stack([_grown(disparity, sample, True) for disparity in cascade])
        errors = adaptive_robust(sample.disparity - predictions, alpha=self.alpha, scale=self.scale)
        return _masked_mean(errors, mask.expand_as(errors), sample.weight)


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
        losses, weights = [], []
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
            if sample.weight is not None:
                weights.append(_nearest(sample.weight[index], drawn.positions))
        counted = torch.cat(losses)
        if not counted.numel():
            return output.disparity.sum() * 0
        if weights:
            share = torch.cat(weights)
            return (counted * share).sum() / share.sum().clamp(min=1e-6)
        return counted.mean()


def _nearest(values: Float[Tensor, "h w"], positions: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
    """The values at the pixels nearest to positions (x, y)."""
    height, width = values.shape
    column, row = positions.round().long().unbind(-1)
    return values[row.clamp(0, height - 1), column.clamp(0, width - 1)]


@dataclass(frozen=True, kw_only=True)
class PlanesLoss(Range):
    """For `fast`: where the volume puts its mass, the disparities that follow, and the confidence.

    The sum of the adaptive robust loss (`alpha`, `scale`) of the stages and the final disparity, the last
    of them by `weights` as in `SmoothL1Loss`; `cross_entropy` times that of the probabilities against the
    truth of every cell (each valid pixel splits its mass between the two nearest levels, so that a cell
    at an edge has two peaks; truth beyond the last level counts as the last); `confidence` times the
    binary cross-entropy of the confidence against whether the error is below `threshold` pixels.
    """

    weights: tuple[float, ...] = (0.3, 0.5, 1.0)
    alpha: float = 1.0
    scale: float = 1.0
    cross_entropy: float = 1.0
    confidence: float = 0.2
    threshold: float = 1.0

    def __call__(self, output: VolumeOutput, sample: StereoSample) -> Float[Tensor, ""]:
        if output.confidence is None or output.probabilities is None or output.levels is None:
            raise ValueError("the planes loss needs a network that gives probabilities and confidence")
        mask = self.mask(sample)
        predictions = [*output.stages, output.disparity][-len(self.weights) :]
        total = output.disparity.new_zeros(())
        for weight, prediction in zip(self.weights, predictions, strict=True):
            error = _grown(prediction, sample, False) - sample.disparity
            robust = adaptive_robust(error, alpha=self.alpha, scale=self.scale)
            total = total + weight * _masked_mean(robust, mask, sample.weight)
        shares = _surprise_of_cells(output.probabilities, output.levels, sample, mask)
        right = (output.disparity.detach() - sample.disparity).abs() < self.threshold
        certain = _masked_mean(_surprise(output.confidence, right), mask, sample.weight)
        return total + self.cross_entropy * shares + self.confidence * certain


def _surprise_of_cells(
    probabilities: Float[Tensor, "b d hc wc"], levels: Float[Tensor, " d"], sample: StereoSample, mask: Mask
) -> Float[Tensor, ""]:
    """The mean cross-entropy of cells that have truth; each counts as much as its pixels do on average."""
    counted = mask.float() if sample.weight is None else mask * sample.weight
    target = shares_of_levels(sample.disparity, counted, levels, probabilities.shape)
    surprise = -(target * probabilities.float().clamp(min=1e-6).log()).sum(1)
    size = (surprise.shape[-2], surprise.shape[-1])
    pixels = F.adaptive_avg_pool2d((counted > 0).float(), size)
    weight = F.adaptive_avg_pool2d(counted, size) / pixels.clamp(min=1e-6)
    return _masked_mean(surprise, target.sum(1) > 0, weight)


def adaptive_robust(error: Float[Tensor, "*b"], *, alpha: float, scale: float) -> Float[Tensor, "*b"]:
    """`|a-2|/a * (((x/c)^2 / |a-2| + 1)^(a/2) - 1)` for finite alpha a other than 0 and 2, scale c."""
    distance = abs(alpha - 2)
    return distance / alpha * (((error / scale) ** 2 / distance + 1) ** (alpha / 2) - 1)


LOSSES: dict[str, Callable[..., Any]] = {
    "smooth_l1": SmoothL1Loss,
    "sequence": SequenceLoss,
    "matching": MatchingLoss,
    "adaptive_robust": AdaptiveRobustLoss,
    "mixture": MixtureLoss,
    "planes": PlanesLoss,
}


def create_loss(name: str, **options: object) -> Callable[[Any, StereoSample], Tensor]:
    """The loss of that name; ValueError for an unknown name or option, naming the nearest."""
    if name not in LOSSES:
        raise ValueError(f"no loss is called {name!r}: there are {', '.join(LOSSES)}")
    fields = {f.name for f in dataclasses.fields(LOSSES[name]) if f.init}  # pyright: ignore[reportArgumentType]
    for key in options:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"; did you mean {near[0]}?" if near else "."
            raise ValueError(
                f"the loss {name} has no option {key!r}{hint} It has {', '.join(sorted(fields))}"
            )
    return LOSSES[name](**{key: as_tuples(value) for key, value in options.items()})


def usual_loss(output: StereoOutput) -> tuple[str, dict[str, object]]:
    """Name and options of the loss that suits what a network gives in training, where no recipe says it."""
    if isinstance(output, MatchingOutput):
        return "matching", {}
    if isinstance(output, MixtureOutput):
        return "mixture", {}
    if isinstance(output, IterativeOutput):
        return "sequence", {"initial": 0.0 if output.initial is None else 1.0}
    if isinstance(output, VolumeOutput) and output.stages and output.confidence is not None:
        return "planes", {"weights": [0.5] * len(output.stages) + [1.0]}
    return "smooth_l1", {}


def _grown(disparity: Tensor, sample: StereoSample, aligned: bool) -> Float[Tensor, "b h w"]:
    """A disparity (full-resolution pixels) at the resolution of the truth."""
    size = sample.disparity.shape[-2:]
    if disparity.shape[-2:] == size:
        return disparity.float()
    grown = F.interpolate(disparity[:, None].float(), size, mode="bilinear", align_corners=aligned)
    return grown[:, 0]


def _smooth_l1(error: Tensor, beta: float) -> Tensor:
    return F.smooth_l1_loss(error, torch.zeros_like(error), reduction="none", beta=beta)


def _surprise(probability: Tensor, happened: Tensor) -> Tensor:
    """Binary cross-entropy in float32; PyTorch's own is refused under autocast on CUDA."""
    likely = probability.float().clamp(1e-6, 1 - 1e-6)
    return -torch.where(happened, likely, 1 - likely).log()


def _masked_mean(values: Tensor, mask: Tensor, weight: Tensor | None = None) -> Float[Tensor, ""]:
    """Mean where the mask is True; 0, still differentiable, where it is nowhere. Values must be finite."""
    counted = torch.where(mask, values, 0.0)
    if weight is None:
        return counted.sum() / mask.sum().clamp(min=1)
    share = mask * weight
    return (counted * share).sum() / share.sum().clamp(min=1e-6)
