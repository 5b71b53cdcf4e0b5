"""Augmentation keeps the truth true."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from stereopsis import geometry, imaging
from stereopsis.data.augment import Augmentation, augment, mirror, turn_over, zoom
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
    cropped = augment(_plane(), Augmentation(), crop=(30, 80), rng=rng)
    assert cropped.pair.size == (30, 80)
    assert _photometric_error(cropped) < 1e-3


@pytest.mark.parametrize("seed", range(6))
def test_vertical_jitter_moves_the_right_image_alone(seed: int) -> None:
    sample, settings = _plane(), Augmentation(vertical_jitter=2)
    jittered = augment(sample, settings, crop=(40, 120), rng=np.random.default_rng(seed))
    tops = [
        _first_row(jittered.pair.left, sample.pair.left),
        _first_row(jittered.pair.right, sample.pair.right),
    ]
    assert abs(tops[1] - tops[0]) <= 2
    assert torch.equal(jittered.pair.left, sample.pair.left[:, tops[0] : tops[0] + 40])
    assert torch.equal(jittered.pair.right, sample.pair.right[:, tops[1] : tops[1] + 40])


def test_vertical_jitter_goes_both_ways_where_there_is_room() -> None:
    found = set()
    for seed in range(40):
        jittered = augment(
            _plane(), Augmentation(vertical_jitter=2), crop=(40, 120), rng=np.random.default_rng(seed)
        )
        rows = [_first_row(getattr(jittered.pair, n), getattr(_plane().pair, n)) for n in ("left", "right")]
        found.add(rows[1] - rows[0])
    assert found == {-2, -1, 0, 1, 2}


def _first_row(crop: torch.Tensor, image: torch.Tensor) -> int:
    """The row of the image with which the crop begins."""
    return int((image[0] == crop[0, 0]).all(-1).nonzero()[0])


def test_zoomed_crops_stay_stereo_pairs_with_true_disparity() -> None:
    settings = Augmentation(scale=[-0.3, 0.5], stretch=0.2)
    for seed in range(8):
        seen = augment(_plane(), settings, crop=(48, 96), rng=np.random.default_rng(seed))
        assert seen.pair.size == (48, 96)
        assert _photometric_error(seen) < 6e-3
        before, after = _plane().info[0].calibration, seen.info[0].calibration
        assert before is not None
        assert after is not None
        depth = float(before.depth(torch.tensor(6.0)))
        assert float(after.depth(seen.disparity).mean()) == pytest.approx(depth, rel=1e-5)


def test_some_pairs_keep_their_scale() -> None:
    sample, settings = _plane(), Augmentation(scale=[1.0, 1.0], scale_probability=0.8)

    def zoomed(settings: Augmentation, crop: tuple[int, int] | None = None) -> list[float]:
        """The zooms of 60 draws, as the disparity tells them."""
        drawn = (augment(sample, settings, crop=crop, rng=np.random.default_rng(seed)) for seed in range(60))
        return [float(one.disparity.max()) / 6 for one in drawn]

    zooms = zoomed(settings)
    assert set(zooms) == {1.0, 2.0}
    assert 40 <= zooms.count(2.0) <= 56
    never = Augmentation(scale=[1.0, 1.0], scale_probability=0.0)
    assert zoomed(never, crop=(60, 180)) == pytest.approx([1.5] * 60)  # what the crop needs


def test_crops_larger_than_the_image_are_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        augment(_plane(), Augmentation(), crop=(61, 120), rng=np.random.default_rng(0))


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
        sharpen=2.0,
        noise=0.03,
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


def test_pairs_smaller_than_the_crop_are_filled_up_above_and_on_the_right() -> None:
    settings = Augmentation(scale=[-1.0, -1.0], pad=True)
    seen = augment(_plane(), settings, crop=(40, 80), rng=np.random.default_rng(0))
    assert seen.pair.size == (40, 80)
    inside = torch.zeros(40, 80, dtype=torch.bool)
    inside[10:, :60] = True
    assert torch.equal(seen.valid, inside)
    assert float(seen.pair.left[:, ~inside].abs().max()) == 0
    assert seen.disparity[inside].unique().tolist() == [3.0]
    assert seen.disparity_right is not None
    assert bool(seen.disparity_right[~inside].isinf().all())
    calibration = seen.info[0].calibration
    assert calibration is not None
    assert (calibration.cx, calibration.cy) == pytest.approx((29.75, 24.75))
    whole = augment(_plane(), settings, crop=(20, 40), rng=np.random.default_rng(0))
    assert bool(whole.valid.all())


def test_sharpening_comes_after_the_zoom_and_adds_gradients_to_both_images() -> None:
    settings = Augmentation(scale=[1.0, 1.0])
    images = torch.rand(2, 3, 60, 120, generator=torch.Generator().manual_seed(0))
    grainy = dataclasses.replace(_plane(), pair=StereoPair(images[0], images[1]))
    plain, sharp = (
        augment(grainy, s, crop=(48, 96), rng=np.random.default_rng(1))
        for s in (settings, dataclasses.replace(settings, sharpen=4.0))
    )
    for side in ("left", "right"):
        before, after = (getattr(sample.pair, side).diff(dim=-1).abs().mean() for sample in (plain, sharp))
        assert after > 1.2 * before
    assert torch.equal(plain.disparity, sharp.disparity)


def test_noise_comes_after_the_zoom_is_drawn_anew_for_each_image_and_keeps_to_its_strength() -> None:
    settings = Augmentation(scale=[1.0, 1.0])
    gray = dataclasses.replace(
        _plane(), pair=StereoPair(torch.full((3, 60, 120), 0.5), torch.full((3, 60, 120), 0.5))
    )
    deviations = []
    for seed in range(30):
        plain, noisy = (
            augment(gray, s, crop=(48, 96), rng=np.random.default_rng(seed))
            for s in (settings, dataclasses.replace(settings, noise=0.05))
        )
        left, right = (getattr(noisy.pair, side) - getattr(plain.pair, side) for side in ("left", "right"))
        assert abs(float(torch.corrcoef(torch.stack([left.flatten(), right.flatten()]))[0, 1])) < 0.05
        neighbours = torch.stack([left[..., 1:].flatten(), left[..., :-1].flatten()])
        assert abs(float(torch.corrcoef(neighbours)[0, 1])) < 0.05  # as fine as a pixel
        assert float(right.std()) == pytest.approx(float(left.std()), rel=0.1)
        deviations.append(float(left.std()))
        assert torch.equal(plain.disparity, noisy.disparity)
    assert max(deviations) < 0.051
    assert max(deviations) > 0.03
    assert min(deviations) < 0.005


def test_exposure_multiplies_both_images_by_a_factor_of_its_range() -> None:
    sample = _plane()
    factors = []
    for seed in range(20):
        seen = augment(
            sample,
            Augmentation(exposure=[0.5, 0.9], asymmetric=1.0),
            crop=None,
            rng=np.random.default_rng(seed),
        )
        ratio = seen.pair.right / sample.pair.right
        assert float(ratio.max() - ratio.min()) < 1e-5
        factors.append(float(ratio.mean()))
    assert 0.5 <= min(factors) < 0.6
    assert 0.8 < max(factors) <= 0.9


def test_a_misaligned_right_camera_moves_its_image_by_a_few_rows() -> None:
    sample = _plane()
    settings = Augmentation(misalign=1.0, misalign_shift=2.0)
    rows = []
    for seed in range(12):
        seen = augment(sample, settings, crop=(60, 120), rng=np.random.default_rng(seed))
        assert torch.equal(seen.pair.left, sample.pair.left)
        moved = [imaging.misalign(sample.pair.right, shift=k / 10) for k in range(-20, 21)]
        rows.append(min(range(41), key=lambda k: float((moved[k] - seen.pair.right).abs().mean())) - 20)
    assert min(rows) < -10
    assert max(rows) > 10
    turned = Augmentation(misalign=1.0, misalign_turn=5.0)
    seen = augment(sample, turned, crop=(60, 120), rng=np.random.default_rng(0))
    assert not torch.allclose(seen.pair.right, sample.pair.right, atol=1e-3)


def test_patches_that_are_erased_last_have_their_size_in_the_crop() -> None:
    settings = Augmentation(
        scale=[1.0, 1.0], erase=1.0, erase_count=[1, 1], erase_size=[8, 9], erase_last=True
    )
    plain = Augmentation(scale=[1.0, 1.0])
    areas = []
    for seed in range(12):
        pairs = [
            augment(_plane(), s, crop=(60, 120), rng=np.random.default_rng(seed)).pair
            for s in (settings, plain)
        ]
        assert torch.equal(pairs[0].left, pairs[1].left)
        areas.append(int((pairs[0].right != pairs[1].right).any(0).sum()))
    assert max(areas) == 64
    assert min(areas) >= 16


def test_the_clean_pair_has_the_window_of_the_augmented_one_without_its_colours_patches_and_rows() -> None:
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((1, 3, 15, 40)).astype(np.float32))
    noise = torch.nn.functional.interpolate(coarse, (60, 160), mode="bilinear")[0]
    sample = dataclasses.replace(_plane(), pair=StereoPair(noise[..., :120], noise[..., 6:126]))
    geometry_only = {"scale": [0.0, 0.5], "stretch": 0.2, "flip": 0.5, "vertical_flip": 0.5}
    disturbed = {
        "vertical_jitter": 2, "brightness": 0.4, "gamma": [0.5, 1.5], "asymmetric": 0.5, "erase": 1.0,
        "erase_last": True, "sharpen": 1.0, "noise": 0.05, "misalign": 1.0, "misalign_turn": 3.0,
    }  # fmt: skip
    settings = Augmentation(**geometry_only, **disturbed)
    for seed in range(8):
        draws = {"crop": (40, 80), "rng": np.random.default_rng(seed)}
        seen = augment(sample, settings, **draws, clean=True)
        assert seen.clean is not None
        assert not torch.allclose(seen.pair.right, seen.clean.right, atol=0.02)
        error = _photometric_error(dataclasses.replace(seen, pair=seen.clean))
        assert error < 0.02
        assert error < 0.2 * _photometric_error(seen)
        again = augment(sample, settings, crop=(40, 80), rng=np.random.default_rng(seed))
        assert again.clean is None
        assert torch.equal(again.pair.left, seen.pair.left)


def test_the_clean_pair_is_that_of_the_sample_where_nothing_but_colours_changes() -> None:
    sample = _plane()
    settings = Augmentation(brightness=0.5, erase=1.0, erase_size=[5, 20])
    seen = augment(sample, settings, crop=None, rng=np.random.default_rng(1), clean=True)
    assert seen.clean is not None
    assert torch.equal(seen.clean.left, sample.pair.left)
    assert torch.equal(seen.clean.right, sample.pair.right)
