"""Channel attention in the frequency domain, on the monocular features."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class FrequencyChannelAttention(nn.Module):
    """Weights per channel from the spectrum of the channel means, beside those from neighbouring means.

    The means are laid out as a grid, as square as can be; the amplitude and the phase of its spectrum are
    bent, the more at high frequencies; what comes back weighs the channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.smooth = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        )
        self.amplitude = _pointwise()
        self.phase = _pointwise()
        self.neighbours = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.spread = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = nn.GroupNorm(math.gcd(channels, 32), channels)
        self.cutoff = nn.Parameter(torch.tensor(0.35))
        self.steepness = nn.Parameter(torch.tensor(8.0))
        self.high_gain = nn.Parameter(torch.tensor(1.0))
        self.low_gain = nn.Parameter(torch.tensor(1.0))
        self.phase_scale = nn.Parameter(torch.tensor(0.5))
        self.mixture = nn.Parameter(torch.tensor(0.6))
        self.strength = nn.Parameter(torch.tensor(1.0))
        rows = math.isqrt(channels)
        self.grid = (rows, math.ceil(channels / rows))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        y = self.smooth(x)
        means = y.mean((2, 3)).float()
        with torch.autocast(x.device.type, enabled=False):  # a phase near pi would turn over
            by_frequency = torch.sigmoid(self.bent(means))
        by_neighbours = torch.sigmoid(self.neighbours(means[:, None])[:, 0])
        share = torch.sigmoid(self.mixture)
        weights = torch.sigmoid(self.strength) * (share * by_frequency + (1 - share) * by_neighbours)
        return F.relu(self.norm(self.spread(y * weights[..., None, None] + x)))

    def bent(self, means: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        """The means with their spectrum changed."""
        rows, columns = self.grid
        channels = means.shape[1]
        grid = F.pad(means, (0, rows * columns - channels)).unflatten(1, (rows, columns))
        real, imaginary = spectrum(grid)
        amplitude, phase = (real**2 + imaginary**2).sqrt(), torch.atan2(imaginary, real)
        gate = torch.sigmoid(self.steepness * (self._radii(means.device) - self.cutoff))
        gain = self.low_gain * (1 - gate) + self.high_gain * gate
        amplitude = amplitude * (1 + self.amplitude(amplitude[:, None])[:, 0]) * gain
        phase = phase + self.phase_scale * gate * torch.tanh(self.phase(phase[:, None])[:, 0])
        bent = from_spectrum(amplitude * phase.cos(), amplitude * phase.sin())
        return bent.flatten(1)[:, :channels]

    def _radii(self, device: torch.device) -> Float[Tensor, "rows columns"]:
        """The frequencies' distances from zero, the corner's being 1."""

        def frequencies(n: int) -> Tensor:
            index = torch.arange(n, device=device)
            return torch.where(index < (n + 1) // 2, index, index - n) / n

        y, x = (frequencies(side) for side in self.grid)
        return ((x**2 + y[:, None] ** 2).sqrt() / math.sqrt(0.5)).clamp(0, 1)


def spectrum(
    grid: Float[Tensor, "b rows columns"],
) -> tuple[Float[Tensor, "b rows columns"], Float[Tensor, "b rows columns"]]:
    """The real and the imaginary part of the grid's Fourier transform, as products of matrices.

    Such small grids need no fast transform, and runtimes for exported networks have none. Where the
    imaginary part is zero by symmetry it is +0 to the last bit, as `torch.fft.fft2` has it: else rounding
    would decide between phases of pi and -pi. A part of exactly nothing becomes 1e-12, which has a phase.
    """
    rows, columns = grid.shape[-2:]
    (cos_y, sin_y), (cos_x, sin_x) = (_waves(side, grid.device) for side in (rows, columns))
    real = cos_y @ grid @ cos_x - sin_y @ grid @ sin_x
    imaginary = -(sin_y @ grid @ cos_x + cos_y @ grid @ sin_x)
    own_mirror = [2 * torch.arange(side, device=grid.device) % side == 0 for side in (rows, columns)]
    imaginary = imaginary.masked_fill(own_mirror[0][:, None] & own_mirror[1], 0.0)
    return real.masked_fill((real == 0) & (imaginary == 0), 1e-12), imaginary


def from_spectrum(
    real: Float[Tensor, "b rows columns"], imaginary: Float[Tensor, "b rows columns"]
) -> Float[Tensor, "b rows columns"]:
    """The real part of the inverse transform."""
    rows, columns = real.shape[-2:]
    (cos_y, sin_y), (cos_x, sin_x) = (_waves(side, real.device) for side in (rows, columns))
    total = cos_y @ (real @ cos_x - imaginary @ sin_x) - sin_y @ (real @ sin_x + imaginary @ cos_x)
    return total / (rows * columns)


def _waves(n: int, device: torch.device) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n n"]]:
    index = torch.arange(n, device=device)
    angle = (index * index[:, None] % n).float() * (2 * math.pi / n)
    return angle.cos(), angle.sin()


def _pointwise() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.GELU(), nn.Conv2d(1, 1, 1, bias=False))
