"""SyDE-Net: alignment is defined for every input, both branches learn, options and quirks are as declared."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from stereopsis.losses import SequenceLoss
from stereopsis.models.base import MonoModel
from stereopsis.models.registry import create
from stereopsis.models.sydenet import SyDENet
from stereopsis.models.sydenet.alignment import aligned
from stereopsis.models.sydenet.attention import FrequencyChannelAttention, from_spectrum, spectrum
from stereopsis.models.sydenet.refinement import flaw
from stereopsis.structures import StereoPair, StereoSample

SIZE = (64, 96)


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def _model(**options: object) -> SyDENet:
    torch.manual_seed(0)
    small: dict[str, object] = {
        "encoder": "tiny",
        "iterations": 3,
        "mixed_iterations": 2,
        "max_disparity": 32,
    }
    model = create("sydenet", **{**small, **options})
    assert isinstance(model, SyDENet)
    return model


def _sample() -> StereoSample:
    """Two pairs of smooth texture, shifted by 4 and by 10 pixels."""
    height, width = SIZE
    texture = _random(2, 3, height // 3, (width + 10) // 3)
    wide = torch.nn.functional.interpolate(texture, (height, width + 10), mode="bicubic").clamp(0, 1)
    shifts = (4, 10)
    left = torch.stack([image[..., :width] for image in wide])
    right = torch.stack([image[..., s : s + width] for image, s in zip(wide, shifts, strict=True)])
    disparity = torch.stack([torch.full(SIZE, float(s)) for s in shifts])
    columns = torch.arange(width).expand(2, height, width)
    return StereoSample(StereoPair(left, right), disparity, columns >= disparity)


@pytest.mark.parametrize(("scale", "offset"), [(3.0, 1.0), (0.5, 20.0), (-2.0, 50.0)])
def test_alignment_finds_the_line_whatever_its_sign(scale: float, offset: float) -> None:
    relative = 1 + 9 * _random(2, 20, 30)
    disparity = scale * relative + offset
    assert torch.allclose(aligned(relative, disparity), disparity, atol=1e-3)


def test_alignment_is_image_by_image() -> None:
    relative = 1 + _random(2, 20, 30)
    disparity = torch.stack([2 * relative[0] + 1, 5 * relative[1]])
    assert torch.allclose(aligned(relative, disparity), disparity, atol=1e-3)


def test_alignment_leaves_out_small_values_and_disparities_of_zero() -> None:
    relative = torch.linspace(0, 1, 600).view(1, 20, 30)
    disparity = 10 * relative + 3
    spoilt = disparity.clone()
    spoilt[relative < 0.2] = 500.0  # the lowest fifth takes no part
    spoilt[..., ::5] = 0.0
    assert torch.allclose(aligned(relative, spoilt), disparity, atol=1e-3)


def test_alignment_of_a_constant_is_the_mean() -> None:
    relative = torch.full((1, 8, 8), 2.0)
    relative[0, :4] = 1.0  # so that the constant lies above the quantile
    relative[0, 4:] = 2.0
    disparity = 1 + _random(1, 8, 8)
    disparity[0, :4] = 0.0
    result = aligned(relative, disparity)
    assert torch.allclose(result, disparity[0, 4:].mean().expand(1, 8, 8), atol=1e-5)


def test_alignment_without_a_usable_pixel_is_zero() -> None:
    assert torch.equal(aligned(_random(1, 8, 8), torch.zeros(1, 8, 8)), torch.zeros(1, 8, 8))
    assert torch.equal(aligned(torch.zeros(1, 8, 8), torch.ones(1, 8, 8)), torch.zeros(1, 8, 8))
    equal = torch.full((1, 8, 8), 3.0)  # nothing lies above the quantile
    assert torch.equal(aligned(equal, torch.ones(1, 8, 8)), torch.zeros(1, 8, 8))


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_alignment_goes_round_what_is_not_finite(poison: float) -> None:
    relative = 1 + 9 * _random(1, 20, 30)
    disparity = 2 * relative + 1
    damaged = relative.clone()
    damaged[0, 3, 4:9] = poison
    assert torch.allclose(aligned(damaged, disparity), disparity, atol=1e-3)
    holes = disparity.clone()
    holes[0, 3, 4:9] = poison
    assert torch.allclose(aligned(relative, holes), disparity, atol=1e-3)
    assert bool(aligned(torch.full_like(relative, poison), disparity).isfinite().all())
    assert bool(aligned(torch.full_like(relative, poison), holes).isfinite().all())


@pytest.mark.parametrize("channels", [16, 64, 128, 256])
def test_channel_attention_lays_its_means_out_as_a_grid(channels: int) -> None:
    torch.manual_seed(0)
    attention = FrequencyChannelAttention(channels)
    assert attention.grid == {16: (4, 4), 64: (8, 8), 128: (11, 12), 256: (16, 16)}[channels]
    assert attention(_random(2, channels, 4, 6)).shape == (2, channels, 4, 6)


def test_an_unbent_spectrum_gives_the_means_back() -> None:
    attention = FrequencyChannelAttention(128)
    for parameter in (*attention.amplitude.parameters(), attention.phase_scale):
        torch.nn.init.zeros_(parameter)
    means = _random(2, 128) - 0.5
    assert torch.allclose(attention.bent(means), means, atol=1e-5)


@pytest.mark.parametrize("size", [(4, 4), (8, 8), (11, 12), (16, 16)])
def test_the_spectrum_is_the_fast_transforms_with_its_phases(size: tuple[int, int]) -> None:
    grid = _random(5, *size) - 0.5
    expected = torch.fft.fft2(grid)
    real, imaginary = spectrum(grid)
    assert torch.allclose(torch.complex(real, imaginary), expected, atol=2e-5)
    apart = torch.atan2(imaginary, real) - torch.angle(expected)
    assert float(apart.abs().max()) < 1e-2
    assert torch.allclose(from_spectrum(real, imaginary), grid, atol=1e-6)


def test_an_empty_spectrum_has_a_gradient() -> None:
    attention = FrequencyChannelAttention(16)
    means = torch.zeros(1, 16, requires_grad=True)
    attention.bent(means).sum().backward()
    assert means.grad is not None
    assert bool(means.grad.isfinite().all())


def test_warping_zooms_a_little_as_published() -> None:
    columns = torch.arange(8.0).expand(1, 1, 4, 8)
    seen = flaw(torch.zeros_like(columns), columns, torch.ones(1, 4, 8))
    expected = ((torch.arange(8.0) - 1) * 8 / 7 - 0.5).clamp(0, 7)
    assert torch.allclose(seen[0, 0, 2], expected, atol=1e-5)


def test_half_precision_maps_are_sampled_at_exact_positions() -> None:
    left, right = (_random(1, 3, 4, 500, seed=seed).bfloat16() for seed in (1, 2))
    disparity = 30 * _random(1, 4, 500, seed=3)
    expected = flaw(left.float(), right.float(), disparity)
    found = flaw(left, right, disparity)
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), expected, atol=1e-2)


def test_the_monocular_branch_sees_in_float32_under_autocast() -> None:
    pair, model = _sample().pair, _model().eval()
    with torch.no_grad():
        expected, pyramid = model.see_apart(pair.left, pair.right)
        with torch.autocast("cpu", torch.bfloat16):
            found, other = model.see_apart(pair.left, pair.right)
    assert torch.equal(found, expected)
    assert all(torch.equal(a, b) for a, b in zip(pyramid, other, strict=True))


@pytest.mark.slow
def test_twenty_steps_on_two_pairs_reduce_the_loss() -> None:
    model, sample = _model().train(), _sample()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-4)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = SequenceLoss(initial=1.0)(model(sample.pair.left, sample.pair.right), sample)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert min(losses[-3:]) < 0.8 * losses[0]


@pytest.mark.parametrize("frozen", [True, False])
def test_gradients_reach_all_but_the_frozen_and_the_unused(frozen: bool) -> None:
    model, sample = _model(frozen_monocular=frozen, spatial_attention=True).train(), _sample()
    torch.nn.init.constant_(model.monocular_head.conv3.bias, 5.0)  # an untrained map may be zero throughout
    SequenceLoss(initial=1.0)(model(sample.pair.left, sample.pair.right), sample).backward()
    untouched = {key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    cancelled = {key for key in untouched if key.startswith(("transfer.merge.", "transfer.coarsest."))}
    assert all(key.endswith("bias") for key in cancelled)  # instance norm subtracts them
    unused = {"neck.fusions.3.skip_unit."}
    monocular = ("monocular_encoder.", "monocular_head.")
    if frozen:
        assert not any(p.requires_grad for key, p in model.named_parameters() if key.startswith(monocular))
        unused |= set(monocular)
    else:
        # Beyond the encoder's features, the depth map enters as a constant: aligned, and without gradient.
        unused |= {"monocular_encoder.mask_token", "monocular_head."}
    left = {key for key in untouched - cancelled if not key.startswith(tuple(unused))}
    assert left == set()


def test_training_gives_both_branches_iterates_and_evaluation_their_last_fields() -> None:
    sample = _sample()
    with torch.no_grad():
        trained = _model().train()(sample.pair.left, sample.pair.right)
        evaluated = _model().eval()(sample.pair.left, sample.pair.right)
    assert (len(trained.iterates), len(trained.monocular_iterates)) == (3, 2)
    assert trained.initial is not None
    assert evaluated.initial is None
    assert evaluated.monocular is not None
    assert evaluated.monocular.shape == evaluated.disparity.shape == (2, *SIZE)


def test_without_mixing_the_monocular_map_says_nothing() -> None:
    sample = _sample()
    model = _model(mixed_iterations=0).eval()
    with torch.no_grad():
        before = model(sample.pair.left, sample.pair.right)
        model.monocular_head.conv3.bias += 10
        after = model(sample.pair.left, sample.pair.right)
    assert before.monocular is None
    assert torch.equal(before.disparity, after.disparity)


def test_the_attentions_can_be_left_out() -> None:
    published = set(_model().state_dict())
    assert {key.split(".")[0] for key in published - set(_model(channel_attention=False).state_dict())} == {
        "channel_attention"
    }
    added = set(_model(spatial_attention=True).state_dict()) - published
    assert added == {f"context.look.{scale}.conv.weight" for scale in ("4", "8", "16")}


def test_the_stereo_branch_alone_has_nothing_of_the_monocular_one_and_learns_in_all_its_parts() -> None:
    model, sample = _model(monocular=False, hidden=16).train(), _sample()
    foreign = ("monocular_", "neck.", "channel_attention.", "mix_", "refinement.")
    assert not [key for key in model.state_dict() if key.startswith(foreign)]
    output = model(sample.pair.left, sample.pair.right)
    assert output.monocular is None
    assert (len(output.iterates), output.monocular_iterates) == (3, ())
    SequenceLoss(initial=1.0)(output, sample).backward()
    untouched = {key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert all(key.startswith("transfer.") and key.endswith("bias") for key in untouched)


def test_the_stereo_branch_alone_takes_no_prior() -> None:
    prior = create("depth-anything-v2-small", encoder="tiny")
    assert isinstance(prior, MonoModel)
    with pytest.raises(ValueError, match="no monocular branch"):
        _model(monocular=False).adopt(prior)


@pytest.mark.parametrize("doubled", [True, False])
def test_the_refined_disparity_is_added_as_released_or_takes_the_stereo_ones_place(*, doubled: bool) -> None:
    sample, model = _sample(), _model(doubled=doubled).eval()
    stereo: list[torch.Tensor] = []
    model.refinement.register_forward_hook(lambda _, given, refined: stereo.extend([given[1], refined]))
    with torch.no_grad():
        output = model(sample.pair.left, sample.pair.right)
    before, refined = stereo
    torch.testing.assert_close(output.disparity, before + refined if doubled else refined)


def test_narrow_recurrent_states_serve_both_branches() -> None:
    sample = _sample()
    with torch.no_grad():
        output = _model(hidden=16).eval()(sample.pair.left, sample.pair.right)
    assert output.monocular is not None
    assert bool(output.disparity.isfinite().all())
    assert not any(128 in tensor.shape for tensor in _model(hidden=16).update.state_dict().values())


def test_the_encoder_runs_once_for_both_images() -> None:
    sample, seen = _sample(), []
    model = _model().eval()
    model.monocular_encoder.register_forward_hook(
        lambda _module, inputs, _output: seen.append(tuple(inputs[0].shape))
    )
    with torch.no_grad():
        model(sample.pair.left, sample.pair.right)
    assert seen == [(4, 3, 56, 84)]


def test_sizes_and_options_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 32, not 90x64"):
        _model()(torch.zeros(1, 3, 64, 90), torch.zeros(1, 3, 64, 90))
    with pytest.raises(ValueError, match="multiple of 32"):
        _model(max_disparity=100)
    with pytest.raises(ValueError, match="at least one iteration"):
        _model(iterations=0)
    with pytest.raises(ValueError, match="even number of channels"):
        _model(hidden=15)


def test_the_monocular_part_starts_from_depth_anything() -> None:
    model = _model()
    torch.manual_seed(1)
    prior = create("depth-anything-v2-small", encoder="tiny")
    assert isinstance(prior, MonoModel)
    before = model.state_dict()["update.delta_head.conv1.weight"].clone()
    model.adopt(prior)
    own, theirs = model.state_dict(), prior.state_dict()
    assert torch.equal(own["monocular_encoder.positions"], theirs["encoder.positions"])
    assert torch.equal(own["monocular_head.conv3.weight"], theirs["head.conv3.weight"])
    for part in ("monocular_head.neck", "neck"):
        assert torch.equal(own[f"{part}.levels.2.weight"], theirs["head.neck.levels.2.weight"])
    assert torch.equal(own["update.delta_head.conv1.weight"], before)


def test_a_prior_of_another_size_is_refused() -> None:
    with torch.device("meta"):
        small = create("depth-anything-v2-small")
    assert isinstance(small, MonoModel)
    with pytest.raises(ValueError, match=r"monocular part of SyDE-Net \(tiny\)"):
        _model().adopt(small)


def test_the_spectrum_of_the_channels_is_as_exact_under_autocast() -> None:
    attention = FrequencyChannelAttention(16).eval()
    x = _random(1, 16, 4, 6, seed=0)
    seen: list[torch.Tensor] = []
    attention.amplitude.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        attention(x)
        means = attention.smooth(x).mean((2, 3)).float()
    with torch.no_grad():
        attention.bent(means)
    assert torch.equal(seen[0], seen[1])
