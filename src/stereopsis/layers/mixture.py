"""Laplacian mixtures of one or two components: density, likelihood, mode, differential entropy.

Tosi et al., "SMD-Nets: Stereo Mixture Density Networks", CVPR 2021 (arXiv 2104.03866).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stereopsis.structures import Mixture


def laplacian(
    x: Float[Tensor, "*#s"], location: Float[Tensor, "*#s"], scale: Float[Tensor, "*#s"]
) -> Float[Tensor, "..."]:
    """`exp(-|x - location| / scale) / (2 scale)`, broadcast."""
    return torch.exp(-(x - location).abs() / scale) / (2 * scale)


def first_is_mode(pi: Float[Tensor, "*s"], b: Float[Tensor, "*s 2"]) -> Bool[Tensor, "*s"]:
    """Where the first component's peak, `pi / b`, is the higher one."""
    return pi / b[..., 0] > (1 - pi) / b[..., 1]


def negative_log_likelihood(
    mixture: Mixture, labels: Float[Tensor, "*s"], *, unit: float | int
) -> Float[Tensor, " n"]:
    """Of each label in (0, unit]; the others are left out. `unit`: pixels that stand for 1.

    One component without its weight: `|mu - y| / b + ln b`, the constant ln 2 left out as published; no
    scale at all: `|mu - y|`.
    """
    counted = (labels > 0) & (labels <= unit)
    y = labels[counted] / unit
    mu = mixture.mu[counted] / unit
    if mixture.b is None:
        return (mu[..., 0] - y).abs()
    b = mixture.b[counted] / unit
    if mixture.pi is None:
        return (mu[..., 0] - y).abs() / b[..., 0] + torch.log(b[..., 0])
    pi = mixture.pi[counted]
    components = torch.stack([torch.log(pi), torch.log1p(-pi)], -1)
    components = components - (y[..., None] - mu).abs() / b - torch.log(2 * b)
    return -torch.logsumexp(components, -1)


def differential_entropy(
    pi: Float[Tensor, "*s"],
    mu: Float[Tensor, "*s 2"],
    b: Float[Tensor, "*s 2"],
    *,
    steps: int = 2000,
) -> Float[Tensor, "*s"]:
    """The aleatoric uncertainty of a bimodal mixture whose unit is the maximum disparity.

    The trapezoidal rule from -1 to 2. Kept quirk: the two end points enter with f, not f ln f.
    """
    first, last = -1.0, 2.0
    step = (last - first) / steps
    flat_pi, flat_mu, flat_b = pi.reshape(-1), mu.reshape(-1, 2), b.reshape(-1, 2)
    parts = []
    for start in range(0, len(flat_pi), _POINTS):
        part = slice(start, start + _POINTS)
        weight = torch.stack([flat_pi[part], 1 - flat_pi[part]], -1)
        parts.append(_integral(weight, flat_mu[part], flat_b[part], first, last, step, steps))
    return torch.cat(parts).reshape(pi.shape) if parts else torch.zeros_like(pi)


_POINTS = 2048
"""Mixtures integrated at once: 2048 x 2000 positions are 16 MB."""


def _integral(
    weight: Tensor, mu: Tensor, b: Tensor, first: float, last: float, step: float, steps: int
) -> Tensor:
    def density(x: Tensor) -> Tensor:
        parts = [
            weight[:, k, None] * laplacian(x, mu[:, k, None], b[:, k, None]) for k in range(weight.shape[-1])
        ]
        return parts[0] + parts[1]

    inner = first + step * torch.arange(1, steps, dtype=mu.dtype, device=mu.device)
    f = density(inner)
    inside = torch.where(f < 1e-6, torch.zeros_like(f), torch.xlogy(f, f)).sum(-1)
    ends = density(torch.tensor([first, last], dtype=mu.dtype, device=mu.device)).sum(-1) / 2
    return -step * (inside + ends)
