"""What a mixture network saw of a scene: the pictures that SMD-Nets' program writes for a test image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stereopsis.io.images import write_image
from stereopsis.layers.mixture import differential_entropy
from stereopsis.structures import MixtureOutput
from stereopsis.visual import confidence_picture, disparity_picture, error_picture, robust_range


@dataclass(frozen=True)
class NamedPicture:
    name: str
    picture: np.ndarray
    """[h w 3] uint8."""


def mixture_pictures(
    output: MixtureOutput,
    *,
    truth: Float[Tensor, "h w"] | None = None,
    mask: Bool[Tensor, "h w"] | None = None,
    entropy: bool = False,
) -> list[NamedPicture]:
    """Of one pair: disparity; of a mixture also modes, scales, weights; with `entropy` the uncertainty.

    pred_disp, mu0, mu1: pixels, in the colours of one range; sigma0, sigma1: gray, white at the maximum
    disparity; pi0, pi1: gray; uncertainty: differential entropy, blue certain, red uncertain (slow: some
    4 seconds for every 100 000 pixels); error: KITTI's colours, where the truth is given.
    """
    limits = robust_range(output.disparity)
    pictures = [NamedPicture("pred_disp", disparity_picture(output.disparity, limits=limits))]
    if output.b is not None and output.mu is not None:
        unit = _unit(output)
        for k, (mode, scale) in enumerate(zip(output.mu, output.b, strict=True)):
            pictures.append(NamedPicture(f"mu{k}", disparity_picture(mode, limits=limits)))
            pictures.append(NamedPicture(f"sigma{k}", confidence_picture(scale / unit)))
        if output.pi is not None:
            pictures.append(NamedPicture("pi0", confidence_picture(output.pi)))
            pictures.append(NamedPicture("pi1", confidence_picture(1 - output.pi)))
            if entropy:
                uncertainty = differential_entropy(
                    output.pi, output.mu.movedim(0, -1) / unit, output.b.movedim(0, -1) / unit
                )
                pictures.append(NamedPicture("uncertainty", disparity_picture(uncertainty)))
    if truth is not None:
        known = torch.isfinite(truth) if mask is None else mask
        pictures.append(NamedPicture("error", error_picture(output.disparity, truth, known)))
    return pictures


def write_mixture_pictures(folder: Path, pictures: list[NamedPicture]) -> tuple[str, ...]:
    """Writes each as `<name>.png`; gives the files' names."""
    for named in pictures:
        write_image(folder / f"{named.name}.png", named.picture)
    return tuple(f"{named.name}.png" for named in pictures)


def _unit(output: MixtureOutput) -> float:
    """The maximum disparity, in pixels of the output's grid."""
    if output.field is None:
        raise ValueError("this output holds its grid only: its maximum disparity is not known")
    return output.field.max_disparity * output.scale
