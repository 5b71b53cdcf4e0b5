"""What SMD-Nets add to a network's contract: queries, scales, losses at points."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from stereopsis.losses import MixtureLoss
from stereopsis.models.registry import create
from stereopsis.models.smd import SMDNet
from stereopsis.prediction.network import NetworkPredictor
from stereopsis.structures import MixtureOutput, StereoPair, StereoSample


def network(**options: object) -> SMDNet:
    torch.manual_seed(0)
    tiny = {"max_disparity": 128, "width": 4, "head": (16, 8), **options}
    model = create("smd-stereodepth", **tiny)
    assert isinstance(model, SMDNet)
    return model.eval()


def pair(height: int = 64, width: int = 128, batch: tuple[int, ...] = ()) -> StereoPair:
    generator = torch.Generator().manual_seed(0)
    return StereoPair(*torch.rand(2, *batch, 3, height, width, generator=generator))


def predict(**options: object) -> MixtureOutput:
    output = NetworkPredictor(network(**options))(pair(50, 70))
    assert isinstance(output, MixtureOutput)
    return output


@pytest.mark.parametrize("representation", ["standard", "unimodal", "bimodal"])
def test_a_query_at_pixel_centres_is_the_grid(representation):
    """Also after the predictor has cut its padding off (top and right)."""
    output = predict(representation=representation)
    y, x = torch.meshgrid(torch.arange(50.0), torch.arange(70.0), indexing="ij")
    mixture = output.query(torch.stack([x, y], -1).reshape(-1, 2))
    torch.testing.assert_close(mixture.disparity.view(50, 70), output.disparity, rtol=0, atol=1e-4)
    assert output.mu is not None
    torch.testing.assert_close(mixture.mu.T.reshape(-1, 50, 70), output.mu, rtol=0, atol=1e-4)
    components = {"standard": 1, "unimodal": 1, "bimodal": 2}
    assert output.mu.shape == (components[representation], 50, 70)
    assert output.confidence is not None


def test_a_batch_can_be_queried_pair_by_pair():
    output = NetworkPredictor(network(), batch_size=2)(pair(64, 64, batch=(3,)))
    assert isinstance(output, MixtureOutput)
    positions = torch.rand(3, 7, 2) * 63
    together = output.query(positions)
    for index in range(3):
        alone = output.select(index).query(positions[index])
        torch.testing.assert_close(together.mu[index], alone.mu)


def test_an_enlarged_frame_gives_disparities_in_its_own_pixels():
    output = predict()
    positions = torch.tensor([[20.0, 30.0], [40.5, 11.25]])
    near = output.query(positions).mu
    far = output.query(positions * 4, scale=4).mu / 4
    assert float((near - far).abs().max()) < 1.0


def test_one_disparity_never_exceeds_the_maximum():
    output = predict()
    assert float(output.disparity.max()) <= 128
    assert output.field is not None
    assert output.field.max_disparity == 128
    assert predict(image_scale=0.5).field.max_disparity == 256  # type: ignore[union-attr]


def test_reduced_images_give_disparity_at_full_resolution():
    output = predict(image_scale=0.5)
    assert output.disparity.shape == (50, 70)


def test_an_output_without_its_field_says_so():
    output = dataclasses.replace(predict(), field=None)
    with pytest.raises(ValueError, match="holds its grid only"):
        output.query(torch.zeros(1, 2))


def test_active_images_need_stereodepth():
    with pytest.raises(ValueError, match="need the backbone stereodepth"):
        create("smd-psmnet", active=True)


@pytest.mark.parametrize("representation", ["standard", "unimodal", "bimodal"])
@pytest.mark.parametrize("options", [{}, {"sine": False, "residual": False}])
def test_the_loss_reaches_every_parameter(representation, options):
    model = network(representation=representation, **options).train()
    images = pair(batch=(2,))
    truth = torch.full((2, 256, 512), 40.0)  # four times finer than the images
    truth[:, :, 200:] = 120.0
    output = model(images.left, images.right)
    loss = MixtureLoss(points=200)(output, StereoSample(images, truth, truth > 0))
    loss.backward()
    unreached = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max()]
    assert unreached == []


def test_points_are_drawn_anew_each_time_from_the_seed():
    model = network().train()
    images = pair(batch=(1,))
    sample = StereoSample(images, torch.rand(1, 64, 128) * 60 + 1, torch.ones(1, 64, 128) > 0)
    output = model(images.left, images.right)
    loss, again = MixtureLoss(points=20), MixtureLoss(points=20)
    first, second = loss(output, sample), loss(output, sample)
    assert first != second
    assert first == again(output, sample)


def test_without_truth_the_loss_is_zero():
    model = network().train()
    images = pair(batch=(1,))
    sample = StereoSample(images, torch.zeros(1, 64, 128), torch.zeros(1, 64, 128) > 0)
    assert MixtureLoss(points=20)(model(images.left, images.right), sample).item() == 0
