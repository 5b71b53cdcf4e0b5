"""RAFT-Stereo's encoders: scales, the residual block's equation, published names."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from stereopsis.layers.encoders import (
    ContextEncoder,
    ResidualBlock,
    ResidualTrunk,
    encoder_rules,
    raft_strides,
    without_shortcut_aliases,
)
from stereopsis.models.base import rename


@pytest.mark.parametrize(("downsample", "scale"), [(0, 1), (1, 2), (2, 4), (3, 8)])
def test_the_trunk_divides_the_size_as_told(downsample: int, scale: int) -> None:
    image = torch.rand(1, 3, 16, 24)
    with torch.no_grad():
        out = ResidualTrunk(norm="instance", strides=raft_strides(downsample))(image)
    assert out.shape == (1, 128, 16 // scale, 24 // scale)


def test_the_inner_branch_is_rectified_before_the_sum() -> None:
    block = ResidualBlock(3, 3, norm="none").eval()
    x = torch.randn(1, 3, 5, 6)

    def conv(y: torch.Tensor, layer: torch.nn.Module) -> torch.Tensor:
        assert isinstance(layer, torch.nn.Conv2d)
        return F.relu(F.conv2d(y, layer.weight, layer.bias, padding=1))

    inner = conv(conv(x, block.first.conv), block.second.conv)
    torch.testing.assert_close(block(x), F.relu(inner + x))


def test_states_are_bounded_and_contexts_rectified() -> None:
    with torch.no_grad():
        maps = ContextEncoder(norm="batch", downsample=2, levels=3).eval()(torch.rand(1, 3, 32, 64))
    assert [tuple(h.shape[-2:]) for h in maps.hidden] == [(8, 16), (4, 8), (2, 4)]
    assert all(float(h.abs().max()) <= 1 for h in maps.hidden)
    assert all(float(c.min()) >= 0 for c in maps.context)


def test_published_names_of_a_block_map_and_aliases_go() -> None:
    value = torch.ones(2)
    state = {"cnet.layer2.0.norm3.weight": value, "cnet.layer2.0.downsample.1.weight": value.clone()}
    renamed = rename(without_shortcut_aliases(state), encoder_rules("cnet", "context"))
    assert renamed.keys() == {"context.trunk.stages.1.0.shortcut.norm.weight"}


def test_aliases_that_differ_are_refused() -> None:
    state = {"a.norm3.bias": torch.ones(2), "a.downsample.1.bias": torch.zeros(2)}
    with pytest.raises(ValueError, match=r"two different tensors.*a\.norm3\.bias"):
        without_shortcut_aliases(state)
