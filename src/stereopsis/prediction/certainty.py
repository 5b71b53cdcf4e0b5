"""Confidence that means something: the probability that a disparity is right to a pixel.

A `Certainty` weighs cues (the network's own confidence, its volume, how well the images match, how rough
the disparity is, ...) as logistic regression does, and bends the sum by a monotone curve (isotonic
regression), so that among pixels of confidence 0.8 four in five are right. It is fitted on pairs whose
truth is known, and lies in the header of the weights that it belongs to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stereopsis import confidence
from stereopsis.geometry import left_right_error
from stereopsis.structures import IterativeOutput, MixtureOutput, StereoOutput, StereoPair, VolumeOutput, luma

THRESHOLD = 1.0
"""Pixels of error up to which a disparity is right."""

Cue = Callable[[StereoPair, StereoOutput], Tensor | None]


@dataclass(frozen=True, kw_only=True)
class Certainty:
    """P(error <= 1 px) = curve(intercept + sum of weights times cues).

    cues: names of `CUES`; knots: where the curve's values are known, rising; values: these, 0..1, rising;
    between knots it is linear. facts: what it was fitted on.
    """

    cues: tuple[str, ...]
    weights: tuple[float, ...]
    intercept: float
    knots: tuple[float, ...]
    values: tuple[float, ...]
    facts: Mapping[str, object] = dataclasses.field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        unknown = [name for name in self.cues if name not in CUES]
        if unknown:
            raise ValueError(f"there is no cue {unknown[0]!r}: there are {', '.join(CUES)}")
        if len(self.cues) != len(self.weights) or not len(self.knots) == len(self.values) >= 1:
            raise ValueError("a certainty needs a weight for each cue, and a value for each knot")
        if list(self.knots) != sorted(self.knots) or list(self.values) != sorted(self.values):
            raise ValueError("a certainty's knots and values must rise")

    def __call__(self, pair: StereoPair, output: StereoOutput) -> Float[Tensor, "*b h w"]:
        """The confidence of an output for this pair; 0 where its disparity is unknown."""
        score = self.score(pair, output)
        bent = np.interp(score.cpu().numpy(), self.knots, self.values)
        probability = torch.from_numpy(bent).to(output.disparity)
        return torch.where(output.disparity.isfinite(), probability, 0.0)

    def score(self, pair: StereoPair, output: StereoOutput) -> Float[Tensor, "*b h w"]:
        """The weighted sum before the curve."""
        total = torch.full_like(output.disparity, self.intercept)
        for name, weight in zip(self.cues, self.weights, strict=True):
            total = total + weight * cue(name, pair, output)
        return total

    @property
    def of_any_output(self) -> bool:
        """Whether pair, disparity and the network's own confidence are enough."""
        return set(self.cues) <= set(PLAIN)

    def plain(self) -> dict[str, object]:
        """As JSON and a header hold it."""
        return {**dataclasses.asdict(self), "facts": dict(self.facts)}

    @classmethod
    def from_plain(cls, facts: Mapping[str, Any]) -> Certainty:
        """What `plain` gave; ValueError where it is something else."""
        try:
            lists = {name: tuple(facts[name]) for name in ("cues", "weights", "knots", "values")}
            return cls(**lists, intercept=float(facts["intercept"]), facts=dict(facts.get("facts", {})))
        except (KeyError, TypeError) as error:
            raise ValueError(f"the stored confidence is not whole ({error!r})") from error


def cue(name: str, pair: StereoPair, output: StereoOutput) -> Float[Tensor, "*b h w"]:
    """The cue's value at every pixel; ValueError where this kind of output does not have it."""
    value = CUES[name](pair, output)
    if value is None:
        raise ValueError(f"{type(output).__name__} has not what the confidence cue {name!r} needs")
    return value


def available_cues(pair: StereoPair, output: StereoOutput) -> tuple[str, ...]:
    """The names of the cues that this output has."""
    return tuple(name for name, function in CUES.items() if function(pair, output) is not None)


def _own(pair: StereoPair, output: StereoOutput) -> Tensor | None:  # noqa: ARG001
    """Log-odds of the network's own confidence."""
    own = output.confidence
    return None if own is None else _log_odds(own)


def _of_volume(measure: Callable[[Tensor], Tensor]) -> Cue:
    def value(pair: StereoPair, output: StereoOutput) -> Tensor | None:  # noqa: ARG001
        if not isinstance(output, VolumeOutput) or output.probabilities is None:
            return None
        planes = measure(output.probabilities)
        flat = planes.reshape(-1, 1, *planes.shape[-2:])
        size = output.disparity.shape[-2:]
        return F.interpolate(flat, size=size, mode="bilinear").reshape(output.disparity.shape)

    return value


def _mixture(pair: StereoPair, output: StereoOutput) -> Tensor | None:  # noqa: ARG001
    if not isinstance(output, MixtureOutput) or output.mu is None or output.b is None:
        return None
    pi = torch.ones_like(output.disparity) if output.pi is None else output.pi
    return _log_odds(confidence.mixture_spread(pi, output.mu, output.b))


def _convergence(pair: StereoPair, output: StereoOutput) -> Tensor | None:  # noqa: ARG001
    if not isinstance(output, IterativeOutput):
        return None
    steps = output.iterates if output.initial is None else (output.initial, *output.iterates)
    return _log_odds(confidence.convergence(steps)) if len(steps) >= 2 else None


def _left_right(pair: StereoPair, output: StereoOutput) -> Tensor | None:  # noqa: ARG001
    """Logarithm of the left-right error, cut at 32 px."""
    if output.right_disparity is None:
        return None
    return torch.log1p(left_right_error(output.disparity, output.right_disparity).clamp(max=32))


def _photometric(pair: StereoPair, output: StereoOutput) -> Tensor | None:
    error = confidence.photometric_error(pair.left, pair.right, output.disparity)
    return torch.log(error.clamp(max=0.5) + 0.005)


def _outside(pair: StereoPair, output: StereoOutput) -> Tensor | None:  # noqa: ARG001
    """1 where the match lies beside the other image."""
    disparity = output.disparity.nan_to_num(nan=0.0)
    column = torch.arange(disparity.shape[-1], device=disparity.device)
    return (column < disparity).to(disparity.dtype)


def _texture(pair: StereoPair, output: StereoOutput) -> Tensor | None:
    """Logarithm of the mean horizontal gradient of gray around."""
    gray = luma(pair.left)[..., 0, :, :]
    gradient = F.pad((gray[..., 1:] - gray[..., :-1]).abs(), (0, 1))
    return torch.log(confidence.box_mean(gradient, 7) + 0.002).reshape(output.disparity.shape)


def _roughness(pair: StereoPair, output: StereoOutput) -> Tensor | None:  # noqa: ARG001
    """Logarithm of the standard deviation of disparity around, cut at 16 px."""
    disparity = output.disparity.nan_to_num(nan=0.0, posinf=0.0)
    variance = confidence.box_mean(disparity**2, 5) - confidence.box_mean(disparity, 5) ** 2
    return torch.log1p(variance.clamp(min=0).sqrt().clamp(max=16))


def _log_odds(share: Tensor) -> Tensor:
    return torch.logit(share.float().nan_to_num(nan=0.0).clamp(0.002, 0.998))


CUES: Mapping[str, Cue] = {
    "own": _own,
    "entropy": _of_volume(confidence.entropy),
    "peak-ratio": _of_volume(confidence.peak_ratio),
    "unimodality": _of_volume(confidence.unimodality),
    "mixture": _mixture,
    "convergence": _convergence,
    "left-right": _left_right,
    "photometric": _photometric,
    "outside": _outside,
    "texture": _texture,
    "roughness": _roughness,
}
"""Every cue by its name, at the output's resolution; None where an output has not what it needs."""

PLAIN = ("own", "photometric", "outside", "texture", "roughness")
"""The cues that need nothing but the pair, its disparity and the network's own confidence."""


@dataclass(frozen=True)
class Observations:
    """Pixels with known truth: their cues, by name, and whether the disparity was right."""

    cues: Mapping[str, Float[np.ndarray, " n"]]
    right: Float[np.ndarray, " n"]

    @classmethod
    def of(
        cls,
        pair: StereoPair,
        output: StereoOutput,
        truth: Float[Tensor, "h w"],
        valid: Tensor,
        *,
        names: Sequence[str],
        pixels: int,
        generator: torch.Generator,
    ) -> Observations:
        """At most so many answered pixels of one pair, drawn from the generator."""
        known = torch.nonzero((valid & output.disparity.isfinite()).flatten())[:, 0]
        drawn = known[torch.randperm(len(known), generator=generator)[:pixels]]
        right = (output.disparity - truth).abs().flatten()[drawn] <= THRESHOLD
        maps = {name: cue(name, pair, output).flatten()[drawn].double().numpy() for name in names}
        return cls(maps, right.double().numpy())

    @classmethod
    def join(cls, parts: Sequence[Observations]) -> Observations:
        names = parts[0].cues
        cues = {name: np.concatenate([part.cues[name] for part in parts]) for name in names}
        return cls(cues, np.concatenate([part.right for part in parts]))


def fit(
    combining: Observations, bending: Observations, *, cues: Sequence[str], facts: Mapping[str, object]
) -> Certainty:
    """Weights from the first pixels, the curve from the others, which should be of other pairs.

    Raises ValueError where the pixels are all right or all wrong.
    """
    for part in (combining, bending):
        if not 0 < part.right.mean() < 1:
            raise ValueError("confidence cannot be fitted: the disparities are all right, or all wrong")
    weights, intercept = logistic(np.stack([combining.cues[name] for name in cues], 1), combining.right)
    score = np.stack([bending.cues[name] for name in cues], 1) @ weights + intercept
    knots, values = isotonic(score, bending.right)
    return Certainty(
        cues=tuple(cues),
        weights=tuple(float(weight) for weight in weights),
        intercept=float(intercept),
        knots=tuple(float(knot) for knot in knots),
        values=tuple(float(value) for value in values),
        facts=facts,
    )


def logistic(
    features: Float[np.ndarray, "n k"], right: Float[np.ndarray, " n"], *, ridge: float = 1e-4
) -> tuple[Float[np.ndarray, " k"], float]:
    """Logistic regression by Newton's method on standardised features; weights of these as they came."""
    mean, deviation = features.mean(0), features.std(0) + 1e-9
    x = np.concatenate([(features - mean) / deviation, np.ones((len(features), 1))], 1)
    penalty = ridge * np.eye(x.shape[1])
    beta = np.zeros(x.shape[1])
    for _ in range(50):
        probability = 1 / (1 + np.exp(-np.clip(x @ beta, -30, 30)))
        gradient = x.T @ (probability - right) / len(x) + penalty @ beta
        curvature = (x * (probability * (1 - probability))[:, None]).T @ x / len(x) + penalty
        step = np.linalg.solve(curvature, gradient)
        step *= min(1.0, 4 / (np.abs(step).max() + 1e-12))
        beta -= step
        if np.abs(step).max() < 1e-8:
            break
    weights = beta[:-1] / deviation
    return weights, float(beta[-1] - weights @ mean)


def isotonic(
    score: Float[np.ndarray, " n"], right: Float[np.ndarray, " n"], *, bins: int = 100
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """The rising curve nearest to the outcomes (pool adjacent violators): knots and strictly rising values.

    Scores are first gathered in bins of equal count, so that a knot stands for enough pixels.
    """
    order = np.argsort(score, kind="stable")
    blocks: list[tuple[float, float, int]] = []  # sum of outcomes, sum of scores, count
    for part in np.array_split(order, min(bins, len(order))):
        block = float(right[part].sum()), float(score[part].sum()), len(part)
        while blocks and not _rises(blocks[-1], block):
            last = blocks.pop()
            block = last[0] + block[0], last[1] + block[1], last[2] + block[2]
        blocks.append(block)
    counts = np.array([count for _, _, count in blocks])
    knots = np.array([total for _, total, _ in blocks]) / counts
    return knots, np.array([total for total, _, _ in blocks]) / counts


def _rises(first: tuple[float, float, int], second: tuple[float, float, int]) -> bool:
    """Whether both the share of outcomes and the score rise (ties of the score may fall into two bins)."""
    (outcome, score, count), (next_outcome, next_score, next_count) = first, second
    return outcome / count < next_outcome / next_count and score / count + 1e-9 < next_score / next_count
