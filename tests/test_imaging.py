"""Camera effects do what their formulas say, and draws are reproducible."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from stereopsis.imaging import (
    CameraEffects,
    EffectRanges,
    add_noise,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    apply_effects,
    apply_gamma,
    balance_white,
    blur,
    defocus,
    draw_effects,
    expose,
    jpeg,
    misalign,
    motion_blur,
    quantise,
    sharpen,
    to_gray,
    vignette,
)
from stereopsis.structures import luma


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(0))


def test_exposure_gamma_and_gains_are_pointwise_formulas(image):
    assert torch.equal(expose(image, 1.0), (2 * image).clamp(max=1))
    assert torch.allclose(apply_gamma(image, 2.0), image * image)
    assert torch.allclose(balance_white(image, (1.0, 0.5, 0.0))[1], image[1] / 2)
    assert balance_white(image, (1.0, 0.5, 0.0))[2].max() == 0
    assert torch.allclose(adjust_contrast(image, 0.5), image / 2 + 0.25)


def test_saturation_zero_is_gray_and_one_is_the_image(image):
    assert torch.allclose(adjust_saturation(image, 0.0), to_gray(image), atol=1e-6)
    assert torch.allclose(adjust_saturation(image, 1.0), image, atol=1e-6)


def test_hue_turns_by_a_third_permute_the_channels(image):
    assert torch.allclose(adjust_hue(image, 1 / 3), image[[2, 0, 1]], atol=1e-5)
    assert torch.allclose(adjust_hue(image, 0.0), image, atol=1e-6)


def test_luma_of_white_is_one():
    assert torch.allclose(luma(torch.ones(2, 3, 4, 5)), torch.ones(2, 1, 4, 5))


def test_vignetting_keeps_the_centre_and_darkens_corners_by_its_strength():
    dark = vignette(torch.ones(3, 5, 7), 0.4)
    assert dark[0, 2, 3] == 1
    assert torch.allclose(dark[:, 0, 0], torch.tensor(0.6))


@pytest.mark.parametrize(
    "effect",
    [lambda i: blur(i, 1.2), lambda i: defocus(i, 1.7), lambda i: motion_blur(i, 4.0, 0.7)],
    ids=["gaussian", "defocus", "motion"],
)
def test_blurs_spread_a_point_without_losing_light(effect):
    point = torch.zeros(3, 21, 21)
    point[:, 10, 10] = 1
    spread = effect(point)
    assert torch.allclose(spread.sum((-1, -2)), torch.ones(3), atol=1e-5)
    assert spread[0, 10, 10] < 0.5
    assert torch.allclose(spread, spread.flip(-1, -2), atol=1e-6)


def test_gaussian_blur_has_the_variance_asked_for():
    point = torch.zeros(1, 41, 41)
    point[0, 20, 20] = 1
    offsets = torch.arange(41.0) - 20
    variance = (blur(point, 2.0)[0].sum(0) * offsets**2).sum()
    assert variance == pytest.approx(4.0, rel=0.03)


def test_sharpening_steepens_edges_and_leaves_flat_parts(image):
    step = torch.full((3, 9, 20), 0.4)
    step[..., 10:] = 0.6
    sharp = sharpen(step, 1.0, 1.5)
    assert torch.allclose(sharp[..., :5], step[..., :5], atol=1e-6)
    assert float(sharp[0, 4, 10] - sharp[0, 4, 9]) > 0.3
    assert torch.equal(sharpen(image, 1.0, 0.0), image)
    assert 0 <= float(sharpen(image, 1.0, 3.0).min()) <= float(sharpen(image, 1.0, 3.0).max()) <= 1


def test_noise_has_shot_and_read_variance_and_repeats_with_its_seed():
    gray = torch.full((3, 200, 200), 0.5)
    noisy = add_noise(gray, shot=4e-4, read=0.01, generator=torch.Generator().manual_seed(1))
    again = add_noise(gray, shot=4e-4, read=0.01, generator=torch.Generator().manual_seed(1))
    assert torch.equal(noisy, again)
    assert noisy.std().item() == pytest.approx(math.sqrt(4e-4 * 0.5 + 1e-4), rel=0.02)


def test_a_vertical_shift_moves_rows_down(image):
    assert torch.allclose(misalign(image, shift=2.0)[:, 2:], image[:, :-2], atol=1e-5)


def test_a_quarter_roll_is_a_rotation():
    square = torch.rand(3, 9, 9, generator=torch.Generator().manual_seed(0))
    rolled = misalign(square, rotation=math.pi / 2)
    assert torch.allclose(rolled, torch.rot90(square, -1, (-2, -1)), atol=1e-4)


def test_jpeg_is_close_at_high_quality_and_takes_batches(image):
    smooth = blur(image, 3.0)
    assert (jpeg(smooth, 95) - smooth).abs().mean() < 0.01
    batch = torch.stack((smooth, image))
    assert torch.equal(jpeg(batch, 80)[0], jpeg(smooth, 80))


def test_quantised_images_hold_whole_steps(image):
    steps = quantise(image) * 255
    assert torch.allclose(steps, steps.round(), atol=1e-4)


def test_no_effects_leave_the_image_alone(image):
    assert torch.equal(apply_effects(image, CameraEffects()), image)
    assert CameraEffects().names == frozenset()


def test_every_effect_occurs_and_changes_the_image(image):
    rng = np.random.default_rng(0)
    seen: set[str] = set()
    for _ in range(60):
        left, right = draw_effects(rng, EffectRanges(), width=32)
        seen |= left.names | right.names
        for effects in (left, right):
            if effects.names:
                changed = apply_effects(image, effects)
                assert changed.shape == image.shape
                assert not torch.equal(changed, image)
    missing = set(CameraEffects.__dataclass_fields__) - seen - {"seed"}
    assert missing == {"contrast", "hue"}


def test_draws_repeat_with_the_seed_and_respect_the_ranges():
    first = draw_effects(np.random.default_rng(5), EffectRanges(), width=640)
    assert first == draw_effects(np.random.default_rng(5), EffectRanges(), width=640)
    for seed in range(200):
        _, right = draw_effects(np.random.default_rng(seed), EffectRanges(), width=640)
        assert abs(right.shift) <= 1
        assert abs(right.rotation) * 320 <= 1


def test_a_roll_about_a_point_is_the_same_seen_through_a_window():
    rows, columns = torch.meshgrid(torch.arange(60.0), torch.arange(80.0), indexing="ij")
    whole = (0.5 + 0.2 * torch.sin(rows / 5 + columns / 9)).expand(3, -1, -1)
    rolled = misalign(whole, rotation=0.05, shift=0.7, about=(10.0, 50.0))
    window = misalign(whole[:, 20:, 30:], rotation=0.05, shift=0.7, about=(-20.0, 30.0))
    assert torch.allclose(window[:, 8:-8, 8:-8], rolled[:, 28:-8, 38:-8], atol=1e-5)
    assert torch.allclose(misalign(whole, rotation=0.05, about=(39.5, 29.5)), misalign(whole, rotation=0.05))
    fixed = misalign(whole, rotation=0.05, about=(40.0, 30.0))
    assert torch.allclose(fixed[:, 30, 40], whole[:, 30, 40], atol=1e-5)
