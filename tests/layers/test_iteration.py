"""The loop of updates: where it starts, what it keeps, when it stops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from stereopsis.layers.iteration import KEPT, refine, settled, starting_field
from stereopsis.structures import IterativeOutput


def test_a_field_starts_from_the_mean_of_what_is_known() -> None:
    initial = torch.full((1, 4, 8), 8.0)
    initial[0, 0, 0] = 24.0
    initial[0, 0, 1:4] = math.inf
    initial[0, :, 4:] = math.nan
    field = starting_field(initial, torch.full((1, 1, 2), -1.0))
    torch.testing.assert_close(field, torch.tensor([[[(24 + 12 * 8) / 13 / 4, -1.0]]]))


def test_a_start_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="size of the padded images: it is 9x4, the field 2x1"):
        starting_field(torch.zeros(1, 4, 9), torch.zeros(1, 1, 2))


def test_a_batch_is_settled_when_its_last_image_is() -> None:
    delta = torch.stack([torch.full((2, 2), 0.01), torch.full((2, 2), -0.2)])
    assert not settled(delta, 0.1)
    assert settled(delta, 0.3)


def _run(*, training: bool, stop_below: float | None = None, iterations: int = 6) -> IterativeOutput:
    """A field that moves by 1, 1/2, 1/4, ... of a coarse pixel."""

    def step(states: list[Tensor], field: Tensor) -> tuple[list[Tensor], Tensor]:
        return [states[0] / 2], states[0]

    return refine(
        torch.zeros(1, 2, 3),
        [torch.ones(1, 2, 3)],
        step,
        lambda field, _state: 2 * field.repeat_interleave(2, 1).repeat_interleave(2, 2),
        factor=2,
        iterations=iterations,
        stop_below=stop_below,
        training=training,
    )


def test_no_iterations_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, it is 0"):
        _run(training=False, iterations=0)


def test_training_upsamples_every_iterate() -> None:
    output = _run(training=True)
    assert [float(iterate.mean()) for iterate in output.iterates] == [2.0, 3.0, 3.5, 3.75, 3.875, 3.9375]
    assert output.disparity is output.iterates[-1]


def test_evaluation_keeps_the_last_coarse_fields_at_full_size() -> None:
    output = _run(training=False)
    assert len(output.iterates) == KEPT
    assert all(iterate.shape == (1, 4, 6) for iterate in output.iterates)
    assert torch.equal(output.iterates[-1], output.disparity)


def test_the_loop_stops_once_the_mean_change_is_small() -> None:
    assert torch.equal(
        _run(training=False, stop_below=0.6).disparity, _run(training=False, iterations=3).disparity
    )
    assert torch.equal(_run(training=False, stop_below=0.0).disparity, _run(training=False).disparity)
