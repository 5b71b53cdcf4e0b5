"""Many pairs, views and solids in one pass are what each of them is alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from stereopsis.synthesis import SyntheticStream
from stereopsis.synthesis import visibility as module
from stereopsis.synthesis.camera import Rig
from stereopsis.synthesis.objects import MAKERS
from stereopsis.synthesis.prism import Prism, letter_outline
from stereopsis.synthesis.shapes import Ray, Shape
from stereopsis.synthesis.truth import render_truth
from stereopsis.synthesis.visibility import Grid, Layout, Pose, Solid, Targets, targets

CPU = torch.device("cpu")
SIZE = (52, 76)


@pytest.mark.parametrize("kind", ["general", "endoscopy-like"])
def test_pairs_in_one_pass_are_bit_for_bit_the_pairs_one_by_one(kind):
    stream = SyntheticStream(7, kind, size=SIZE)
    for index, batched in enumerate(stream.renderings(range(5))):
        alone = stream.rendering(index)
        for side in ("left", "right"):
            assert torch.equal(getattr(alone.sample.pair, side), getattr(batched.sample.pair, side))
            for name in ("disparity", "valid", "depth", "occluded", "objects", "edges"):
                found, expected = (getattr(getattr(r, side), name) for r in (batched, alone))
                assert torch.equal(found, expected)


def test_working_on_few_rays_at_a_time_does_not_show(monkeypatch):
    stream = SyntheticStream(3, "general", size=SIZE)
    whole = stream.rendering(4)
    monkeypatch.setattr(module, "budget", lambda _: 1 << 9)
    parts = stream.rendering(4)
    assert torch.equal(whole.left.disparity, parts.left.disparity)
    assert torch.equal(whole.left.occluded, parts.left.occluded)
    assert torch.equal(whole.sample.pair.left, parts.sample.pair.left)


def rays(shape: Shape, rng: np.random.Generator, count: int = 256) -> Ray:
    """Rays from beside the shape towards its box."""
    origin = rng.uniform(-1, 1, 3) + np.array((0.0, 0.0, -2.5))
    origin = origin * 2 * max(shape.extent)
    aim = rng.uniform(-0.8, 0.8, (count, 3)) * np.array(shape.extent)
    return Ray(*(float(o) for o in origin), *torch.from_numpy(aim - origin).unbind(1))


@pytest.mark.parametrize("maker", sorted(MAKERS))
def test_shapes_of_a_kind_in_one_pass_are_met_as_each_alone(maker):
    """Also where they have fewer sides or waves than others."""
    shapes = [MAKERS[maker](np.random.default_rng(seed)) for seed in range(12)]
    shapes = [shape for shape in shapes if shape.kind == shapes[0].kind]
    each = [rays(shape, np.random.default_rng(n)) for n, shape in enumerate(shapes)]
    numbers = [n.movedim(0, -1)[..., None] for n in module._stacked(shapes, CPU)]
    origin = [torch.tensor([[ray[i]] for ray in each], dtype=torch.float64) for i in range(3)]
    together = Ray(*origin, *(torch.stack([ray[i] for ray in each]) for i in range(3, 6)))
    found = shapes[0].meet(together, *numbers)
    assert torch.isfinite(found).any()
    for shape, ray, t in zip(shapes, each, found, strict=True):
        assert torch.equal(torch.isinf(shape.intersect(ray)), torch.isinf(t))
        assert torch.allclose(shape.intersect(ray), t, rtol=1e-12)


def naive_prism(shape: Prism, origin: np.ndarray, direction: np.ndarray) -> float:
    """Where one ray meets an extruded outline, side by side."""
    ends = sorted((end - origin[2]) / direction[2] for end in (-shape.depth, shape.depth))
    x, y = (origin + ends[0] * direction)[:2]
    inside, best = False, math.inf
    for ax, ay, bx, by in shape.edges:
        if (y < ay) != (y < by) and x < ax + (y - ay) * (bx - ax) / (by - ay):
            inside = not inside
        ex, ey = bx - ax, by - ay
        across = direction[0] * ey - direction[1] * ex
        t = ((ax - origin[0]) * ey - (ay - origin[1]) * ex) / across
        along = ((ax - origin[0]) * direction[1] - (ay - origin[1]) * direction[0]) / across
        if 0 <= along <= 1 and ends[0] < t < ends[1] and t > 1e-4:
            best = min(best, t)
    return ends[0] if inside and ends[0] > 1e-4 else best


@pytest.mark.parametrize("maker", ["polygon", "gear", "leaf", "letter"])
def test_all_sides_of_an_outline_at_once_are_its_sides_one_by_one(maker):
    for seed in range(4):
        shape = MAKERS[maker](np.random.default_rng(seed))
        assert isinstance(shape, Prism)
        ray = rays(shape, np.random.default_rng(seed))
        origin = np.array(ray[:3])
        expected = [naive_prism(shape, origin, d) for d in torch.stack(ray[3:], dim=1).numpy()]
        found = shape.intersect(ray)
        assert torch.isfinite(found).sum() > 10
        assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9)


def test_a_ray_along_an_outlines_axis_meets_its_lid_or_goes_through_its_hole():
    ring = Prism(letter_outline("O"), 0.2)
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    assert ring.intersect(Ray(-0.5, 0.0, -2.0, zero, zero, one)).item() == pytest.approx(1.8)
    assert torch.isinf(ring.intersect(Ray(0.0, 0.0, -2.0, zero, zero, one)))


def test_of_two_solids_in_one_plane_the_later_is_seen_everywhere():
    """A fence that lies on the ground does not flicker with it."""
    turn = np.linalg.qr(np.array([[1.0, 0.2, 0.1], [0.0, 1.0, 0.4], [0.3, -0.2, 1.0]]))[0]
    ground = Solid(MAKERS["panel"](np.random.default_rng(0)), Pose.of((0, 0, 3), (2, 2, 2), turn))
    mat = Solid(MAKERS["panel"](np.random.default_rng(0)), Pose.of((0, 0, 3), (1, 1, 1), turn))
    rig = Rig(focal=1.0, baseline=0.1)
    alone = render_truth([mat], rig, SIZE, "left", device=CPU).objects == 0
    both = render_truth([ground, mat], rig, SIZE, "left", device=CPU).objects
    assert alone.sum() > 100
    assert (both[alone] == 1).float().mean() > 0.99


def test_tiles_of_any_size_of_image_are_put_together_again():
    image = torch.arange(2 * 21 * 30).view(2, 21, 30)
    grid = Grid((37, 30), 16, 37, 2)
    assert torch.equal(grid.image(grid.runs(image)), image)
    view, x, y = grid.points(CPU)
    assert torch.equal(grid.image(view[:, None].expand(x.shape))[1], torch.ones(21, 30, dtype=torch.int64))
    assert torch.equal(grid.image(x)[0, 0], torch.arange(30).double())
    assert torch.equal(grid.image(y)[1, :, 3], torch.arange(16, 37).double())
    assert grid.inside(CPU).sum() == image.numel()


def test_runs_hold_one_group_each_and_every_member_has_its_place():
    layout = Layout.of(np.array([3, 0, 130, 64]), CPU)
    assert layout.group.tolist() == [0, 2, 2, 2, 3]
    assert layout.starts.tolist() == [0, 1, 1, 4, 5]
    members = layout.member.view(-1)[layout.place]
    assert torch.equal(members, torch.arange(197))
    assert layout.member[0].unique().tolist() == [0, 1, 2]


def test_nothing_to_see_is_nothing_seen():
    assert targets([], Rig(focal=1.0, baseline=0.1).view(SIZE, "left")) == []
    assert Targets.of([], [Rig(focal=1.0, baseline=0.1).view(SIZE, "left")], CPU).kinds == ()
    truth = render_truth([], Rig(focal=1.0, baseline=0.1), SIZE, "left", device=CPU)
    assert torch.isinf(truth.depth).all()
    assert (truth.objects == -1).all()
