"""A fitted certainty is a probability, rises with its score, and travels with the weights."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import stereopsis
from stereopsis.io.weights import WeightsHeader, read_header, write_weights
from stereopsis.labelling.calibrate import best, fitted, quality, store
from stereopsis.models.registry import create
from stereopsis.prediction.certainty import (
    CUES,
    Certainty,
    Observations,
    available_cues,
    fit,
    isotonic,
    logistic,
)
from stereopsis.prediction.network import NetworkPredictor
from stereopsis.structures import (
    IterativeOutput,
    MixtureOutput,
    StereoOutput,
    StereoPair,
    StereoSample,
    VolumeOutput,
)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31), count=st.integers(2, 400), levels=st.integers(1, 50))
def test_the_curve_rises_and_keeps_the_mean(seed: int, count: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    score = rng.integers(0, levels, count) / 7.0
    right = (rng.random(count) < 0.5).astype(np.float64)
    knots, values = isotonic(score, right, bins=20)
    assert (np.diff(knots) > 0).all()
    assert (np.diff(values) > 0).all()
    assert values.min() >= 0
    assert values.max() <= 1


def test_the_curve_is_the_pooled_one() -> None:
    score = np.arange(6.0)
    knots, values = isotonic(score, np.array([0.0, 1.0, 0.0, 1.0, 1.0, 1.0]))
    np.testing.assert_allclose(knots, [0.0, 1.5, 4.0])
    np.testing.assert_allclose(values, [0.0, 0.5, 1.0])


def test_logistic_regression_finds_the_weights_that_made_the_data() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40_000, 2)) * [1.0, 5.0] + [0.0, 3.0]
    odds = features @ [1.5, -0.4] + 0.7
    right = (rng.random(40_000) < 1 / (1 + np.exp(-odds))).astype(np.float64)
    weights, intercept = logistic(features, right)
    np.testing.assert_allclose(weights, [1.5, -0.4], atol=0.05)
    assert intercept == pytest.approx(0.7, abs=0.08)


def _answered(seed: int, count: int = 4) -> list[tuple[StereoSample, StereoOutput]]:
    """Pairs whose confidence c is right with probability c² and says nothing else."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        image = torch.rand(3, 40, 60, generator=generator)
        truth = torch.rand(40, 60, generator=generator) * 8
        confidence = torch.rand(40, 60, generator=generator)
        right = torch.rand(40, 60, generator=generator) < confidence**2
        disparity = torch.where(right, truth, truth + 5)
        sample = StereoSample(StereoPair(image, image), truth, torch.ones(40, 60, dtype=torch.bool))
        found.append((sample, StereoOutput(disparity, confidence)))
    return found


def test_a_fit_makes_a_probability_of_a_number_on_pairs_that_it_has_not_seen() -> None:
    fitting, held = _answered(0), _answered(1)
    certainty = fitted(fitting, cues=["own"])
    before, after = quality(held), quality(held, certainty)
    assert before.ece > 0.1
    assert after.ece < 0.03
    assert after.auroc == pytest.approx(before.auroc, abs=0.01)
    assert after.ause < after.random
    chosen, measured = best(fitting, held)
    assert "own" in chosen.cues
    assert measured.ece < 0.03


def test_confidence_is_zero_where_nothing_is_known() -> None:
    certainty = fitted(_answered(0), cues=["own"])
    pair = StereoPair(torch.rand(3, 8, 8), torch.rand(3, 8, 8))
    disparity = torch.ones(8, 8)
    disparity[0, 0], disparity[1, 1] = math.inf, math.nan
    own = torch.ones(8, 8)
    own[2, 2] = math.nan
    sure = certainty(pair, StereoOutput(disparity, own))
    assert sure[0, 0] == sure[1, 1] == 0
    assert float(sure[2, 2]) < float(sure[3, 3])
    assert bool(((sure >= 0) & (sure <= 1)).all())


def test_cues_are_there_for_the_outputs_that_have_them() -> None:
    pair = StereoPair(torch.rand(1, 3, 16, 32), torch.rand(1, 3, 16, 32))
    disparity = torch.rand(1, 16, 32) * 4
    always = {"photometric", "outside", "texture", "roughness"}
    outputs = {
        StereoOutput(disparity): set(),
        StereoOutput(disparity, disparity / 4, right_disparity=disparity): {"own", "left-right"},
        VolumeOutput(disparity, probabilities=torch.rand(1, 6, 4, 8).softmax(1)): {
            "entropy",
            "peak-ratio",
            "unimodality",
        },
        IterativeOutput(disparity, iterates=(disparity, disparity)): {"convergence"},
        MixtureOutput(disparity, mu=disparity[:, None], b=disparity[:, None]): {"mixture"},
    }
    for output, own in outputs.items():
        names = available_cues(pair, output)
        assert set(names) == always | own
        for name in names:
            value = CUES[name](pair, output)
            assert value is not None
            assert value.shape == disparity.shape
            assert bool(value.isfinite().all())


def test_what_was_fitted_travels_with_the_weights(tmp_path) -> None:
    path = tmp_path / "a.safetensors"
    model = create("stereonet", downsamplings=3, refinements=1, max_disparity=32)
    header = WeightsHeader(network="stereonet", config=dataclasses.asdict(model.config))
    write_weights(path, model.state_dict(), header)
    pair = StereoPair(torch.rand(3, 32, 64), torch.rand(3, 32, 64))
    bare = stereopsis.load(path)(pair)
    certainty = dataclasses.replace(fitted(_answered(0), cues=["own"]), facts={"pairs": 4})
    store(path, certainty)
    found = read_header(path)
    assert found is not None
    assert Certainty.from_plain(found.certainty) == certainty
    predictor = stereopsis.load(path)
    assert isinstance(predictor, NetworkPredictor)
    output = predictor(pair)
    torch.testing.assert_close(output.disparity, bare.disparity)
    assert output.confidence is not None
    torch.testing.assert_close(output.confidence, certainty(pair, bare), atol=1e-5, rtol=0)


def test_nonsense_is_refused() -> None:
    good = fitted(_answered(0), cues=["own"])
    with pytest.raises(ValueError, match="no cue 'luck'"):
        dataclasses.replace(good, cues=("luck",))
    with pytest.raises(ValueError, match="must rise"):
        dataclasses.replace(good, knots=good.knots[::-1])
    with pytest.raises(ValueError, match="not whole"):
        Certainty.from_plain({"cues": ["own"]})
    with pytest.raises(ValueError, match="what the confidence cue 'entropy' needs"):
        dataclasses.replace(good, cues=("entropy",))(*_as_call(_answered(0)[0]))
    everything = Observations({"own": np.zeros(4)}, np.ones(4))
    with pytest.raises(ValueError, match="all right, or all wrong"):
        fit(everything, everything, cues=["own"], facts={})
    with pytest.raises(ValueError, match="at least 2 pairs"):
        fitted(_answered(0)[:1])


def _as_call(answered: tuple[StereoSample, StereoOutput]) -> tuple[StereoPair, StereoOutput]:
    return answered[0].pair, answered[1]
