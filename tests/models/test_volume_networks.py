"""PSMNet and HSMNet beyond parity: sizes, options, training outputs, one checkpoint for three levels."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from stereopsis.losses import SmoothL1Loss
from stereopsis.models.base import StereoModel, count_parameters
from stereopsis.models.hsmnet import HSMNet
from stereopsis.models.registry import backbone, create, entry
from stereopsis.prediction.loading import load
from stereopsis.structures import StereoPair, StereoSample, VolumeOutput


def network(name: str, **options: object) -> StereoModel:
    torch.manual_seed(0)
    model = create(name, **{**entry(name).tiny, **options})
    assert isinstance(model, StereoModel)
    return model


def pair(height: int = 256, width: int = 256, batch: int = 1) -> StereoPair:
    return StereoPair(*torch.rand(2, batch, 3, height, width, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    ("name", "published"),
    [("psmnet", 5_224_768), ("psmnet-basic", 3_672_896), ("hsmnet", 3_174_132)],
)
def test_parameters_are_as_many_as_published(name, published):
    with torch.device("meta"):
        assert count_parameters(create(name)) == published


@pytest.mark.parametrize(("name", "stages"), [("psmnet", 2), ("psmnet-basic", 0), ("hsmnet", 3)])
def test_training_supervises_every_stage_and_reaches_every_parameter(name, stages):
    model = network(name).train()
    images = pair(batch=2)  # pooled to one value per channel, batch norm needs two pairs
    output = model(images.left, images.right)
    assert len(output.stages) == stages
    assert all(stage.shape == (2, 256, 256) for stage in output.stages)
    truth = torch.full((2, 256, 256), 9.0)
    SmoothL1Loss(weights=(1.0,) * (stages + 1))(output, StereoSample(images, truth, truth > 0)).backward()
    unreached = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().max()]
    # The last bias of a softmax's scores moves all of them alike.
    assert [n for n in unreached if not n.endswith("classifier.1.bias")] == []


def test_in_evaluation_only_the_last_disparity_is_read():
    output = network("psmnet").eval()(pair().left, pair().right)
    assert isinstance(output, VolumeOutput)
    assert output.stages == ()
    assert output.probabilities is not None
    assert output.levels is not None
    assert output.probabilities.shape == (1, 8, 64, 64)
    assert output.levels.tolist() == [1.5, 5.5, 9.5, 13.5, 17.5, 21.5, 25.5, 29.5]


def test_aligned_corners_move_the_levels_and_the_disparity():
    images = pair()
    plain, aligned = (
        network("psmnet", align_corners=value).eval()(images.left, images.right) for value in (False, True)
    )
    assert aligned.levels.tolist() == pytest.approx([31 * i / 7 for i in range(8)])
    assert not torch.equal(plain.disparity, aligned.disparity)


@pytest.mark.parametrize(
    ("name", "disparity", "sentence"),
    [("psmnet", 100, "multiple of 16"), ("psmnet-basic", 6, "multiple of 4"), ("hsmnet", 64, "at least 128")],
)
def test_maximum_disparities_that_do_not_fit_are_refused(name, disparity, sentence):
    with pytest.raises(ValueError, match=sentence):
        create(name, max_disparity=disparity)


def published_file(folder: Path) -> Path:
    """A checkpoint of level 1 under published names, as its program writes it."""
    model = create("hsmnet", max_disparity=128)
    assert isinstance(model, HSMNet)
    state = {_hsm_name(name): tensor for name, tensor in model.state_dict().items()}
    assert HSMNet.from_official(state).keys() == model.state_dict().keys()
    state["disp_reg8.disp"] = torch.arange(24.0)
    path = folder / "final-768px.tar"
    torch.save({"iters": 1, "state_dict": {f"module.{n}": t for n, t in state.items()}}, path)
    return path


def _hsm_name(name: str) -> str:
    """The published name of a tensor of ours."""
    unit = "cb_unit" if ".conv2." in name and "residual" in name else "cbr_unit"
    rules = [
        (r"\.stem\.(\d)", lambda m: f".convbnrelu1_{int(m[1]) + 1}"),
        (r"\.residual(\d)\.", r".res_block\1.0."),
        (r"(res_block\d\.0)\.conv1\.", r"\1.convbnrelu1."),
        (r"(res_block\d\.0)\.conv2\.", r"\1.convbn2."),
        (r"^(feature_extraction)\.pooling\.", r"\1.pyramid_pooling.path_module_list."),
        (r"\.up(\d)\.", r".upconv\1.1."),
        (r"\.merge(\d)\.", r".iconv\1."),
        (r"\.projection(\d)\.", r".proj\1."),
        (r"^(decoder\d)\.blocks\.", r"\1.convs."),
        (r"^(decoder\d)\.pooling\.", r"\1.pool_convs."),
        (r"^(decoder\d)\.up\.", r"\1.up.1."),
        (r"\.classifier\.0\.", ".classify.0."),
        (r"\.classifier\.1\.", ".classify.2.0."),
        (r"(decoder.*)\.shortcut\.conv\.", r"\1.downsample.conv1."),
        (r"(decoder.*)\.shortcut\.norm\.", r"\1.downsample.bn."),
        (r"\.shortcut\.conv\.", ".downsample.0."),
        (r"\.shortcut\.norm\.", ".downsample.1."),
        (r"^(decoder.*)\.conv\.weight$", r"\1.0.weight"),
        (r"^(decoder.*)\.norm\.", r"\1.1."),
        (r"\.conv\.weight$", f".{unit}.0.weight"),
        (r"\.norm\.", f".{unit}.1."),
    ]
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def test_one_checkpoint_serves_three_levels(tmp_path):
    path = published_file(tmp_path)
    found = [load(path, max_disparity=128, level=level).model for level in (1, 2, 3)]
    assert [model.config.level for model in found] == [1, 2, 3]
    counts = [count_parameters(model) for model in found]
    assert counts[0] > counts[1] > counts[2]
    first, last = (
        model.state_dict()["decoder6.blocks.0.conv1.conv.weight"] for model in (found[0], found[2])
    )
    assert torch.equal(first, last)


def test_coarse_levels_are_for_inference_only():
    model = network("hsmnet", level=2)
    with pytest.raises(ValueError, match="trained at level 1"):
        model.train()(pair().left, pair().right)


@torch.no_grad()
def test_clean_removes_what_is_uncertain_and_confidence_tells_how_much():
    images = pair(128, 256)
    plain = network("hsmnet").eval()(images.left, images.right)
    assert plain.confidence is not None
    middle = float(plain.confidence.median())
    threshold = (1 - middle) * torch.log(torch.tensor(8.0)).item()
    cleaned = network("hsmnet", clean=threshold).eval()(images.left, images.right)
    removed = cleaned.disparity.isinf()
    assert 0.4 < float(removed.float().mean()) < 0.6
    assert torch.equal(cleaned.disparity[~removed], plain.disparity[~removed])
    assert bool((plain.confidence[removed] <= middle + 1e-6).all())


def test_an_unknown_backbone_names_the_known_ones():
    with pytest.raises(ValueError, match="hsmnet, psmnet, stereodepth"):
        backbone("resnet")
