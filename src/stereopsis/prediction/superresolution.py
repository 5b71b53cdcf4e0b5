"""A mixture network's disparity at any factor of the image's resolution, in bands of constant memory.

The factor need not be whole. Disparities are in pixels of the enlarged image: divided by the factor they
are in pixels of the pair (as the release of SMD-Nets gives them).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from stereopsis.confidence import confidence_of
from stereopsis.io.pfm import pfm_in_bands
from stereopsis.structures import MixtureOutput, StereoOutput

_BAND = 2**18
"""Positions of a band: their maps take some 10 MB."""
_LARGEST = 32.0


def enlarged_size(size: tuple[int, int], factor: float | int) -> tuple[int, int]:
    """(height, width) of an image enlarged by the factor; ValueError where it is not in (0, 32]."""
    if not 0 < factor <= _LARGEST:
        raise ValueError(f"the factor of superresolution must be above 0 and at most 32, it is {factor}")
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


@torch.inference_mode()
def superresolved(output: StereoOutput, factor: float | int) -> MixtureOutput:
    """The output of one pair on a grid `factor` times as fine, all of it in memory.

    Raises ValueError where the predictor gives no mixture that can be queried.
    """
    mixture = _queryable(output)
    size = enlarged_size(_size(mixture), factor)
    return _band(mixture, factor, range(size[0]), size[1])


@torch.inference_mode()
def write_superresolved(path: str | Path, output: StereoOutput, factor: float | int) -> tuple[int, int]:
    """Writes the enlarged disparity of one pair as a PFM, band by band; gives its (height, width).

    What is held in memory does not grow with the factor. Raises ValueError where the predictor gives no
    mixture that can be queried.
    """
    mixture = _queryable(output)
    height, width = enlarged_size(_size(mixture), factor)
    with pfm_in_bands(path, height, width) as write:
        for rows, band in bands(mixture, factor):
            write(rows.start, band.disparity.numpy())
    return height, width


def bands(output: MixtureOutput, factor: float | int) -> Iterator[tuple[range, MixtureOutput]]:
    """(rows, what there is in these rows) of the enlarged grid of one pair, top to bottom."""
    height, width = enlarged_size(_size(output), factor)
    step = max(1, _BAND // width)
    for start in range(0, height, step):
        rows = range(start, min(height, start + step))
        yield rows, _band(output, factor, rows, width)


def _band(output: MixtureOutput, factor: float | int, rows: range, width: int) -> MixtureOutput:
    mixture = output.query(_positions(rows, width), scale=factor)
    grid = mixture.map(lambda tensor: tensor.unflatten(0, (len(rows), width)))
    band = MixtureOutput(
        disparity=grid.disparity,
        pi=grid.pi,
        mu=grid.mu.movedim(-1, 0),
        b=None if grid.b is None else grid.b.movedim(-1, 0),
        scale=output.scale * factor,
    )
    return dataclasses.replace(band, confidence=confidence_of(band))


def _positions(rows: range, width: int) -> Float[Tensor, "n 2"]:
    """(x, y) of every pixel of these rows."""
    y, x = torch.meshgrid(torch.tensor(rows).float(), torch.arange(float(width)), indexing="ij")
    return torch.stack([x, y], -1).flatten(0, 1)


def _size(output: StereoOutput) -> tuple[int, int]:
    return output.disparity.shape[-2], output.disparity.shape[-1]


def _queryable(output: StereoOutput) -> MixtureOutput:
    if not isinstance(output, MixtureOutput) or output.field is None:
        raise ValueError(
            "superresolution needs a network that can be asked at any position: smd-psmnet, smd-hsmnet or "
            "smd-stereodepth"
        )
    if output.disparity.ndim != 2:
        raise ValueError("superresolution takes the output of one pair, not of a batch")
    return output
