from __future__ import annotations

import numpy as np
import pytest

from stereopsis.synthesis.composer import Composer
from stereopsis.synthesis.distributions import DISTRIBUTIONS
from stereopsis.synthesis.prism import Prism
from stereopsis.synthesis.vehicles import traffic, vehicle
from stereopsis.synthesis.visibility import Solid


def _composer(seed: int) -> Composer:
    composer = Composer(DISTRIBUTIONS["driving"], np.random.default_rng(seed), (60, 80))
    composer.floor = 1.5
    return composer


def _corners(solid: Solid) -> np.ndarray:
    """Of the box that holds it, [8 3] in the world."""
    signs = np.stack(np.meshgrid(*[(-1, 1)] * 3), axis=-1).reshape(-1, 3)
    return solid.pose.centre + (signs * np.array(solid.shape.extent)) @ solid.pose.linear.T


@pytest.mark.parametrize("seed", range(5))
def test_a_vehicle_stands_on_its_wheels_which_alone_touch_the_ground(seed: int) -> None:
    composer = _composer(seed)
    vehicle(composer, np.array((0.0, 1.5, 9.0)), heading=0.4, length=2.0)
    assert [solid.shape.name for solid in composer.solids] == ["polygon"] * 3 + ["cylinder"] * 2
    for wheels in composer.solids[3:]:
        assert _corners(wheels)[:, 1].max() == pytest.approx(1.5)
    for part in composer.solids[:3]:
        assert isinstance(part.shape, Prism)
        assert part.pose.centre[1] + 2.0 * max(y for _, y in part.shape.loops[0]) < 1.4
    body, cabin, roof = composer.solids[:3]
    paint, glass = (composer.materials[solid.material] for solid in (body, cabin))
    assert composer.materials[roof.material] is paint
    assert glass.mirror > 0
    assert max(glass.bias) < 0.11


@pytest.mark.parametrize("seed", range(5))
def test_traffic_keeps_its_distance_from_the_camera(seed: int) -> None:
    composer = _composer(seed)
    traffic(composer, 6)
    assert len(composer.solids) == 6 * 5
    assert min(_corners(solid)[:, 2].min() for solid in composer.solids) > composer.near
