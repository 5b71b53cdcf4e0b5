"""How far a disparity can be trusted, 0..1, from what each kind of output knows of itself.

Measures in pixels (left-right error, spread, last change) become confidence by `from_pixels`: 1 at zero,
one half at one pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stereopsis.geometry import View, left_right_error
from stereopsis.structures import IterativeOutput, MixtureOutput, StereoOutput, VolumeOutput


def from_pixels(error: Float[Tensor, "*b h w"]) -> Float[Tensor, "*b h w"]:
    """`1 / (1 + error)` of an expected error in pixels; 0 where it is infinite or NaN."""
    return torch.nan_to_num(1 / (1 + error), nan=0.0)


def entropy(probabilities: Float[Tensor, "*b d h w"]) -> Float[Tensor, "*b h w"]:
    """One minus the entropy of a distribution over disparity, as a share of the largest, log d."""
    levels = probabilities.shape[-3]
    if levels < 2:
        return torch.ones_like(probabilities[..., 0, :, :], dtype=torch.float32)
    p = probabilities.float()
    return (1 + torch.xlogy(p, p).sum(-3) / math.log(levels)).clamp(0, 1)


def agreement(
    disparity: Float[Tensor, "*b h w"], other: Float[Tensor, "*b h w"], *, view: View = "left"
) -> Float[Tensor, "*b h w"]:
    """Of the left-right error; 0 where the match lies outside the other image."""
    return from_pixels(left_right_error(disparity, other, view=view))


def mixture_spread(
    pi: Float[Tensor, "*b h w"], mu: Float[Tensor, "*b k h w"], b: Float[Tensor, "*b k h w"]
) -> Float[Tensor, "*b h w"]:
    """Of the standard deviation of a mixture of one or two Laplacians.

    A Laplacian of scale b has variance 2 b²; two components add pi (1 - pi) (mu1 - mu2)², so that pixels
    torn between foreground and background are trusted little.
    """
    variance = 2 * b[..., 0, :, :] ** 2
    if mu.shape[-3] == 2:
        within = pi * variance + (1 - pi) * 2 * b[..., 1, :, :] ** 2
        variance = within + pi * (1 - pi) * (mu[..., 0, :, :] - mu[..., 1, :, :]) ** 2
    return from_pixels(variance.sqrt())


def convergence(iterates: Sequence[Float[Tensor, "*b h w"]]) -> Float[Tensor, "*b h w"]:
    """Of the change between the last two iterates; ValueError where there are fewer."""
    if len(iterates) < 2:
        raise ValueError(f"convergence needs at least 2 iterates, there are {len(iterates)}")
    return from_pixels((iterates[-1] - iterates[-2]).abs())


def confidence_of(output: StereoOutput) -> Float[Tensor, "*b h w"] | None:
    """The output's own confidence, else what its kind tells, else left-right agreement, else None."""
    if output.confidence is not None:
        return output.confidence
    if isinstance(output, VolumeOutput) and output.probabilities is not None:
        return _resized(entropy(output.probabilities), output.disparity)
    if isinstance(output, MixtureOutput):
        pi, mu, b = output.pi, output.mu, output.b
        if mu is not None and b is not None:
            return mixture_spread(torch.ones_like(b[..., 0, :, :]) if pi is None else pi, mu, b)
    if isinstance(output, IterativeOutput):
        steps = output.iterates if output.initial is None else (output.initial, *output.iterates)
        if len(steps) >= 2:
            return convergence(steps)
    if output.right_disparity is not None:
        return agreement(output.disparity, output.right_disparity)
    return None


def _resized(confidence: Float[Tensor, "*b hv wv"], like: Float[Tensor, "*b h w"]) -> Float[Tensor, "*b h w"]:
    if confidence.shape == like.shape:
        return confidence
    planes = confidence.reshape(-1, 1, *confidence.shape[-2:])
    resized = F.interpolate(planes, size=like.shape[-2:], mode="bilinear", align_corners=False)
    return resized.reshape(like.shape)
