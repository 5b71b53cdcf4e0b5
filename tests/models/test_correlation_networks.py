"""CoEx, BGNet and AANet: they learn, all of them learns, and their options and quirks are as declared."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from stereopsis.losses import SmoothL1Loss
from stereopsis.models.aanet import AANetConfig
from stereopsis.models.base import StereoModel, count_parameters
from stereopsis.models.bgnet import BGNet, _between, warp_by_whole_pixels
from stereopsis.models.coex import CoExConfig
from stereopsis.models.registry import create
from stereopsis.structures import StereoPair, StereoSample, VolumeOutput

SIZES = {
    "coex": (64, 128),
    "bgnet": (64, 128),
    "bgnet-plus": (64, 128),
    "aanet": (60, 120),
    "aanet-plus": (96, 96),
}
LOSSES = {
    "coex": SmoothL1Loss(weights=(0.3, 1.0), normalised=True),
    "bgnet": SmoothL1Loss(),
    "bgnet-plus": SmoothL1Loss(weights=(1.0, 1.0)),
    "aanet": SmoothL1Loss(weights=(1 / 3, 2 / 3, 1.0, 1.0, 1.0)),
    "aanet-plus": SmoothL1Loss(weights=(1 / 3, 2 / 3, 1.0, 1.0, 1.0)),
}
OPTIONS = {"coex": {"max_disparity": 64}, "aanet": {"max_disparity": 48}, "aanet-plus": {"max_disparity": 48}}


def _model(name: str) -> StereoModel:
    torch.manual_seed(0)
    model = create(name, **OPTIONS.get(name, {}))
    assert isinstance(model, StereoModel)
    return model


def _sample(size: tuple[int, int]) -> StereoSample:
    """Two pairs of smooth texture, shifted by 6 and by 15 pixels."""
    generator = torch.Generator().manual_seed(0)
    height, width = size
    texture = torch.rand(2, 3, height // 3, (width + 15) // 3, generator=generator)
    wide = torch.nn.functional.interpolate(texture, (height, width + 15), mode="bicubic").clamp(0, 1)
    shifts = (6, 15)
    left = torch.stack([image[..., :width] for image in wide])
    right = torch.stack([image[..., s : s + width] for image, s in zip(wide, shifts, strict=True)])
    disparity = torch.stack([torch.full(size, float(s)) for s in shifts])
    columns = torch.arange(width).expand(2, height, width)
    return StereoSample(StereoPair(left, right), disparity, columns >= disparity)


@pytest.mark.parametrize(
    "name", [name if name == "bgnet" else pytest.param(name, marks=pytest.mark.slow) for name in SIZES]
)
def test_twenty_steps_on_two_pairs_reduce_the_loss(name: str) -> None:
    model, sample = _model(name).train(), _sample(SIZES[name])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = LOSSES[name](model(sample.pair.left, sample.pair.right), sample)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert min(losses[-3:]) < 0.8 * losses[0]


@pytest.mark.parametrize("name", SIZES)
def test_gradients_reach_every_parameter(name: str) -> None:
    model, sample = _model(name).train(), _sample(SIZES[name])
    if name.startswith(
        "aanet"
    ):  # offsets of zero make the gradients of masks and offsets symmetric, not zero
        model.load_state_dict({key: _nudged(key, value) for key, value in model.state_dict().items()})
    LOSSES[name](model(sample.pair.left, sample.pair.right), sample).backward()
    untouched = {
        key for key, value in model.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0
    }
    assert untouched == set()


def _nudged(key: str, value: Tensor) -> Tensor:
    return value + 0.01 if "offset_conv" in key else value


@pytest.mark.parametrize(
    ("name", "options", "published"),
    [
        # The published 2,727,027 hold 5,034 that nothing uses.
        ("coex", {}, 2_727_027 - 5_034),
        ("aanet", {}, 3_931_676),
        ("aanet-plus", {}, 8_442_850),
    ],
)
def test_parameters_are_as_many_as_published(name: str, options: dict[str, object], published: int) -> None:
    model = create(name, **options)
    only_training = 0
    if name.startswith("aanet"):
        last = model.get_submodule("aggregation.steps.5.exchanges")
        only_training = sum(count_parameters(last.get_submodule(str(scale))) for scale in (1, 2))
        project = model.get_submodule("aggregation.project")
        only_training += sum(count_parameters(project.get_submodule(str(scale))) for scale in (1, 2))
    assert count_parameters(model) - only_training == published


@pytest.mark.parametrize("name", ["aanet", "aanet-plus"])
def test_aanet_gives_its_coarse_scales_in_training_only(name: str) -> None:
    model, sample = _model(name), _sample(SIZES[name])
    height = SIZES[name][0]
    for training, scales in ((True, (12, 6, 3, 2)), (False, (3, 2))):
        with torch.no_grad():
            output = model.train(training)(sample.pair.left, sample.pair.right)
        assert [stage.shape[-2] for stage in output.stages] == [height // scale for scale in scales]


def test_aanets_range_is_found_from_its_tensors() -> None:
    for config in (AANetConfig(max_disparity=96), AANetConfig(plus=True)):
        model = create("aanet", **dataclasses.asdict(config))
        width = model.state_dict()["aggregation.project.0.weight"].shape[0]
        published = {
            "aggregation.final_conv.0.weight": torch.zeros(width, width, 1, 1),
            "aggregation.fusions.0.branches.0.0.conv1.weight": torch.zeros(1),
        }
        if config.plus:
            published["feature_extractor.conv1a.conv.weight"] = torch.zeros(1)
        assert type(model).recognise(published) == config


def test_options_out_of_range_are_refused() -> None:
    for options in ({"max_disparity": 100}, {"max_disparity": 0}, {"top_k": 1}, {"top_k": 99}):
        with pytest.raises(ValueError, match="CoEx"):
            CoExConfig(**options)
    for maximum in (-12, 0, 100):
        with pytest.raises(ValueError, match="AANet"):
            AANetConfig(max_disparity=maximum)


def test_coex_regresses_from_its_best_planes_alone() -> None:
    sample = _sample(SIZES["coex"])
    for top_k in (2, 16):
        model = create("coex", max_disparity=64, top_k=top_k).eval()
        scores: list[Tensor] = []
        model.get_submodule("aggregate").register_forward_hook(
            lambda _module, _inputs, output, scores=scores: scores.append(output[:, 0])
        )
        with torch.no_grad():
            output = model(sample.pair.left, sample.pair.right)
        assert isinstance(output, VolumeOutput)
        best, index = scores[0].sort(1, descending=True)
        expected = (best[:, :top_k].softmax(1) * 4 * index[:, :top_k]).sum(1)
        agrees = (output.stages[0] - expected).abs() < 1e-3
        tied = (best[:, :top_k, None] == best[:, None, top_k:]).any(2).any(1)
        assert bool((agrees | tied).all())


def test_bgnets_candidates_are_linear_between_levels_and_the_last_scores_zero() -> None:
    levels = torch.randn(1, 25, 1, 1, generator=torch.Generator().manual_seed(0))
    candidates = _between(levels)[0, :, 0, 0]
    for k in range(96):
        below, rest = divmod(k, 4)
        expected = levels[0, below] * (1 - rest / 4) + levels[0, min(below + 1, 24)] * rest / 4
        assert abs(float(candidates[k] - expected)) < 1e-6
    assert float(candidates[96]) == 0


def test_bgnet_warps_by_whole_pixels_and_is_black_outside() -> None:
    image = torch.arange(1.0, 6.0).expand(1, 1, 1, 5)
    disparity = torch.tensor([[[0.0, 0.4, 1.6, -2.5, 7.0]]])
    warped = warp_by_whole_pixels(image, disparity)[0, 0, 0]
    assert warped.tolist() == [1.0, 1.0, 1.0, 0.0, 0.0]


def test_bgnet_sees_luma_in_steps_of_one_255th() -> None:
    torch.manual_seed(0)
    model = create("bgnet").eval()
    assert isinstance(model, BGNet)
    sample = _sample((64, 64))
    gray = sample.pair.left.new_tensor([0.299, 0.587, 0.114])[:, None, None]
    as_gray = [
        ((image * gray).sum(1, keepdim=True) * 255).round().div(255).expand(-1, 3, -1, -1)
        for image in (sample.pair.left, sample.pair.right)
    ]
    with torch.no_grad():
        colour = model(sample.pair.left, sample.pair.right).disparity
        assert torch.equal(colour, model(*as_gray).disparity)


def test_bgnets_candidates_are_as_exact_under_autocast() -> None:
    levels = torch.randn(1, 25, 1, 3, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        found = _between(levels)
    assert torch.equal(found, _between(levels))
