from __future__ import annotations

import torch

from stereopsis.layers.sampling import boundaries, dilated, jittered_grid, sample_points


def step(height: int = 12, width: int = 20, edge: int = 8) -> torch.Tensor:
    """Background at 4 px, foreground at 9 px from column `edge` on."""
    truth = torch.full((height, width), 4.0)
    truth[:, edge:] = 9.0
    return truth


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_both_sides_of_a_step_are_its_boundary():
    columns = boundaries(step()).any(0)
    assert columns.nonzero().flatten().tolist() == [7, 8]
    assert not boundaries(step(), threshold=5.0).any()


def test_an_even_box_grows_one_pixel_further_up_and_left():
    mask = torch.zeros(9, 9, dtype=torch.bool)
    mask[4, 4] = True
    for size, expected in ((2, [4, 5]), (3, [3, 4, 5]), (4, [3, 4, 5, 6])):
        grown = dilated(mask, size)
        assert grown.any(0).nonzero().flatten().tolist() == expected


def test_jittered_points_carry_the_truth_of_their_rounded_position():
    truth = torch.arange(12.0 * 20).reshape(12, 20) + 1
    points = jittered_grid(truth, torch.ones(12, 20, dtype=torch.bool), generator=generator())
    assert len(points.labels) == 12 * 20
    cells = points.positions.floor().long()
    assert len(set(map(tuple, cells.tolist()))) == 12 * 20
    for (x, y), label in zip(points.positions.tolist(), points.labels.tolist(), strict=True):
        assert label == truth[min(round(y), 11), min(round(x), 19)].item()


def test_points_are_drawn_only_where_the_truth_is_known():
    truth = step()
    truth[:6] = 0
    points = sample_points(truth, truth > 0, number=500, sampling="random", generator=generator())
    assert len(points.labels) == 500
    assert bool((points.labels > 0).all())
    assert bool((points.positions[:, 1] >= 5.49).all())


def test_half_of_the_points_lie_near_edges_and_come_first():
    truth = step(64, 64, 32)
    points = sample_points(truth, truth > 0, number=100, sampling="edges", dilation=10, generator=generator())
    near = boundaries(truth, dilation=10)
    rounded = points.positions.round().long().clamp(max=63)
    at_edge = near[rounded[:, 1], rounded[:, 0]]
    assert at_edge.tolist() == [True] * 50 + [False] * 50


def test_few_edges_give_half_as_many_points_as_there_are_edge_pixels():
    truth = step(4, 64, 32)
    points = sample_points(truth, truth > 0, number=1000, sampling="edges", dilation=0, generator=generator())
    rounded = points.positions.round().long()
    near = boundaries(truth)[rounded[:, 1].clamp(max=3), rounded[:, 0].clamp(max=63)]
    assert len(points.labels) == 1000
    assert int(near.sum()) == 4  # 8 edge pixels


def test_without_edges_or_truth_sampling_falls_back():
    flat = torch.full((8, 8), 3.0)
    known = flat > 0
    assert len(sample_points(flat, known, number=9, sampling="edges", generator=generator()).labels) == 9
    none = sample_points(flat, ~known, number=9, sampling="edges", generator=generator())
    assert len(none.labels) == 0


def test_the_same_generator_state_draws_the_same_points():
    truth = step()
    first, second = (
        sample_points(truth, truth > 0, number=50, sampling="edges", generator=generator(3)) for _ in range(2)
    )
    assert torch.equal(first.positions, second.positions)
