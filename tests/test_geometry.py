"""Warping, the left-right check and points against loops and hand-made scenes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from stereopsis.geometry import (
    depth_edges,
    in_range,
    left_right_error,
    normals,
    occlusion,
    points,
    warp,
)
from stereopsis.structures import Calibration


def two_planes(height: int = 6, width: int = 24) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Left and right disparity and the truly occluded pixels of a square (4 px) before a wall (1 px)."""
    left = torch.ones(height, width)
    left[:, 10:16] = 4.0
    right = torch.ones(height, width)
    right[:, 6:12] = 4.0
    occluded = torch.zeros(height, width, dtype=torch.bool)
    occluded[:, 7:10] = True  # the wall's right columns 6..8 are hidden behind the square
    occluded[:, 0] = True  # out of the right image
    return left, right, occluded


@pytest.mark.parametrize("view", ["left", "right"])
def test_warp_equals_a_naive_loop(view: str) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 4, 9, generator=generator)
    disparity = torch.rand(2, 4, 9, generator=generator) * 5
    warped, valid = warp(image, disparity, view=view)
    for b in range(2):
        for y in range(4):
            for x in range(9):
                d = float(disparity[b, y, x])
                position = x - d if view == "left" else x + d
                inside = 0 <= position <= 8
                assert bool(valid[b, y, x]) == inside
                position = min(max(position, 0.0), 8.0)
                low = min(math.floor(position), 7)
                expected = image[b, :, y, low] * (1 - position + low) + image[b, :, y, low + 1] * (
                    position - low
                )
                torch.testing.assert_close(warped[b, :, y, x], expected, atol=2e-6, rtol=0)


def test_warp_of_whole_pixels_is_exact_and_unbatched_images_are_taken() -> None:
    image = torch.arange(3.0 * 2 * 8).reshape(3, 2, 8) / 7
    warped, valid = warp(image, torch.full((2, 8), 3.0))
    assert torch.equal(warped[..., 3:], image[..., :-3])
    assert valid[:, 3:].all()
    assert not valid[:, :3].any()


def test_warp_marks_unknown_disparity_and_takes_one_column() -> None:
    disparity = torch.tensor([[math.inf, math.nan, 0.0]])
    warped, valid = warp(torch.rand(1, 1, 3), disparity)
    assert valid.tolist() == [[False, False, True]]
    assert warped.isfinite().all()
    assert warp(torch.rand(3, 2, 1), torch.zeros(2, 1))[1].all()


def test_warp_has_gradients_in_image_and_disparity() -> None:
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(1, 2, 3, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    disparity = torch.rand(1, 3, 8, generator=generator, dtype=torch.float64) * 3 + 0.1
    disparity.requires_grad_()
    assert torch.autograd.gradcheck(lambda i, d: warp(i, d)[0], (image, disparity))


def test_left_right_check_finds_exactly_the_occluded_pixels() -> None:
    left, right, occluded = two_planes()
    assert torch.equal(occlusion(left, right), occluded)
    assert torch.equal(occlusion(left[None, None], right[None, None]), occluded[None, None])
    error = left_right_error(left, right)
    assert error[0, 0] == math.inf
    assert error[~occluded].max() == 0


def test_left_right_check_of_the_right_view() -> None:
    left, right, _ = two_planes()
    mirrored = occlusion(left.flip(-1), right.flip(-1), view="right")
    assert torch.equal(mirrored.flip(-1), occlusion(left, right))


def test_points_are_metres_right_down_forward() -> None:
    calibration = Calibration(focal=100.0, baseline=0.5, cx=2.0, cy=1.0, doffs=5.0, focal_y=200.0)
    disparity = torch.full((3, 5), 20.0)
    disparity[0, 0] = -5.0
    cloud = points(disparity, calibration)
    assert cloud[0, 0].isnan().all()
    torch.testing.assert_close(cloud[1, 2], torch.tensor([0.0, 0.0, 2.0]))
    torch.testing.assert_close(cloud[2, 4], torch.tensor([0.04, 0.01, 2.0]))


def test_points_project_back_into_both_images() -> None:
    calibration = Calibration(focal=80.0, baseline=0.2, cx=7.3, cy=4.1, doffs=3.0)
    disparity = torch.rand(9, 15, generator=torch.Generator().manual_seed(0)) * 10 + 1
    x, y, z = points(disparity, calibration).double().unbind(-1)
    column = calibration.focal * x / z + calibration.cx
    row = calibration.focal * y / z + calibration.cy
    torch.testing.assert_close(column, torch.arange(15.0).double().expand(9, 15), atol=1e-4, rtol=0)
    torch.testing.assert_close(row, torch.arange(9.0).double()[:, None].expand(9, 15), atol=1e-4, rtol=0)
    right = calibration.focal * (x - calibration.baseline) / z + calibration.cx + calibration.doffs
    torch.testing.assert_close(column - right, disparity.double(), atol=1e-4, rtol=0)


def test_in_range_keeps_finite_depth_within_limits() -> None:
    depth = torch.tensor([[0.5, 2.0, 9.0, math.inf, math.nan]])
    assert in_range(depth).tolist() == [[True, True, True, False, False]]
    assert in_range(depth, near=1.0, far=5.0).tolist() == [[False, True, False, False, False]]


def test_depth_edges_are_the_sides_of_the_square_and_spare_slants() -> None:
    left, _, _ = two_planes()
    edges = depth_edges(left)
    columns = [x for x in range(left.shape[1]) if bool(edges[0, x])]
    assert columns == [9, 10, 15, 16]
    ramp = torch.linspace(60, 80, 30).expand(5, 30)
    assert not depth_edges(ramp).any()


_SKEWED = Calibration(focal=90.0, baseline=0.2, cx=17.3, cy=9.1, doffs=4.0, focal_y=70.0)


def _plane(normal: torch.Tensor, offset: float) -> torch.Tensor:
    """The disparity of the plane normal . X = offset, 24 x 36 pixels."""
    x = (torch.arange(36.0) - _SKEWED.cx) / _SKEWED.focal
    y = (torch.arange(24.0)[:, None] - _SKEWED.cy) / (_SKEWED.focal_y or 0)
    return _SKEWED.disparity(offset / (normal[0] * x + normal[1] * y + normal[2]))


@pytest.mark.parametrize("direction", [[0.0, 0.0, 1.0], [0.4, -0.3, 0.9], [-0.5, 0.6, 0.7]])
def test_the_normal_of_a_plane_is_the_planes_and_faces_the_camera(direction: list[float]) -> None:
    normal = F.normalize(torch.tensor(direction), dim=0)
    found = normals(_plane(normal, 1.5), _SKEWED)
    torch.testing.assert_close(found, -normal.expand(24, 36, 3), atol=2e-3, rtol=0)
    places = points(_plane(normal, 1.5), _SKEWED)
    assert bool(((found * places).sum(-1) < 0).all())


def test_normals_do_not_mix_the_two_sides_of_a_depth_edge() -> None:
    wall, slope = torch.tensor([0.0, 0.0, 1.0]), F.normalize(torch.tensor([0.4, 0.2, 0.9]), dim=0)
    disparity = _plane(wall, 3.0)
    disparity[:, 18:] = _plane(slope, 1.0)[:, 18:]
    found = normals(disparity, _SKEWED)
    torch.testing.assert_close(found[:, :18], -wall.expand(24, 18, 3), atol=2e-3, rtol=0)
    torch.testing.assert_close(found[:, 18:], -slope.expand(24, 18, 3), atol=2e-3, rtol=0)


def test_noise_on_a_plane_tilts_normals_less_the_farther_they_look() -> None:
    normal = F.normalize(torch.tensor([0.2, -0.3, 0.9]), dim=0)
    noise = 0.05 * torch.randn(24, 36, generator=torch.Generator().manual_seed(0))
    tilts = [
        float((normals(_plane(normal, 1.5) + noise, _SKEWED, reach=reach) + normal).norm(dim=-1).mean())
        for reach in (1, 2, 4)
    ]
    assert tilts[0] > 2 * tilts[1] > 4 * tilts[2]


def test_there_is_no_normal_where_nothing_or_a_line_alone_is_known_nor_behind_the_camera() -> None:
    disparity = torch.full((2, 9, 12), math.inf)
    disparity[0, 4] = 6.0
    disparity[1] = -20.0
    assert bool(normals(disparity, _SKEWED).isnan().all())
    disparity[0, 5, 3] = 6.0
    found = normals(disparity, _SKEWED)
    assert bool(found[0, 4, 3].isfinite().all())
    assert bool(found[0, 3].isnan().all())
