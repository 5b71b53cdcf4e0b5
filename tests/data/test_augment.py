"""Augmentation keeps the truth true."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stereopsis import geometry
from stereopsis.data.augment import Augmentation, augment, mirror, random_crop, turn_over, zoom
from stereopsis.structures import Calibration, SceneInfo, StereoPair, StereoSample


def _plane(height: int = 60, width: int = 120, disparity: float = 6.0) -> StereoSample:
    """A smooth texture on a plane that faces the cameras: the right image is the left one moved."""
    column = torch.arange(width + 40).float()
    row = torch.arange(height).float()[:, None]
    texture = 0.5 + 0.2 * torch.sin(column / 5) + 0.2 * torch.cos(row / 7 + column / 11)
    shift = int(disparity)
    left, right = texture[:, :width], texture[:, shift : width + shift]
    truth = torch.full((height, width), disparity)
    valid = torch.ones(height, width, dtype=torch.bool)
    info = (SceneInfo("plane", "test", Calibration(focal=100.0, baseline=0.1, cx=60.0, cy=30.0)),)
    pair = StereoPair(left.expand(3, -1, -1).contiguous(), right.expand(3, -1, -1).contiguous())
    return StereoSample(pair, truth, valid, disparity_right=truth.clone(), info=info)


def _photometric_error(sample: StereoSample) -> float:
    """Of the right image seen through the truth, against the left one, away from the borders."""
    seen, inside = geometry.warp(sample.pair.right, sample.disparity)
    inside[:, :4] = inside[:, -4:] = False
    inside[:4] = inside[-4:] = False
    return float((seen - sample.pair.left).abs().mean(0)[inside & sample.valid].mean())


def test_zoom_scales_disparity_with_the_width_and_depth_stays() -> None:
    sample = _plane()
    grown = zoom(sample, 1.5, 1.25)
    assert grown.pair.size == (75, 180)
    assert torch.allclose(grown.disparity, torch.full((75, 180), 9.0))
    assert _photometric_error(grown) < 4e-3
    before, after = sample.info[0].calibration, grown.info[0].calibration
    assert before is not None
    assert after is not None
    assert after.depth(torch.tensor(9.0)) == pytest.approx(before.depth(torch.tensor(6.0)))


def test_zoom_makes_no_disparity_that_no_surface_has() -> None:
    sample = _plane()
    stepped = sample.disparity.clone()
    stepped[:, 60:] = 20.0
    grown = zoom(StereoSample(sample.pair, stepped, sample.valid), 1.37, 1.37)
    ratio = grown.pair.size[1] / 120
    assert grown.disparity.unique().tolist() == pytest.approx([6 * ratio, 20 * ratio])


def test_a_mirrored_pair_is_a_stereo_pair_again() -> None:
    mirrored = mirror(_plane())
    assert _photometric_error(mirrored) < 1e-3
    assert torch.equal(mirror(mirrored).pair.left, _plane().pair.left)


def test_mirroring_without_the_right_truth_is_refused() -> None:
    sample = _plane()
    with pytest.raises(ValueError, match="right view's truth"):
        mirror(StereoSample(sample.pair, sample.disparity, sample.valid))


def test_turned_over_pairs_and_crops_keep_their_truth() -> None:
    rng = np.random.default_rng(0)
    assert _photometric_error(turn_over(_plane())) < 1e-3
    cropped = random_crop(_plane(), (30, 80), rng=rng)
    assert cropped.pair.size == (30, 80)
    assert _photometric_error(cropped) < 1e-3


def test_vertical_jitter_moves_the_right_image_alone() -> None:
    sample = _plane()
    jittered = random_crop(sample, (40, 120), vertical_jitter=2, rng=np.random.default_rng(5))
    top = int((sample.pair.left[0, :, 0][None] == jittered.pair.left[0, 0, 0]).nonzero()[0, 1])
    assert torch.equal(jittered.pair.left, sample.pair.left[:, top : top + 40])
    assert torch.equal(jittered.pair.right, sample.pair.right[:, top + 2 : top + 42])


def test_crops_larger_than_the_image_are_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        random_crop(_plane(), (61, 120), rng=np.random.default_rng(0))


def test_settings_that_are_off_change_nothing() -> None:
    sample = _plane()
    same = augment(sample, Augmentation(), crop=None, rng=np.random.default_rng(0))
    assert torch.equal(same.pair.left, sample.pair.left)
    assert torch.equal(same.pair.right, sample.pair.right)
    assert torch.equal(same.disparity, sample.disparity)


def test_a_full_augmentation_is_reproducible_and_keeps_sizes_and_ranges() -> None:
    settings = Augmentation(
        scale=[-0.2, 0.4],
        stretch=0.2,
        flip=0.5,
        vertical_flip=0.5,
        vertical_jitter=2,
        brightness=0.4,
        contrast=0.4,
        saturation=[0.0, 1.4],
        hue=0.1,
        gamma=[0.8, 1.2],
        asymmetric=0.5,
        erase=1.0,
        erase_size=[5, 10],
        gray=0.3,
        camera=0.5,
    )
    for seed in range(8):
        one, two = (
            augment(_plane(), settings, crop=(48, 96), rng=np.random.default_rng(seed)) for _ in range(2)
        )
        assert torch.equal(one.pair.left, two.pair.left)
        assert torch.equal(one.pair.right, two.pair.right)
        assert one.pair.size == (48, 96)
        assert float(one.pair.left.min()) >= 0
        assert float(one.pair.right.max()) <= 1
        assert bool((one.disparity[one.valid] > 0).all())
