"""Every volume against the definition, written as loops over disparity and column."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stereopsis.layers.cost_volume import (
    concatenation_volume,
    correlation_volume,
    difference_volume,
    groupwise_correlation_volume,
)

SHAPES = [(2, 4, 3, 11, 5), (1, 6, 2, 7, 7), (1, 2, 3, 5, 9), (1, 2, 1, 12, 1)]
"""b c h w and levels; the third has more levels than columns."""


def pair(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def naive(left: Tensor, right: Tensor, levels: int, channels: int, match) -> Tensor:
    """`match(left[..., x], right[..., x - d])` where x >= d, zero elsewhere."""
    b, _, h, w = left.shape
    volume = left.new_zeros(b, channels, levels, h, w)
    for d in range(levels):
        for x in range(d, w):
            volume[:, :, d, :, x] = match(left[..., x], right[..., x - d])
    return volume


@pytest.mark.parametrize("shape", SHAPES)
def test_difference_is_reference_minus_other_on_both_views(shape):
    left, right = pair(shape[:4])
    levels = shape[4]
    assert torch.equal(
        difference_volume(left, right, levels),
        naive(left, right, levels, shape[1], lambda a, b: a - b),
    )
    on_right = left.new_zeros(*shape[:2], levels, *shape[2:4])
    for d in range(levels):
        for x in range(shape[3] - d):
            on_right[:, :, d, :, x] = right[..., x] - left[..., x + d]
    assert torch.equal(difference_volume(left, right, levels, reference="right"), on_right)


@pytest.mark.parametrize("shape", SHAPES)
def test_concatenation_is_zero_in_both_halves_where_nothing_matches(shape):
    left, right = pair(shape[:4])
    expected = naive(left, right, shape[4], 2 * shape[1], lambda a, b: torch.cat([a, b], 1))
    assert torch.equal(concatenation_volume(left, right, shape[4]), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_correlation_is_the_mean_product_of_channels(shape):
    left, right = pair(shape[:4])
    expected = naive(left, right, shape[4], 1, lambda a, b: (a * b).mean(1, keepdim=True))
    torch.testing.assert_close(correlation_volume(left, right, shape[4]), expected[:, 0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_groupwise_correlation_is_the_mean_product_within_a_group(shape):
    left, right = pair(shape[:4])
    groups = 2

    def match(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).unflatten(1, (groups, -1)).mean(2)

    expected = naive(left, right, shape[4], groups, match)
    ours = groupwise_correlation_volume(left, right, shape[4], groups=groups)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


VOLUMES = {
    "difference": difference_volume,
    "difference on the right": lambda a, b, d: difference_volume(a, b, d, reference="right"),
    "concatenation": concatenation_volume,
    "correlation": correlation_volume,
    "groupwise": lambda a, b, d: groupwise_correlation_volume(a, b, d, groups=2),
}


@pytest.mark.parametrize("volume", VOLUMES.values(), ids=VOLUMES.keys())
@pytest.mark.parametrize("shape", SHAPES)
def test_the_differentiable_volume_has_the_same_values_and_correct_gradients(volume, shape):
    left, right = (image.double() for image in pair(shape[:4]))
    plain = volume(left, right, shape[4])
    left.requires_grad_()
    right.requires_grad_()
    torch.testing.assert_close(volume(left, right, shape[4]), plain, rtol=0, atol=1e-14)
    assert torch.autograd.gradcheck(lambda a, b: volume(a, b, shape[4]), (left, right))


@pytest.mark.parametrize("volume", [correlation_volume, VOLUMES["groupwise"]])
def test_correlation_stays_in_float32_under_autocast(volume):
    left, right = pair((1, 4, 3, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(volume(left, right, 4), volume(left, right, 4).float())
        assert volume(left.bfloat16(), right.bfloat16(), 4).dtype == torch.float32


@pytest.mark.parametrize("volume", [difference_volume, concatenation_volume])
def test_the_volume_keeps_the_memory_format_of_the_features(volume):
    left, right = pair((2, 4, 3, 11))
    innermost = [image.to(memory_format=torch.channels_last) for image in (left, right)]
    ours = volume(*innermost, 5)
    assert ours.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(ours, volume(left, right, 5))
    assert volume(left, right, 5).is_contiguous()


def test_unequal_groups_are_refused():
    left, right = pair((1, 6, 2, 7))
    with pytest.raises(ValueError, match="6 channels cannot be split into 4"):
        groupwise_correlation_volume(left, right, 3, groups=4)


@pytest.mark.compile
@pytest.mark.parametrize("volume", VOLUMES.values(), ids=VOLUMES.keys())
def test_export_gives_the_same_volume(volume):
    class Volume(torch.nn.Module):
        def forward(self, left, right):
            return volume(left, right, 5)

    left, right = pair((1, 4, 3, 11))
    exported = torch.export.export(Volume(), (left, right)).module()
    torch.testing.assert_close(exported(left, right), volume(left, right, 5), rtol=0, atol=1e-6)
