"""What both disparities at full resolution, and where they err, say of the last correction (REMP)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.convolution import ConvNorm
from stereopsis.layers.double_hourglass import DoubleHourglass, double_hourglass_rules

Disparity = Float[Tensor, "b h w"]

_WIDTHS = (32, 48, 64, 96, 128)


class Refinement(nn.Module):
    """The corrected disparity; images in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.monocular_error, self.stereo_error = _see(6), _see(6)
        self.monocular_disparity, self.stereo_disparity = _see(1), _see(1)
        self.start = ConvNorm(64, 32, dilation=2, activation="relu")
        self.hourglass = DoubleHourglass(_WIDTHS, norm="batch", dilated=2)
        self.overall = nn.Sequential(
            nn.Conv2d(32, 64, 1), nn.ReLU(inplace=True), nn.Conv2d(64, 32, 1), nn.Sigmoid()
        )
        self.mask = nn.Sequential(
            nn.Conv2d(32, 32, 3, padding=1),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 32, 3, padding=1),
            nn.Sigmoid(),
        )
        self.finish = nn.Conv2d(32, 1, 3, padding=1)

    def forward(
        self,
        monocular: Disparity,
        stereo: Disparity,
        left: Float[Tensor, "b 3 h w"],
        right: Float[Tensor, "b 3 h w"],
    ) -> Disparity:
        seen = [
            self.monocular_error(_error(monocular, left, right)),
            self.monocular_disparity(monocular[:, None]),
            self.stereo_error(_error(stereo, left, right)),
            self.stereo_disparity(stereo[:, None]),
        ]
        x = self.hourglass(self.start(torch.cat(seen, 1)))[1]
        overall = self.overall(x.mean((2, 3), keepdim=True))
        x = torch.lerp(overall, x, self.mask(x))
        return F.leaky_relu(stereo + self.finish(x)[:, 0])


def _see(inputs: int) -> ConvNorm:
    return ConvNorm(inputs, 16, slope=0.2)


def _error(
    disparity: Disparity, left: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, "b 6 h w"]:
    return torch.cat([flaw(left, right, disparity), left], 1)


def flaw(
    left: Float[Tensor, "b c h w"], right: Float[Tensor, "b c h w"], disparity: Disparity
) -> Float[Tensor, "b c h w"]:
    """The right map as the disparity shows it on the left, minus the left.

    Kept quirk: positions are normalised for aligned corners and sampled without, which zooms out by
    w / (w - 1); borders are replicated. Sampled in float32, as published: half precision's positions are
    pixels apart.
    """
    height, width = disparity.shape[-2:]
    x = torch.arange(width, device=disparity.device, dtype=torch.float32) - disparity.float()
    y = torch.arange(height, device=disparity.device, dtype=torch.float32)[:, None].expand_as(x)
    grid = torch.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], -1)
    seen = F.grid_sample(right.float(), grid, padding_mode="border", align_corners=False)
    return seen.to(right.dtype) - left


def refinement_rules(published: str, ours: str) -> list[tuple[str, str]]:
    """Renaming rules; both end with a dot, escaped in the first."""
    rules = []
    for old, new in (("mono", "monocular"), ("stereo", "stereo")):
        for number, kind in ((1, "error"), (2, "disparity")):
            rules += [
                (rf"^{published}conv{number}_{old}\.0\.", f"{ours}{new}_{kind}.conv."),
                (rf"^{published}conv{number}_{old}\.1\.", f"{ours}{new}_{kind}.norm."),
            ]
    return [
        *rules,
        (rf"^{published}conv_start\.", f"{ours}start."),
        *double_hourglass_rules(rf"{published}RefinementBlock\.", f"{ours}hourglass.", depth=4),
        (rf"^{published}LFE\.", f"{ours}overall."),
        (rf"^{published}LMC\.", f"{ours}mask."),
        (rf"^{published}final_conv\.", f"{ours}finish."),
    ]
