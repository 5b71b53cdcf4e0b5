"""The vision transformer's grid of patches and its positions; the neck's sizes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from stereopsis.layers.dpt import SIZES
from stereopsis.layers.vit import VisionTransformer


def _encoder(position_offset: float = 0.1) -> VisionTransformer:
    torch.manual_seed(0)
    encoder = SIZES["tiny"].encoder(position_offset=position_offset)
    torch.nn.init.normal_(encoder.positions)
    return encoder.eval()


def test_patches_are_in_row_major_order() -> None:
    encoder = _encoder()
    image = torch.zeros(1, 3, 28, 42)
    image[:, :, 14:, :14] = 1.0  # the fourth patch of six
    changed = (encoder.embed(image) - encoder.embed(torch.zeros_like(image))).abs().sum(-1)[0]
    assert changed.nonzero().flatten().tolist() == [4]


def test_trained_positions_are_used_as_they_are() -> None:
    encoder = _encoder()
    empty = torch.zeros(1, 3, 518, 518)
    tokens = encoder.embed(empty) - encoder.patch_embedding.bias
    assert torch.allclose(tokens[:, 1:], encoder.positions[:, 1:], atol=1e-6)


@pytest.mark.parametrize("offset", [0.1, 0.0])
def test_other_grids_resize_the_positions(offset: float) -> None:
    encoder = _encoder(offset)
    empty = torch.zeros(1, 3, 56, 84)
    tokens = encoder.embed(empty)[:, 1:] - encoder.patch_embedding.bias
    grid = encoder.positions[:, 1:].transpose(1, 2).unflatten(-1, (37, 37))
    scale = ((4 + offset) / 37, (6 + offset) / 37)
    expected = F.interpolate(grid, scale_factor=scale, mode="bicubic", recompute_scale_factor=False)
    if offset:
        assert torch.allclose(tokens, expected.flatten(2).transpose(1, 2), atol=1e-6)
    else:
        expected = F.interpolate(grid, (4, 6), mode="bicubic")
        assert torch.allclose(tokens, expected.flatten(2).transpose(1, 2), atol=1e-6)


def test_broken_patches_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 14, they are 50x28"):
        _encoder()(torch.zeros(1, 3, 28, 50))


def test_the_neck_doubles_from_half_to_four_cells_a_patch() -> None:
    size = SIZES["tiny"]
    tapped = _encoder()(torch.zeros(1, 3, 56, 84))
    assert [tuple(x.shape[1:]) for x in tapped] == [(size.channels, 4, 6)] * 4
    pyramid = size.neck()(tapped)
    assert [tuple(x.shape[1:]) for x in pyramid] == [(16, 16, 24), (16, 8, 12), (16, 4, 6), (16, 2, 3)]
    assert size.head()(tapped).shape == (1, 1, 56, 84)
