"""Losses of networks with more than one kind of answer: fused branches, vertical displacements, matches."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from stereopsis.losses import MatchingLoss, SequenceLoss
from stereopsis.structures import FusedOutput, IterativeOutput, MatchingOutput, StereoPair, StereoSample


def _sample(disparity: Tensor, occluded: Tensor | None = None) -> StereoSample:
    image = torch.zeros(len(disparity), 3, *disparity.shape[-2:])
    valid = torch.ones_like(disparity, dtype=torch.bool)
    return StereoSample(StereoPair(image, image), disparity, valid, occluded)


def test_iterates_of_both_branches_count_in_the_order_of_their_iterations() -> None:
    stereo = tuple(torch.full((1, 2, 3), value) for value in (1.0, 2.0, 4.0))
    monocular = tuple(torch.full((1, 2, 3), value) for value in (8.0, 16.0))
    output = FusedOutput(stereo[-1], iterates=stereo, monocular_iterates=monocular)
    loss = SequenceLoss(gamma=0.5, adjusted=False)(output, _sample(torch.zeros(1, 2, 3)))
    in_order = (1.0, 8.0, 2.0, 16.0, 4.0)
    assert float(loss) == sum(0.5 ** (4 - k) * value for k, value in enumerate(in_order))


def test_vertical_displacements_count_as_much_as_horizontal_ones() -> None:
    iterates = (torch.full((1, 2, 3), 3.0),)
    output = IterativeOutput(iterates[0], iterates=iterates, vertical=(torch.full((1, 2, 3), -5.0),))
    assert float(SequenceLoss()(output, _sample(torch.zeros(1, 2, 3)))) == 4.0


def _matching() -> tuple[MatchingOutput, StereoSample]:
    """One row of six columns, of which 1 and 4 are matched; the last column is occluded."""
    generator = torch.Generator().manual_seed(0)
    plan = torch.rand(1, 1, 3, 3, generator=generator)
    output = MatchingOutput(
        disparity=torch.full((1, 1, 6), 2.5),
        occlusion=torch.linspace(0.1, 0.6, 6).view(1, 1, 6),
        matched=torch.tensor([[[0.5, 3.5]]]),
        transport=plan,
        grid=(0, 3),
    )
    occluded = torch.tensor([[[False] * 5 + [True]]])
    return output, _sample(torch.full((1, 1, 6), 2.0), occluded)


def test_the_matching_loss_is_its_four_terms() -> None:
    output, sample = _matching()
    assert output.transport is not None
    plan = output.transport[0, 0]
    # Columns 0 and 1 match outside the right image; of the sampled columns 0 and 3, 3 matches at (3 - 2) / 3.
    at_match = 2 / 3 * plan[1, 0] + 1 / 3 * plan[1, 1]
    # Right column 0 is seen by left column 2; right column 3 by nobody: 5 is occluded.
    response = [plan[0, 2], at_match, plan[2, 1]]
    expected = -sum(math.log(float(mass) + 1e-6) for mass in response) / 3
    expected += 1.0  # smooth L1 of 3.5 against 2, at the one sampled column that is seen
    expected += 0.125  # of 2.5 against 2
    shares = torch.linspace(0.1, 0.6, 6).tolist()
    expected -= (
        sum(math.log(o) for o in shares[:2] + shares[5:]) + sum(math.log(1 - o) for o in shares[2:5])
    ) / 6
    assert float(MatchingLoss()(output, sample)) == pytest.approx(expected, abs=1e-5)


def test_the_matching_loss_needs_what_training_gives() -> None:
    output, sample = _matching()
    with pytest.raises(ValueError, match="transport in training"):
        MatchingLoss()(MatchingOutput(output.disparity), sample)
