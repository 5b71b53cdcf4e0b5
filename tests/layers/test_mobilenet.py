"""MobileNetV2's shapes, its published names, and the folded norm."""

from __future__ import annotations

import torch
from torch import nn

from stereopsis.layers.convolution import ConvNorm, normalise_instances_
from stereopsis.layers.mobilenet import MobileNetV2, mobilenet_rules
from stereopsis.models.base import rename


def test_maps_have_the_published_widths_and_scales() -> None:
    with torch.no_grad():
        maps = MobileNetV2().eval()(torch.rand(1, 3, 64, 96))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (16, 32, 48),
        (24, 16, 24),
        (32, 8, 12),
        (96, 4, 6),
        (160, 2, 3),
    ]


def test_published_names_map_one_to_one() -> None:
    published = {}
    units = {"0.0": 1, "1.0": 2, "2.0": 3, "3.0": 4, "3.1": 3, "4.0": 3}
    for stage, count in units.items():
        for unit in range(count):
            convs = ("conv_dw", "conv_pw") if stage == "0.0" else ("conv_pw", "conv_dw", "conv_pwl")
            for i, conv in enumerate(convs, start=1):
                base = f"feature.block{stage}.{unit}"
                published[f"{base}.{conv}.weight"] = torch.zeros(1)
                for leaf in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
                    published[f"{base}.bn{i}.{leaf}"] = torch.zeros(1)
    published["feature.conv_stem.weight"] = torch.zeros(1)
    for leaf in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        published[f"feature.bn1.{leaf}"] = torch.zeros(1)
    renamed = rename(published, mobilenet_rules(r"feature\.", "features.backbone."))
    assert renamed.keys() == {f"features.backbone.{key}" for key in MobileNetV2().state_dict()}


def _with_statistics(block: ConvNorm) -> ConvNorm:
    generator = torch.Generator().manual_seed(3)
    norm = block.norm
    assert isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.normal_(generator=generator)
    norm.running_var.uniform_(0.5, 2.0, generator=generator)
    nn.init.normal_(norm.weight, generator=generator)
    nn.init.normal_(norm.bias, generator=generator)
    return block.eval()


def test_folding_the_norm_gives_the_same_values() -> None:
    blocks = [
        ConvNorm(4, 6, stride=2, bias=True),
        ConvNorm(4, 4, groups=4, activation="relu6"),
        ConvNorm(4, 6, kernel=4, stride=2, transposed=True, activation="none"),
        ConvNorm(4, 6, dimensions=3, activation="relu"),
        ConvNorm(4, 6, kernel=4, stride=2, dimensions=3, transposed=True),
    ]
    for block in blocks:
        _with_statistics(block)
        spatial = (5, 6, 7) if isinstance(block.norm, nn.BatchNorm3d) else (6, 7)
        x = torch.randn(2, 4, *spatial)
        plain = block.norm(block.conv(x))
        plain = {
            "leaky": torch.nn.functional.leaky_relu(plain, 0.01),
            "relu": plain.relu(),
            "relu6": plain.clamp(0, 6),
            "none": plain,
        }[block.activation]
        torch.testing.assert_close(block(x), plain, rtol=1e-4, atol=1e-5)


def test_instance_norm_in_place_is_instance_norm_in_every_layout() -> None:
    generator = torch.Generator().manual_seed(4)
    flat, deep = (
        torch.randn(2, 5, 40, 30, generator=generator),
        torch.randn(1, 3, 8, 9, 10, generator=generator),
    )
    for x, layout in ((3 * flat + 1, torch.channels_last), (flat, torch.contiguous_format), (deep, None)):
        given = x.clone() if layout is None else x.clone(memory_format=layout)
        expected = torch.nn.functional.instance_norm(x.double())
        torch.testing.assert_close(normalise_instances_(given, 1e-5).double(), expected, rtol=0, atol=5e-6)
