"""How far a disparity can be trusted, 0..1, from what each kind of output knows of itself.

Measures in pixels (left-right error, spread, last change) become confidence by `from_pixels`: 1 at zero,
one half at one pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stereopsis.geometry import View, left_right_error, warp
from stereopsis.structures import IterativeOutput, MixtureOutput, StereoOutput, VolumeOutput, luma


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


def peak_ratio(probabilities: Float[Tensor, "*b d h w"]) -> Float[Tensor, "*b h w"]:
    """One minus the second-highest peak of a distribution over disparity, as a share of the highest.

    A peak is no smaller than its neighbours; next to the highest there is none (a plateau is one peak).
    """
    p = probabilities.float()
    if p.shape[-3] < 3:
        return torch.ones_like(p[..., 0, :, :])
    highest, where = p.max(-3, keepdim=True)
    padded = F.pad(p, (0, 0, 0, 0, 1, 1), value=-1.0)
    is_peak = (p >= padded[..., :-2, :, :]) & (p >= padded[..., 2:, :, :])
    index = torch.arange(p.shape[-3], device=p.device)[:, None, None]
    others = torch.where(is_peak & ((index - where).abs() > 1), p, 0.0)
    return (1 - others.amax(-3) / highest[..., 0, :, :].clamp(min=1e-12)).clamp(0, 1)


def unimodality(probabilities: Float[Tensor, "*b d h w"], *, reach: int = 2) -> Float[Tensor, "*b h w"]:
    """The mass within `reach` planes of the highest: little where several disparities explain a pixel."""
    p = probabilities.float()
    where = p.argmax(-3, keepdim=True)
    index = torch.arange(p.shape[-3], device=p.device)[:, None, None]
    return torch.where((index - where).abs() <= reach, p, 0.0).sum(-3).clamp(0, 1)


def photometric_error(
    left: Float[Tensor, "*b 3 h w"],
    right: Float[Tensor, "*b 3 h w"],
    disparity: Float[Tensor, "*b h w"],
    *,
    view: View = "left",
    window: int = 5,
) -> Float[Tensor, "*b h w"]:
    """How differently the two images look at matched pixels, 0..1; infinite where the match is outside.

    Mean over a window of the absolute difference of luma, each less its mean over a window twice as
    large, so that the cameras' exposures do not count.
    """
    images = (left, right) if view == "left" else (right, left)
    grays = (luma(image) for image in images)
    own, other = (gray - box_mean(gray, 2 * window + 1) for gray in grays)
    matched, valid = warp(other, disparity, view=view)
    difference = (own - matched).abs()[..., 0, :, :] * valid
    mean = box_mean(difference, window) / box_mean(valid.to(difference.dtype), window).clamp(min=1e-6)
    return torch.where(valid, mean, math.inf)


def box_mean(values: Float[Tensor, "*b h w"], window: int) -> Float[Tensor, "*b h w"]:
    """Mean over a window x window box (odd), cut off at the borders; no gradient passes it."""
    flat = values.detach().reshape(-1, *values.shape[-2:]).float().cpu().numpy()
    box = (window, window)
    options = {"normalize": False, "borderType": cv2.BORDER_CONSTANT}
    counts = cv2.boxFilter(np.ones_like(flat[0]), -1, box, **options)
    means = np.stack([cv2.boxFilter(plane, -1, box, **options) / counts for plane in flat])
    return torch.from_numpy(means).reshape(values.shape).to(values)


def deviation(confidence: Float[Tensor, "*b h w"], *, threshold: float = 1.0) -> Float[Tensor, "*b h w"]:
    """Pixels of standard deviation of errors that are below `threshold` with this probability.

    Errors are taken as Laplacian, P(|error| <= t) = 1 - exp(-t / b), whose deviation is b times the root
    of 2: 0 at confidence 1, infinite at 0. `Calibration.depth_uncertainty` makes metres of it.
    """
    return math.sqrt(2) * threshold / -torch.log1p(-confidence.clamp(0, 1))


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
