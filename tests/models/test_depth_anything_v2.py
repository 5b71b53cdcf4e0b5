"""Depth Anything V2: sizes, both kinds of files, and the same maps as transformers gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stereopsis.layers.dpt import SIZES
from stereopsis.models.base import count_parameters
from stereopsis.models.depth_anything_v2 import DepthAnythingV2
from stereopsis.models.registry import create, model_from_official


def _model(**options: object) -> DepthAnythingV2:
    torch.manual_seed(0)
    small: dict[str, object] = {"encoder": "tiny", "input_size": 56}
    model = create("depth-anything-v2-large", **{**small, **options})
    assert isinstance(model, DepthAnythingV2)
    return model.eval()


def _image(height: int, width: int) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("size", "seen"),
    [
        ((518, 518), (518, 518)),
        ((480, 640), (518, 686)),  # 690.67 is nearer to 686 than to 700
        ((1000, 400), (1288, 518)),  # 1295 lies half-way: to the even multiple
        ((375, 1242), (518, 1722)),
        ((100, 101), (518, 518)),  # 523.18
    ],
)
def test_the_shorter_side_reaches_the_input_size(size: tuple[int, int], seen: tuple[int, int]) -> None:
    model = _model(input_size=518)
    assert tuple(model.prepare(_image(*size)).shape[-2:]) == seen


@pytest.mark.parametrize("size", [(31, 45), (56, 56), (90, 60)])
def test_maps_have_the_size_of_the_image_and_are_not_negative(size: tuple[int, int]) -> None:
    with torch.no_grad():
        depth = _model()(_image(*size)).inverse_depth
    assert depth.shape == (1, *size)
    assert bool((depth >= 0).all())


def test_gradients_reach_all_but_the_unused() -> None:
    model = _model().train()
    torch.nn.init.constant_(model.head.conv3.bias, 5.0)  # an untrained map may be zero throughout
    model(_image(56, 70)).inverse_depth.square().mean().backward()
    untouched = {key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    unit = "head.neck.fusions.3.skip_unit"
    expected = {f"{unit}.{conv}.{part}" for conv in ("conv1", "conv2") for part in ("weight", "bias")}
    assert untouched == {"encoder.mask_token", *expected}


@pytest.mark.parametrize(
    ("name", "published"), [("small", 24_785_089), ("base", 97_470_785), ("large", 335_315_649)]
)
def test_parameters_are_as_many_as_published(name: str, published: int) -> None:
    with torch.device("meta"):
        assert count_parameters(create(f"depth-anything-v2-{name}")) == published


@pytest.mark.parametrize("naming", ["huggingface_file", "huggingface_module_v5"])
@pytest.mark.parametrize(("variant", "name"), [("vits", "small"), ("vitb", "base"), ("vitl", "large")])
def test_hugging_face_names_are_the_published_ones(
    reference: Path, variant: str, name: str, naming: str
) -> None:
    folder = reference / "depth-anything-v2"
    manifest = json.loads((folder / "manifest.json").read_text())["variants"][variant]["state"]
    published = {
        key: torch.full((), float(k)).expand(shape) for k, (key, (shape, _)) in enumerate(manifest.items())
    }
    theirs = {}
    for row in json.loads((folder / "huggingface_keys.json").read_text())[variant]:
        tensor = published[row["official"]]
        theirs[row[naming]] = tensor[slice(*row["rows"])] if row["rows"] else tensor
    config = DepthAnythingV2.recognise(theirs)
    assert config is not None
    assert config == DepthAnythingV2.recognise(published)
    assert config.encoder == name
    ours, expected = DepthAnythingV2.from_official(theirs), DepthAnythingV2.from_official(published)
    assert ours.keys() == expected.keys()
    for key, tensor in expected.items():
        assert ours[key].shape == tensor.shape
        assert torch.equal(ours[key], tensor)


def test_a_hugging_face_file_without_a_part_is_refused_by_its_name() -> None:
    size = SIZES["small"]
    with torch.device("meta"):
        theirs = {
            "backbone.embeddings.cls_token": torch.zeros(1, 1, size.channels),
            "neck.convs.0.weight": torch.zeros(size.features, size.widths[0], 3, 3),
            "backbone.encoder.layer.0.attention.attention.query.weight": torch.zeros(384, 384),
        }
        with pytest.raises(ValueError, match="missing: encoder"):
            model_from_official(theirs)


def _oracle() -> torch.nn.Module:
    """The implementation of transformers, in the small size."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    sizes = SIZES["small"]
    config = DepthAnythingConfig(
        backbone_config=Dinov2Config(
            hidden_size=sizes.channels,
            num_hidden_layers=sizes.blocks,
            num_attention_heads=sizes.heads,
            image_size=518,
            patch_size=14,
            layer_norm_eps=1e-6,
            out_indices=[tap + 1 for tap in sizes.taps],
            apply_layernorm=True,
            reshape_hidden_states=False,
        ),
        reassemble_hidden_size=sizes.channels,
        fusion_hidden_size=sizes.features,
        neck_hidden_sizes=list(sizes.widths),
        reassemble_factors=[4, 2, 1, 0.5],
        head_in_index=-1,
        head_hidden_size=32,
        depth_estimation_type="relative",
        max_depth=1,
    )
    return DepthAnythingForDepthEstimation(config).eval()


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(518, 518), (126, 252)])
def test_maps_are_those_of_transformers(height: int, width: int) -> None:
    torch.manual_seed(0)
    oracle = _oracle()
    with torch.no_grad():
        for key, parameter in oracle.named_parameters():
            if "norm" not in key and "layer_scale" not in key:
                parameter.normal_(std=0.5 if "position" in key else (2 / max(parameter[0].numel(), 1)) ** 0.5)
        oracle.head.conv3.bias.fill_(5.0)
    model = model_from_official(oracle.state_dict(), input_size=min(height, width), position_offset=0.0)
    image = _image(height, width)
    assert isinstance(model, DepthAnythingV2)
    with torch.no_grad():
        ours = model.eval()(image).inverse_depth
        theirs = oracle(pixel_values=model.prepare(image)).predicted_depth
    assert float(ours.std()) > 0.01
    assert float((ours - theirs).abs().max()) < 1e-3
