"""`fast`: its correlation against a loop, its regression at edges, its range, its gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stereopsis.layers.upsampling import doubled
from stereopsis.models.fast import Encoder, Fast, Residual, around_the_median, conv, correlation_planes
from stereopsis.models.registry import create
from stereopsis.prediction.compilation import compiler_options
from stereopsis.prediction.network import NetworkPredictor
from stereopsis.structures import StereoPair
from stereopsis.training.main import hold_channels_last


def _fast(name: str, **options: object) -> Fast:
    model = create(name, **options)
    assert isinstance(model, Fast)
    return model


def test_correlation_planes_are_cosines_of_feature_groups_at_every_shift() -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(2, 8, 3, 7, generator=generator) for _ in range(2))
    found = correlation_planes(left, right, 5, groups=2).reshape(2, 2, 5, 3, 7)
    for shift in range(5):
        for x in range(7):
            for group in range(2):
                channels = slice(4 * group, 4 * group + 4)
                if x - shift < 0:
                    expected = torch.zeros(2, 3)
                else:
                    expected = F.cosine_similarity(left[:, channels, :, x], right[:, channels, :, x - shift])
                # Planes run from the largest shift, where the band begins, to none.
                torch.testing.assert_close(found[:, group, 4 - shift, :, x], expected)


def test_a_cell_that_sees_two_surfaces_takes_the_likelier_one() -> None:
    probabilities = torch.zeros(1, 24, 1, 1)
    probabilities[0, 3], probabilities[0, 4], probabilities[0, 20] = 0.4, 0.2, 0.4 - 1e-3
    assert float(around_the_median(probabilities)) == pytest.approx(3 + 1 / 3)


def test_a_cell_that_knows_little_takes_the_plane_with_the_least_expected_error() -> None:
    probabilities = torch.zeros(1, 24, 1, 1)
    probabilities[0, 4:12], probabilities[0, 22] = 0.1, 0.2
    assert float(around_the_median(probabilities)) == pytest.approx(8)


@pytest.mark.parametrize("most", [64, 192, 400])
def test_no_disparity_of_the_coarse_stage_passes_the_maximum(most: int) -> None:
    torch.manual_seed(0)
    model = _fast("fast", width=8, depth=1, max_disparity=most).eval()
    with torch.inference_mode():
        output = model(torch.rand(1, 3, 96, 192), torch.rand(1, 3, 96, 192))
    assert float(output.stages[0].max()) <= most


@pytest.mark.parametrize("groups", [0, 6])
def test_channels_that_do_not_make_equal_groups_are_refused(groups: int) -> None:
    with pytest.raises(ValueError, match=f"64 channels at 1/8: they do not make {groups} groups"):
        create("fast", groups=groups)


def test_confidence_is_the_networks_own_and_lies_between_0_and_1() -> None:
    torch.manual_seed(0)
    predictor = NetworkPredictor(_fast("fast", width=8, depth=1))
    pair = StereoPair(torch.rand(3, 50, 70), torch.rand(3, 50, 70))
    output = predictor(pair)
    assert output.disparity.shape == (50, 70)
    assert output.confidence is not None
    assert 0 <= float(output.confidence.min()) <= float(output.confidence.max()) <= 1


def test_no_feature_of_any_scale_grows_beyond_six() -> None:
    torch.manual_seed(0)
    model = _fast("fast", width=8, depth=1).eval()
    found: list[float] = []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 20.0)  # weights that would let them grow from scale to scale
        if isinstance(module, Residual):
            module.register_forward_hook(lambda _module, _inputs, output: found.append(float(output.max())))
    with torch.inference_mode():
        model(torch.rand(1, 3, 96, 128), torch.rand(1, 3, 96, 128))
    assert set(found) == {6.0}


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    model = _fast("fast", width=8, depth=1).train()
    output = model(torch.rand(2, 3, 64, 96), torch.rand(2, 3, 64, 96))
    assert output.confidence is not None
    total = output.disparity.mean() + output.confidence.mean() + sum(stage.mean() for stage in output.stages)
    (total + output.probabilities.square().mean()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


class _DeepestScale(nn.Module):
    """As the aggregation hands up what it finds at 1/64: compiled, `F.interpolate` gave no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.body64 = nn.Sequential(conv(24, 32, stride=2), nn.Conv2d(32, 24, 1))
        self.merge16 = Residual(24)

    def forward(self, deep: Tensor, middle: Tensor) -> Tensor:
        height, width = deep.shape[-2:]
        far = doubled(self.body64(deep))[..., :height, :width]
        return self.merge16(middle + doubled(deep + far))


class _ContextFromBelow(nn.Module):
    """As the encoder adds 1/16 to 1/8: with 512-bit vectors its gradient there was stray memory."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder(32).eval()
        hold_channels_last(self)

    def forward(self, image: Tensor) -> Tensor:
        quarter, eighth, sixteenth = self.encoder(image)
        return quarter.mean() + eighth.square().mean() + sixteenth.chunk(2)[0].mean()


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of torch.compile's own imports
@pytest.mark.parametrize(
    ("network", "shapes"),
    [(_DeepestScale, [(2, 24, 6, 8), (2, 24, 12, 16)]), (_ContextFromBelow, [(4, 3, 192, 256)])],
)
def test_compiled_in_bfloat16_every_scale_learns_as_it_does_plainly(
    network: type[nn.Module], shapes: list[tuple[int, ...]]
) -> None:
    torch.manual_seed(0)
    plain = network()
    inputs = [torch.randn(shape) for shape in shapes]
    inputs[0].requires_grad_()
    gradients = []
    for run in (plain, torch.compile(plain, dynamic=False, options=compiler_options())):
        plain.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = run(*inputs)
        output.float().square().sum().backward()
        gradients.append({name: p.grad for name, p in plain.named_parameters() if p.grad is not None})
    assert gradients[1].keys() == gradients[0].keys()
    for name, expected in gradients[0].items():
        norm = torch.linalg.vector_norm(expected)
        assert torch.linalg.vector_norm(gradients[1][name] - expected) < 0.1 * norm, name
        torch.testing.assert_close(torch.linalg.vector_norm(gradients[1][name]), norm, rtol=0.05, atol=0)
