"""Truth is exact: against closed forms, between the views, and against a dense z-buffer of the other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from stereopsis.synthesis.camera import Rig
from stereopsis.synthesis.objects import MAKERS
from stereopsis.synthesis.shapes import Ellipsoid, Plane, Ray
from stereopsis.synthesis.stream import SyntheticStream
from stereopsis.synthesis.truth import render_truth
from stereopsis.synthesis.visibility import Pose, Solid

CPU = torch.device("cpu")
SIZE = (60, 80)
RIG = Rig(focal=1.1, baseline=0.12, cx=0.01, cy=-0.02, doffs=0.015)


def grid(rig: Rig, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, float]:
    """x and y of the left camera's rays (x, y, 1), and the disparity times depth."""
    calibration = rig.calibration(size)
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    f = calibration.focal
    return (x - calibration.cx) / f, (y - calibration.cy) / f, f * calibration.baseline


def test_a_slanted_planes_disparity_is_the_closed_form():
    normal, distance = np.array((0.3, -0.5, 1.0)), 1.7
    z = normal / np.linalg.norm(normal)
    x = np.cross((0, 1, 0), z) / np.linalg.norm(np.cross((0, 1, 0), z))
    pose = Pose(np.stack((x, np.cross(z, x), z), axis=1), normal * distance / (normal @ normal))
    truth = render_truth([Solid(Plane(), pose)], RIG, SIZE, "left", device=CPU)
    dx, dy, scale = grid(RIG, SIZE)
    expected = scale * (normal[0] * dx + normal[1] * dy + normal[2]) / distance - RIG.doffs * SIZE[1]
    assert np.abs(truth.disparity.numpy() - expected).max() < 1e-5


def test_a_spheres_disparity_is_the_closed_form_up_to_its_rim():
    centre, radius = np.array((0.1, -0.05, 1.3)), 0.35
    solid = Solid(Ellipsoid(), Pose.of(centre, (radius,) * 3))
    truth = render_truth([solid], RIG, SIZE, "left", device=CPU)
    dx, dy, scale = grid(RIG, SIZE)
    a = dx**2 + dy**2 + 1
    b = dx * centre[0] + dy * centre[1] + centre[2]
    inside = b * b - a * (centre @ centre - radius**2)
    hit = inside >= 0
    assert 300 < hit.sum() < 4000
    assert np.array_equal(truth.objects.numpy() == 0, hit)
    expected = scale / ((b - np.sqrt(np.where(hit, inside, 0))) / a) - RIG.doffs * SIZE[1]
    assert np.abs(truth.disparity.numpy() - expected)[hit].max() < 1e-5
    assert torch.isinf(truth.depth[~torch.from_numpy(hit)]).all()


def test_sky_has_the_disparity_of_infinity():
    """-doffs: zero and valid without, unknown where it would be negative."""
    solid = Solid(Ellipsoid(), Pose.of((0, 0, 2), (0.1,) * 3))
    plain = render_truth([solid], Rig(focal=1.0, baseline=0.1), SIZE, "left", device=CPU)
    assert plain.disparity[0, 0] == 0
    assert plain.valid.all()
    shifted = render_truth([solid], RIG, SIZE, "left", device=CPU)
    assert not shifted.valid[0, 0]
    toed = Rig(focal=1.0, baseline=0.1, doffs=-0.05)
    inwards = render_truth([solid], toed, SIZE, "left", device=CPU)
    assert inwards.disparity[0, 0] == pytest.approx(0.05 * SIZE[1])


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_hits_lie_on_the_shape_and_nothing_lies_before_them(kind):
    """Against small steps along the ray: the first point whose neighbourhood the shape claims is the hit."""
    rng = np.random.default_rng(3)
    shape = MAKERS[kind](rng)
    origin = np.array((0.3, -0.2, -1.5)) * 3 * max(shape.extent[:2])
    aim = rng.uniform(-0.6, 0.6, (400, 3)) * np.array(shape.extent)
    d = torch.from_numpy(aim - origin)
    ray = Ray(*(float(o) for o in origin), *d.unbind(1))
    t = shape.intersect(ray)
    hit = torch.isfinite(t)
    assert hit.sum() > 20
    surface = shape.surface(*(c[hit] for c in ray.at(t.masked_fill(~hit, 0.0))))
    normal = torch.stack(surface[3:])
    towards = (normal * d[hit].T).sum(0)
    assert torch.isfinite(normal).all()
    if shape.extent[2] > 0:
        # Outward normals of a first hit look back along the ray (crevices of marched shapes: nearly all).
        assert (towards < 0).float().mean() > 0.98
    again = shape.intersect(ray._replace(**dict(zip(("dx", "dy", "dz"), (d * 0.5).unbind(1), strict=True))))
    assert torch.allclose(again[hit], 2 * t[hit], rtol=1e-6)


@pytest.fixture(scope="module")
def scenes():
    stream = SyntheticStream(11, size=(72, 96))
    return [stream.scene(index) for index in range(6)]


def test_the_views_agree_to_a_thousandth_of_a_pixel_outside_occlusions(scenes):
    """The right camera, looking along the match of each left pixel, measures the same disparity."""
    from stereopsis.synthesis.visibility import targets, trace_points

    size, compared = (72, 96), 0
    for scene in scenes:
        left = render_truth(scene.solids, scene.rig, size, "left", device=CPU)
        view = scene.rig.view(size, "right")
        y, x = torch.meshgrid(torch.arange(72.0).double(), torch.arange(96.0).double(), indexing="ij")
        seen = left.valid & ~left.occluded & torch.isfinite(left.depth)
        there = (x - left.disparity.double())[seen]
        depth = trace_points(targets(scene.solids, view), view, there, y[seen]).depth
        calibration = scene.rig.calibration(size)
        assert (calibration.disparity(depth) - left.disparity[seen]).abs().max() < 1.001e-3
        compared += int(seen.sum())
    assert compared > 6 * 72 * 96 * 0.5


def test_right_truth_is_the_lefts_where_a_match_falls_on_a_pixel(scenes):
    """With one plane at a whole number of pixels the two maps are each other's shift, bit for bit."""
    rig = Rig(focal=1.0, baseline=0.1)
    solids = [
        Solid(Plane(), Pose.of((0, 0, 96 * 0.1 / 4), (1, 1, 1))),
        Solid(Plane((0.08, 0.05)), Pose.of((0.02, 0, 96 * 0.1 / 12), (1, 1, 1))),
    ]
    left, right = (render_truth(solids, rig, (72, 96), side, device=CPU) for side in ("left", "right"))
    for y, x in (~left.occluded).nonzero().tolist():
        d = round(left.disparity[y, x].item())
        assert abs(right.disparity[y, x - d] - left.disparity[y, x]) < 1e-5
    assert 0.02 < left.occluded.float().mean() < 0.3
    assert 0.02 < right.occluded.float().mean() < 0.3


def test_occlusion_agrees_with_a_z_buffer_of_many_points(scenes):
    """Splat a dense set of surface points into the other view; what lies behind another is occluded."""
    size, fine = (72, 96), 6
    for scene in scenes[:3]:
        truth = render_truth(scene.solids, scene.rig, size, "left", device=CPU)
        dense = render_truth(scene.solids, scene.rig, (size[0] * fine, size[1] * fine), "right", device=CPU)
        # The right view's nearest and farthest disparities in a pixel's neighbourhood, from its fine truth.
        d = torch.where(dense.valid, dense.disparity, 0.0)[None, None] / fine
        pooled = torch.nn.functional.max_pool2d(d, 2 * fine + 1, 1, fine)[0, 0]
        floor = -torch.nn.functional.max_pool2d(-d, 2 * fine + 1, 1, fine)[0, 0]
        y, x = torch.meshgrid(torch.arange(72), torch.arange(96), indexing="ij")
        there = x - truth.disparity
        inside = (there > 0.5) & (there < 94.5) & truth.valid & torch.isfinite(truth.depth)
        column = ((there + 0.5) * fine - 0.5).round().long().clamp(0, 96 * fine - 1)
        row = (y * fine + fine // 2).clamp(0, 72 * fine - 1)
        nearest, farthest = pooled[row, column], floor[row, column]
        flat = (nearest - farthest) < 0.5
        hidden = flat & (farthest > truth.disparity + 0.5)
        visible = flat & ((nearest - truth.disparity).abs() < 0.25)
        assert truth.occluded[inside & hidden].float().mean() > 0.999 or not (inside & hidden).any()
        assert truth.occluded[inside & visible].float().mean() < 0.001
        beside = there < -0.5
        assert truth.occluded[beside].all()


def test_bands_do_not_show(scenes, monkeypatch):
    whole = render_truth(scenes[0].solids, scenes[0].rig, (72, 96), "left", device=CPU)
    monkeypatch.setattr("stereopsis.synthesis.truth.BAND", 96 * 7)
    banded = render_truth(scenes[0].solids, scenes[0].rig, (72, 96), "left", device=CPU)
    assert torch.equal(whole.disparity, banded.disparity)
    assert torch.equal(whole.occluded, banded.occluded)


def test_edges_are_jumps_of_more_than_a_pixel():
    solids = [
        Solid(Plane(), Pose.of((0, 0, 3), (1, 1, 1))),
        Solid(Plane((0.1, 0.1)), Pose.of((0, 0, 1), (1, 1, 1))),
    ]
    truth = render_truth(solids, RIG, SIZE, "left", device=CPU)
    front = truth.objects == 1
    assert truth.edges.sum() > 0
    grown = torch.nn.functional.max_pool2d(front[None].float(), 3, 1, 1)[0] > 0
    shrunk = -torch.nn.functional.max_pool2d(-front[None].float(), 3, 1, 1)[0] > 0
    assert not truth.edges[~grown | shrunk].any()
    assert math.isclose(truth.edges[front & ~shrunk].float().mean().item(), 1.0)
