"""The two hourglasses remember what they should, and names of the published form find their place."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from stereopsis.layers.convolution import Norm
from stereopsis.layers.double_hourglass import DoubleHourglass, double_hourglass_rules


@torch.no_grad()
@pytest.mark.parametrize(("norm", "deformable"), [("none", 0), ("batch", 1)])
def test_it_is_the_recipe_written_out(norm: Norm, deformable: int) -> None:
    torch.manual_seed(0)
    net = DoubleHourglass((4, 6, 8), norm=norm, deformable=deformable).eval()
    x = torch.randn(2, 4, 8, 12)

    def merged(part: str, level: int, given: Tensor, met: Tensor) -> Tensor:
        block = net.get_submodule(f"{part}.{level}")
        return block.merge(torch.cat([block.resize(given), met], 1))

    half = net.down1[0](x)
    quarter = net.down1[1](half)
    half_up = merged("up1", 1, quarter, half)
    full_up = merged("up1", 0, half_up, x)
    half_down = merged("down2", 0, full_up, half_up)
    quarter_down = merged("down2", 1, half_down, quarter)
    half_last = merged("up2", 1, quarter_down, half_down)
    full_last = merged("up2", 0, half_last, full_up)
    first, second = net(x)
    assert torch.equal(first, full_up)
    assert torch.equal(second, full_last)


def test_published_names_find_their_place() -> None:
    net = DoubleHourglass((4, 6, 8), norm="batch", deformable=1)
    own = {f"net.{name}" for name in net.state_dict()}
    published = [
        "conv1a.conv.weight",
        "conv1a.bn.weight",
        "conv2a.deform_conv.weight",
        "conv2a.offset_conv.bias",
    ]
    published += ["deconv2a.conv1.conv.weight", "deconv1b.conv2.bn.running_mean"]
    published += ["conv1b.conv2.conv.weight", "conv2b.conv1.bn.bias", "conv2b.conv2.deform_conv.weight"]
    for name in published:
        renamed = f"old.{name}"
        for pattern, replacement in double_hourglass_rules(r"old\.", "net.", depth=2):
            renamed = re.sub(pattern, replacement, renamed)
        assert renamed in own, (name, renamed)
