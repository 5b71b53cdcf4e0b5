"""Padding grows images on the sides and with the content that each network declares."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stereopsis.models.base import Padding


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (3, 70), (64, 64)])
def test_mirrored_borders_are_numpys_symmetric(size: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    padding = Padding((64, 64), vertical="top", horizontal="right", fill="mirror")
    top, bottom, left, right = padding.amounts(*size)
    expected = np.pad(image.numpy(), ((0, 0), (0, 0), (top, bottom), (left, right)), mode="symmetric")
    assert np.array_equal(padding.pad(image).numpy(), expected)


def test_a_fill_is_a_colour_and_replication_the_default() -> None:
    image = torch.rand(1, 3, 2, 3, generator=torch.Generator().manual_seed(0))
    filled = Padding((4, 4), vertical="bottom", horizontal="left", fill=(0.1, 0.2, 0.3)).pad(image)
    assert torch.equal(filled[..., :2, 1:], image)
    assert torch.allclose(filled[0, :, 3, 0], torch.tensor([0.1, 0.2, 0.3]))
    replicated = Padding((4, 4), vertical="both", horizontal="both").pad(image)
    assert torch.equal(replicated[..., 0, 0], image[..., 0, 0])
