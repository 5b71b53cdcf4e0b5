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
        by_frequency = torch.sigmoid(self.bent(means))
        by_neighbours = torch.sigmoid(self.neighbours(means[:, None])[:, 0])
        share = torch.sigmoid(self.mixture)
        weights = torch.sigmoid(self.strength) * (share * by_frequency + (1 - share) * by_neighbours)
        return F.relu(self.norm(self.spread(y * weights[..., None, None] + x)))

    def bent(self, means: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        """The means with their spectrum changed."""
        rows, columns = self.grid
        channels = means.shape[1]
        # A real input: the sign of rounding-sized imaginary parts decides phases of pi or -pi.
        spectrum = torch.fft.fft2(F.pad(means, (0, rows * columns - channels)).unflatten(1, (rows, columns)))
        amplitude, phase = spectrum.abs(), torch.angle(spectrum)
        gate = torch.sigmoid(self.steepness * (self._radii(means.device) - self.cutoff))
        gain = self.low_gain * (1 - gate) + self.high_gain * gate
        amplitude = amplitude * (1 + self.amplitude(amplitude[:, None])[:, 0]) * gain
        phase = phase + self.phase_scale * gate * torch.tanh(self.phase(phase[:, None])[:, 0])
        bent = torch.complex(amplitude * phase.cos(), amplitude * phase.sin())
        return torch.fft.ifft2(bent).real.flatten(1)[:, :channels]

    def _radii(self, device: torch.device) -> Float[Tensor, "rows columns"]:
        """The frequencies' distances from zero, the corner's being 1."""
        y, x = (torch.fft.fftfreq(side, device=device) for side in self.grid)
        return ((x**2 + y[:, None] ** 2).sqrt() / math.sqrt(0.5)).clamp(0, 1)


def _pointwise() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.GELU(), nn.Conv2d(1, 1, 1, bias=False))
