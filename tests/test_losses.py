"""The losses against their formulas, written as loops over pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from stereopsis.losses import (
    AdaptiveRobustLoss,
    PlanesLoss,
    SequenceLoss,
    SmoothL1Loss,
    adaptive_robust,
    create_loss,
)
from stereopsis.structures import (
    IterativeOutput,
    MatchingOutput,
    StereoOutput,
    StereoPair,
    StereoSample,
    VolumeOutput,
)


def _sample(seed: int = 0, right: Tensor | None = None) -> StereoSample:
    generator = torch.Generator().manual_seed(seed)
    image = torch.zeros(2, 3, 4, 6)
    disparity = torch.rand(2, 4, 6, generator=generator) * 40
    valid = torch.rand(2, 4, 6, generator=generator) < 0.7
    return StereoSample(
        StereoPair(image, image), torch.where(valid, disparity, 0.0), valid, disparity_right=right
    )


def _predictions(count: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return tuple((torch.rand(2, 4, 6, generator=generator) * 40).requires_grad_() for _ in range(count))


def _mean(sample: StereoSample, prediction: Tensor, error: Callable[[float], float], top: float) -> float:
    """Of an error over the pixels that count, one by one."""
    values = [
        error(float(prediction[b, y, x].detach() - sample.disparity[b, y, x]))
        for b in range(2)
        for y in range(4)
        for x in range(6)
        if sample.valid[b, y, x] and sample.disparity[b, y, x] < top
    ]
    return sum(values) / len(values)


def _smooth(error: float) -> float:
    return 0.5 * error**2 if abs(error) < 1 else abs(error) - 0.5


def test_smooth_l1_weighs_the_last_stages_and_the_final_disparity() -> None:
    sample, (unused, first, second, final) = _sample(), _predictions(4)
    output = VolumeOutput(disparity=final, stages=(unused, first, second))
    loss = SmoothL1Loss(weights=(0.5, 0.7, 1.0), max_disparity=30.0)
    expected = sum(
        weight * _mean(sample, prediction, _smooth, 30)
        for weight, prediction in zip((0.5, 0.7, 1.0), (first, second, final), strict=True)
    )
    assert float(loss(output, sample).detach()) == pytest.approx(expected, rel=1e-5)
    normalised = SmoothL1Loss(weights=(0.5, 0.7, 1.0), max_disparity=30.0, normalised=True)
    assert float(normalised(output, sample).detach()) == pytest.approx(expected / 2.2, rel=1e-5)


def test_the_sequence_loss_weighs_iterates_as_raft_does() -> None:
    sample, (first, *iterates) = _sample(), _predictions(5)
    output = IterativeOutput(disparity=iterates[-1], iterates=tuple(iterates), initial=first)
    gamma = 0.9 ** (15 / 3)
    expected = _mean(sample, first, _smooth, 30) + sum(
        gamma ** (3 - i) * _mean(sample, iterate, abs, 30) for i, iterate in enumerate(iterates)
    )
    loss = SequenceLoss(initial=1.0, max_disparity=30.0)
    assert float(loss(output, sample).detach()) == pytest.approx(expected, rel=1e-5)


def test_the_adaptive_robust_loss_counts_both_views_and_bears_unknown_truth() -> None:
    truth = torch.full((2, 4, 6), 5.0)
    truth[0] = math.inf
    sample, (left, right) = _sample(right=truth), _predictions(2)
    output = VolumeOutput(disparity=left, right_disparity=right)

    def robust(error: float) -> float:
        return math.sqrt((error / 2) ** 2 + 1) - 1

    value = AdaptiveRobustLoss(max_disparity=30.0)(output, sample)
    known = [robust(float(e)) for e in (right.detach()[1] - 5).flatten()]
    expected = (_mean(sample, left, robust, 30) + sum(known) / len(known)) / 2
    assert float(value.detach()) == pytest.approx(expected, rel=1e-5)
    value.backward()
    assert right.grad is not None
    assert bool(torch.isfinite(right.grad).all())
    assert bool((right.grad[0] == 0).all())


@pytest.mark.parametrize(("alpha", "scale"), [(1.0, 2.0), (-2.0, 1.0), (1.5, 0.5)])
def test_the_robust_function_is_barrons(alpha: float, scale: float) -> None:
    for x in (-3.0, 0.0, 0.2, 10.0):
        distance = abs(alpha - 2)
        expected = distance / alpha * (((x / scale) ** 2 / distance + 1) ** (alpha / 2) - 1)
        assert float(adaptive_robust(torch.tensor(x), alpha=alpha, scale=scale)) == pytest.approx(
            expected, abs=1e-6
        )


@pytest.mark.parametrize("loss", [SmoothL1Loss(), SequenceLoss(), AdaptiveRobustLoss()])
def test_without_a_pixel_that_counts_the_loss_and_its_gradient_are_zero(
    loss: Callable[..., Tensor],
) -> None:
    sample, (first, final) = _sample(), _predictions(2)
    nothing = StereoSample(sample.pair, torch.zeros_like(sample.disparity), sample.valid & False)
    output = (
        IterativeOutput(disparity=final, iterates=(first, final))
        if isinstance(loss, SequenceLoss)
        else VolumeOutput(disparity=final, stages=(first,))
    )
    value = loss(output, nothing)
    value.backward()
    assert float(value.detach()) == 0
    assert final.grad is not None
    assert not bool(final.grad.any())


def test_a_loss_that_its_network_cannot_feed_is_refused() -> None:
    sample, (final,) = _sample(), _predictions(1)
    with pytest.raises(ValueError, match="iterates"):
        SequenceLoss()(VolumeOutput(disparity=final), sample)
    with pytest.raises(ValueError, match="3 weights, the network gives 1"):
        SmoothL1Loss(weights=(0.5, 0.7, 1.0))(VolumeOutput(disparity=final), sample)


def test_losses_are_made_by_name_from_plain_values() -> None:
    assert create_loss("smooth_l1", weights=[0.5, 1.0]) == SmoothL1Loss(weights=(0.5, 1.0))
    with pytest.raises(ValueError, match="no loss is called 'l1'"):
        create_loss("l1")
    with pytest.raises(ValueError, match="did you mean gamma"):
        create_loss("sequence", gama=0.8)


def test_the_planes_loss_adds_what_the_volume_and_the_confidence_miss() -> None:
    sample, final = _sample(), _predictions(1)[0]
    stage = (torch.rand(2, 2, 3, generator=torch.Generator().manual_seed(2)) * 40).requires_grad_()
    levels = torch.arange(6) * 8.0
    probabilities = torch.full((2, 6, 2, 3), 1 / 6)
    output = VolumeOutput(
        disparity=final,
        confidence=torch.full((2, 4, 6), 0.25),
        probabilities=probabilities,
        levels=levels,
        stages=(stage,),
    )
    grown = F.interpolate(stage[:, None], (4, 6), mode="bilinear")[:, 0]
    plain = 0.0
    for weight, prediction in ((0.5, grown), (1.0, final)):
        plain += weight * _mean(sample, prediction, lambda e: math.sqrt(e**2 / 4 + 1) - 1, math.inf)
    loss = PlanesLoss(weights=(0.5, 1.0), scale=2.0, cross_entropy=2.0, confidence=3.0, threshold=5.0)
    right = _mean(sample, final, lambda e: float(abs(e) < 5), math.inf)
    certainty = -(right * math.log(0.25) + (1 - right) * math.log(0.75))
    expected = plain + 2 * math.log(6) + 3 * certainty
    assert float(loss(output, sample).detach()) == pytest.approx(expected, rel=1e-5)


def test_weights_count_as_repeated_pixels_would() -> None:
    """Weight 1 on a part and 0 elsewhere is that part alone; halves everywhere change nothing."""
    generator = torch.Generator().manual_seed(0)
    disparity, truth = (torch.rand(1, 4, 6, generator=generator) * 9 for _ in range(2))
    pair = StereoPair(torch.zeros(1, 3, 4, 6), torch.zeros(1, 3, 4, 6))
    chosen = torch.rand(1, 4, 6, generator=generator) < 0.5
    everywhere = torch.ones_like(chosen)
    part = StereoSample(pair, truth, chosen)
    weighted = StereoSample(pair, truth, everywhere, weight=chosen.float())
    halves = StereoSample(pair, truth, chosen, weight=torch.full_like(truth, 0.5))
    shares, sure = torch.rand(1, 3, 2, 3, generator=generator), torch.rand(1, 4, 6, generator=generator)
    planes = VolumeOutput(disparity, sure, probabilities=shares.softmax(1), levels=torch.arange(3) * 4.0)
    transport = torch.rand(1, 4, 7, 7, generator=generator)
    matching = MatchingOutput(
        disparity, transport=transport, matched=disparity + 1, occlusion=sure, grid=(0, 1)
    )
    for loss, output in (
        (create_loss("smooth_l1"), StereoOutput(disparity)),
        (create_loss("sequence"), IterativeOutput(disparity, iterates=(disparity + 1, disparity))),
        (create_loss("adaptive_robust"), VolumeOutput(disparity, stages=(disparity + 1,))),
        (create_loss("planes", weights=[1.0]), planes),
        (create_loss("matching"), matching),
    ):
        torch.testing.assert_close(loss(output, weighted), loss(output, part))
        torch.testing.assert_close(loss(output, halves), loss(output, part))
    nothing = StereoSample(pair, truth, everywhere, weight=torch.zeros_like(truth))
    assert float(create_loss("smooth_l1")(StereoOutput(disparity), nothing)) == 0


class _Operators(TorchDispatchMode):
    """The names of the operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_the_planes_loss_calls_nothing_that_autocast_refuses_on_cuda() -> None:
    output = VolumeOutput(
        disparity=_predictions(1)[0],
        confidence=torch.full((2, 4, 6), 0.25).half(),
        probabilities=torch.full((2, 6, 2, 3), 1 / 6),
        levels=torch.arange(6) * 8.0,
    )
    with _Operators() as called:
        loss = PlanesLoss(weights=(1.0,))(output, _sample())
    assert "binary_cross_entropy" not in called.names
    assert loss.dtype == torch.float32
