"""The weights that come with the package: what they know, and that their exports are of them."""

from __future__ import annotations

from functools import cache

import pytest

from stereopsis.metrics.disparity import bad, epe
from stereopsis.prediction.loading import load, shipped_weights
from stereopsis.structures import StereoSample
from stereopsis.synthesis import SyntheticStream

NETWORKS = ("fast", "fast-tiny")


@cache
def unseen() -> StereoSample:
    """A rendered pair of a seed that no training had."""
    return SyntheticStream(4321, "general", size=(240, 320))[1]


@pytest.mark.parametrize("name", NETWORKS)
def test_shipped_weights_match_a_pair_that_they_never_saw(name: str) -> None:
    sample = unseen()
    assert sample.disparity is not None
    disparity = load(name, runtime="torch")(sample.pair).disparity
    guess = sample.disparity[sample.valid].median().expand(sample.disparity.shape)
    errors = [epe(answer, sample.disparity, sample.valid) for answer in (disparity, guess)]
    assert errors[0] < 0.2 * errors[1]
    assert bad(disparity, sample.disparity, sample.valid, threshold=2.0) < 0.15


@pytest.mark.parametrize("name", NETWORKS)
def test_exports_that_ship_answer_as_the_weights_beside_them(name: str) -> None:
    pytest.importorskip("openvino")
    expected = load(name, runtime="torch")(unseen().pair)
    for suffix, close, share in ((".xml", 1e-3, 0.999), ("-int8.xml", 0.5, 0.9)):
        path = shipped_weights(name).with_name(f"{name}{suffix}")
        exported = load(path, precision="float32")(unseen().pair)
        near = (exported.disparity - expected.disparity).abs() <= close
        assert near.float().mean() >= share
