"""Semi-global matching and a network as one: who answers where, how sure, and what cannot be asked."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from stereopsis.prediction.classical import SGBM
from stereopsis.prediction.loading import load, shipped_weights
from stereopsis.prediction.provenance import file_digest, provenance
from stereopsis.prediction.refined import RefinedSGBM
from stereopsis.structures import StereoOutput, StereoPair

_PAIR = StereoPair(torch.rand(3, 1, 4), torch.rand(3, 1, 4))


@dataclass
class _Answers:
    """What was prepared, whatever the pair."""

    disparity: list[float]
    confidence: list[float]

    def __call__(self, pair: StereoPair) -> StereoOutput:
        disparity = torch.tensor([self.disparity])
        return StereoOutput(disparity, torch.tensor([self.confidence]), right_disparity=disparity)


def _refined(matcher: _Answers, network: _Answers, **options: int) -> StereoOutput:
    return RefinedSGBM(matcher=matcher, network=network, **options)(_PAIR)


def _row(values: Tensor | None) -> list[float]:
    assert values is not None
    return values[0].tolist()


def test_close_answers_are_averaged_and_of_others_the_surer_is_taken() -> None:
    output = _refined(
        _Answers([10.0, 10.0, 10.0, float("inf")], [0.6, 0.9, 0.2, 0.0]),
        _Answers([11.0, 20.0, 20.0, 5.0], [0.2, 0.4, 0.8, 0.5]),
    )
    assert _row(output.disparity) == pytest.approx([10.25, 10.0, 20.0, 5.0])
    assert _row(output.confidence) == pytest.approx([0.6, 0.9 * 0.6, 0.8 * 0.8, 0.5])
    assert output.right_disparity is not None
    assert output.occluded is not None


def test_what_the_network_finds_beyond_the_range_asked_for_does_not_count() -> None:
    network = _Answers([9.0, 8.0, 7.0, 4.0], [1.0] * 4)
    output = _refined(_Answers([3.0] * 4, [0.1] * 4), network, max_disparity=8)
    assert _row(output.disparity) == pytest.approx([3.0, 8.0, 7.0, (0.3 + 4) / 1.1])


def test_it_is_loaded_by_its_name_with_fast_inside() -> None:
    pair = StereoPair(torch.rand(3, 48, 64), torch.rand(3, 48, 64))
    predictor = load("sgbm-refined", max_disparity=32, runtime="torch")
    output = predictor(pair)
    assert output.disparity.shape == (48, 64)
    assert output.confidence is not None
    assert 0 <= float(output.confidence.min()) <= float(output.confidence.max()) <= 1
    found = provenance(predictor, "sgbm-refined")
    assert (found.name, found.digest) == ("sgbm-refined", file_digest(shipped_weights("fast")))
    with pytest.raises(ValueError, match="sgbm-refined has no option 'mode'"):
        load("sgbm-refined", mode="hh")
    with pytest.raises(ValueError, match="sgbm-refined has no weights"):
        load("sgbm-refined", weights="other.safetensors")


def test_in_windows_the_matcher_searches_as_far_as_in_the_whole_pair() -> None:
    whole = RefinedSGBM(matcher=SGBM(), network=_Answers([], []))
    assert whole.for_width(800).matcher == SGBM(max_disparity=208)
