from __future__ import annotations

import pytest
import torch
from torch import nn

from stereopsis.layers.convolution import ConvNorm, channels_innermost

BLOCKS = {
    "2-D": {},
    "dilated": {"dilation": 2, "activation": "relu"},
    "strided 3-D with bias": {"dimensions": 3, "stride": 2, "bias": True},
    "strided 1x1": {"kernel": 1, "stride": (2, 1)},
    "strided 1x1x1": {"kernel": 1, "stride": 2, "dimensions": 3},
    "transposed 2-D": {"transposed": True, "kernel": 4, "stride": 2},
    "transposed 3-D, doubling": {
        "dimensions": 3,
        "transposed": True,
        "stride": 2,
        "output_padding": 1,
        "activation": "none",
    },
}


def block(options: dict) -> tuple[ConvNorm, torch.Tensor]:
    """A block whose norm has statistics and an affine map of its own, and an input for it."""
    torch.manual_seed(0)
    made = ConvNorm(6, 4, slope=0.1, **options)
    assert isinstance(made.norm, nn.BatchNorm2d | nn.BatchNorm3d)
    for tensor in (made.norm.weight, made.norm.running_var):
        nn.init.uniform_(tensor, 0.5, 1.5)
    for tensor in (made.norm.bias, made.norm.running_mean):
        nn.init.normal_(tensor)
    return made.eval(), torch.randn(2, 6, *((6, 8, 10)[3 - options.get("dimensions", 2) :]))


@pytest.mark.parametrize("options", BLOCKS.values(), ids=BLOCKS.keys())
def test_the_folded_norm_gives_what_convolution_norm_and_activation_give(options):
    made, x = block(options)
    strided = made.conv
    if options.get("kernel") == 1:
        plain = {2: nn.Conv2d, 3: nn.Conv3d}[options.get("dimensions", 2)]
        strided = plain(6, 4, 1, options["stride"], bias=False)
        strided.weight = made.conv.weight
    expected = made.norm(strided(x))
    if made.activation != "none":
        slope = 0.1 if made.activation == "leaky" else 0.0
        expected = torch.where(expected > 0, expected, slope * expected)
    torch.testing.assert_close(made(x), expected, rtol=1e-5, atol=1e-5)


def test_a_dilated_block_keeps_the_size_and_a_doubling_one_doubles_it():
    made, x = block(BLOCKS["dilated"])
    assert made(x).shape[-2:] == x.shape[-2:]
    made, x = block(BLOCKS["transposed 3-D, doubling"])
    assert [n // m for n, m in zip(made(x).shape[-3:], x.shape[-3:], strict=True)] == [2, 2, 2]


def test_gradients_of_strided_1x1_blocks_of_few_channels_do_not_corrupt_memory():
    """A strided 1x1 convolution of 8 channels, innermost in memory, once ended the process here."""
    made = ConvNorm(8, 16, kernel=1, stride=(2, 1))
    x = torch.randn(2, 8, 16, 512).to(memory_format=torch.channels_last).requires_grad_()
    for _ in range(8):
        made(x).square().mean().backward()
    assert x.grad is not None
    assert bool((x.grad[:, :, 1::2] == 0).all())
    assert bool((x.grad[:, :, ::2] != 0).any())


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"dilation": 2}, {"kernel": 1}], ids=str)
@pytest.mark.parametrize("innermost", [False, True])
def test_small_volumes_give_in_evaluation_what_they_give_with_gradients(options, innermost):
    made, _ = block({"dimensions": 3, **options})
    x = torch.randn(1, 6, 6, 9, 11)
    x = channels_innermost(x) if innermost else x
    expected = made(x).detach()
    with torch.no_grad():
        torch.testing.assert_close(made(x), expected, rtol=1e-5, atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            assert made(x).dtype == torch.bfloat16
