"""CREStereo, GMStereo and STTR: they learn, as a whole, and their options and quirks are as declared."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from stereopsis.losses import SequenceLoss
from stereopsis.models.base import StereoModel, count_parameters
from stereopsis.models.crestereo import CREStereo, _resized_8bit
from stereopsis.models.gmstereo import GMStereo, WindowLookup, match_rows
from stereopsis.models.registry import create
from stereopsis.models.sttr import STTR, Transformer
from stereopsis.structures import IterativeOutput, MatchingOutput, StereoOutput, StereoPair, StereoSample

SIZES = {
    "crestereo": (64, 96),
    "gmstereo-scale1": (64, 96),
    "gmstereo-scale2": (64, 96),
    "gmstereo": (64, 96),
    "sttr": (121, 128),
}
OPTIONS: dict[str, dict[str, object]] = {
    "crestereo": {"iterations": 4},
    "sttr": {"layers": 2, "adjustment_blocks": 2, "downsample": 6},
}
UNREACHED = {
    "crestereo": set(),
    "gmstereo-scale1": set(),
    "gmstereo-scale2": set(),
    "gmstereo": set(),
    "sttr": {"transformer.norm.weight", "transformer.norm.bias"},  # published files hold it, nothing reads it
}
CANCELLED = {
    "crestereo": ("features.trunk.",),
    "gmstereo-scale1": ("features.trunk.", "propagation.key."),
    "gmstereo-scale2": ("features.trunk.",),
    "gmstereo": ("features.trunk.",),
    "sttr": ("tokenizer.upsamplings.0.bias", "tokenizer.upsamplings.1.bias"),
}
"""Biases before a norm that subtracts the mean, or in all scores of a softmax: gradients are rounding."""


def _model(name: str, **options: object) -> StereoModel:
    torch.manual_seed(0)
    model = create(name, **{**OPTIONS.get(name, {}), **options})
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


def _loss(output: StereoOutput, sample: StereoSample) -> Tensor:
    if isinstance(output, IterativeOutput):
        return SequenceLoss()(output, sample)
    assert isinstance(output, MatchingOutput)
    assert output.matched is not None
    assert output.occlusion is not None
    first, step = output.grid
    truth, valid = (x[:, first::step, first::step] for x in (sample.disparity, sample.valid))
    raw = (output.matched - truth).abs()[valid].mean()
    occlusion = torch.nn.functional.binary_cross_entropy(output.occlusion, (~sample.valid).float())
    return raw + (output.disparity - sample.disparity).abs()[sample.valid].mean() + occlusion


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_twenty_steps_on_two_pairs_reduce_the_loss(name: str) -> None:
    model, sample = _model(name).train(), _sample(SIZES[name])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = _loss(model(sample.pair.left, sample.pair.right), sample)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert min(losses[-3:]) < 0.8 * losses[0]


@pytest.mark.parametrize("name", SIZES)
def test_gradients_reach_every_parameter_but_the_declared(name: str) -> None:
    model, sample = _model(name).train(), _sample(SIZES[name])
    _loss(model(sample.pair.left, sample.pair.right), sample).backward()
    untouched = {
        key
        for key, value in model.named_parameters()
        if not (key.endswith("bias") and key.startswith(CANCELLED[name]))
        and (value.grad is None or not value.grad.abs().sum() > 1e-9)
    }
    assert untouched == UNREACHED[name]


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("crestereo", 5_432_948),
        ("gmstereo-scale1", 4_680_288),
        ("gmstereo-scale2", 4_716_720),
        ("gmstereo", 7_354_416),
        ("sttr", 2_513_811),
    ],
)
def test_parameters_are_as_many_as_published(name: str, published: int) -> None:
    assert count_parameters(create(name)) == published


def test_crestereo_needs_an_iteration_for_each_stage() -> None:
    with pytest.raises(ValueError, match="at least 2 iterations"):
        create("crestereo", iterations=1)


def test_crestereo_gives_vertical_displacements_to_its_loss_only() -> None:
    sample = _sample((64, 96))
    with torch.no_grad():
        trained = _model("crestereo").train()(sample.pair.left, sample.pair.right)
        evaluated = _model("crestereo").eval()(sample.pair.left, sample.pair.right)
    assert len(trained.vertical) == len(trained.iterates) == 8
    assert evaluated.vertical == ()


@pytest.mark.parametrize("detach", [True, False])
def test_crestereos_finest_stage_sends_gradients_right_only_if_asked(detach: bool) -> None:
    model = _model("crestereo", detach_right=detach)
    assert isinstance(model, CREStereo)
    left, right = _sample((64, 96)).pair.left, _sample((64, 96)).pair.right
    quarter = model.encode(left, right.requires_grad_(True))[2]
    quarter.correlate(torch.zeros(2, 2, 16, 24), (1, 9)).sum().backward()
    assert right.grad is not None  # instance norm takes its statistics image by image
    assert bool(right.grad.abs().sum() > 0) != detach


def test_crestereo_resizes_to_the_size_that_it_is_told() -> None:
    seen: list[tuple[int, ...]] = []
    model = _model("crestereo", passes=1, evaluation_size=(64, 128)).eval()
    model.get_submodule("features").register_forward_hook(
        lambda _module, inputs, _output: seen.append(tuple(inputs[0].shape))
    )
    sample = _sample((70, 93))
    with torch.no_grad():
        output = model(sample.pair.left, sample.pair.right)
    assert seen == [(4, 3, 64, 128)]
    assert output.disparity.shape == (2, 70, 93)


@pytest.mark.parametrize("size", [(118, 250), (64, 96), (200, 61), (256, 384)])
@pytest.mark.parametrize("target", [(128, 192), (96, 256)])
def test_crestereo_resizes_as_opencv_does_8_bit_images(
    size: tuple[int, int], target: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = cv2.resize(pixels, target[::-1], interpolation=cv2.INTER_LINEAR)
    image = torch.from_numpy(pixels).movedim(-1, 0)[None].float() / 255
    resized = (_resized_8bit(image, target) * 255).round()[0].movedim(0, -1)
    assert np.array_equal(resized.numpy().astype(np.uint8), expected)


def test_window_lookup_is_the_correlation_around_the_match() -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(1, 4, 5, 7, generator=generator) for _ in range(2))
    lookup = WindowLookup(left, right, radius=1, storage="recomputed")
    values = lookup(torch.full((1, 1, 5, 7), 2.0))[0].unflatten(0, (3, 3))
    for y in range(5):
        for x in range(7):
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    row, column = y + dy, x - 2 + dx
                    inside = 0 <= row < 5 and 0 <= column < 7
                    expected = (
                        (left[0, :, y, x] @ right[0, :, row, column] / 2) if inside else torch.zeros(())
                    )
                    assert torch.allclose(values[dy + 1, dx + 1, y, x], expected, atol=1e-5)


def test_gmstereos_matching_never_looks_beyond_its_own_column() -> None:
    model = _model("gmstereo-scale1").eval()
    assert isinstance(model, GMStereo)
    sample = _sample((64, 96))
    with torch.no_grad():
        disparity = model(sample.pair.left, sample.pair.right).disparity
    assert bool((disparity >= 0).all())
    assert float(disparity[..., :8].max()) <= 16


def test_sttr_of_a_pair_does_not_depend_on_its_neighbours_in_the_batch() -> None:
    model, sample = _model("sttr").eval(), _sample(SIZES["sttr"])
    with torch.no_grad():
        features = model.get_submodule("backbone")
        together = features(torch.cat([sample.pair.left, sample.pair.right]))[0]
        alone = features(torch.stack([sample.pair.left[1], sample.pair.right[1]]))[0]
    assert torch.allclose(together[1::2], alone, atol=1e-4)


def test_sttrs_running_statistics_are_an_option() -> None:
    model = _model("sttr", norm_statistics="running").eval()
    sample = _sample(SIZES["sttr"])
    with torch.no_grad():
        backbone = model.get_submodule("backbone")
        both = backbone(torch.cat([sample.pair.left, sample.pair.right]))[0]
        assert torch.allclose(both[:1], backbone(sample.pair.left[:1])[0], atol=1e-5)


def test_sttr_says_what_it_needs_of_small_images() -> None:
    model = _model("sttr")
    assert isinstance(model, STTR)
    small = torch.zeros(1, 3, 100, 200)
    with pytest.raises(ValueError, match="at least 121 pixels a side, not 200x100"):
        model(small, small)
    assert model.padding.amounts(100, 200) == (10, 11, 0, 0)


def test_gmstereo_matches_far_columns_exactly_under_autocast() -> None:
    right = torch.randn(1, 64, 2, 400, generator=torch.Generator().manual_seed(0)) * 3
    left = right.roll(37, -1)
    with torch.autocast("cpu", torch.bfloat16):
        found = match_rows(left.bfloat16(), right.bfloat16())
    assert torch.allclose(found[..., 37:], torch.tensor(37.0), atol=1e-3)


def test_sttr_transports_in_float32_under_autocast() -> None:
    sample = _sample(SIZES["sttr"])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = _model("sttr").train()(sample.pair.left, sample.pair.right)
    assert isinstance(output, MatchingOutput)
    assert output.transport is not None
    assert output.matched is not None
    assert output.transport.dtype == output.matched.dtype == output.disparity.dtype == torch.float32


def test_exported_matching_does_not_grow_with_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU rows are matched in blocks; each of them in the graph would make export take very long."""
    monkeypatch.setattr("stereopsis.models.sttr._SCORES_AT_ONCE", 1)
    transformer = Transformer(channels=16, layers=2, heads=2).eval()
    counts = []
    for rows in (1, 5):
        views = torch.rand(2, 1, 16, rows, 8).unbind()
        exported = torch.export.export(transformer, views, {"scale": 1.0}, strict=False)
        counts.append(len(exported.graph.nodes))
        torch.testing.assert_close(exported.module()(*views, scale=1.0), transformer(*views, scale=1.0))
    assert counts[0] == counts[1]
