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
    """What was prepared for a pair of four pixels; of a smaller one a disparity in this pair's pixels."""

    disparity: list[float]
    confidence: list[float]
    smaller: tuple[float, float] = (0.0, 0.0)
    least_pixels: int = 0

    def __call__(self, pair: StereoPair) -> StereoOutput:
        disparity = torch.tensor([self.disparity])
        return StereoOutput(disparity, torch.tensor([self.confidence]), right_disparity=disparity)

    def at_size(self, pair: StereoPair) -> StereoOutput:
        disparity, confidence = self.smaller
        return StereoOutput(
            torch.full(pair.size, disparity * pair.size[1] / 4), torch.full(pair.size, confidence)
        )


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
    surest = [0.6, 0.9 * 0.9 / 1.3, 0.8 * 0.8, 0.5]
    assert _row(output.confidence) == pytest.approx(surest)
    assert output.right_disparity is not None
    assert output.occluded is not None


def test_two_that_agree_outvote_a_surer_one_but_the_smaller_pair_hardly_says_where() -> None:
    network = _Answers([20.0, 20.0, 11.0, 30.0], [0.4, 0.1, 0.4, 0.3], smaller=(21.0, 0.4))
    output = _refined(_Answers([10.0] * 4, [0.6] * 4), network)
    both = (0.4 * 20 + 0.3 * 0.4 * 21) / (0.4 + 0.3 * 0.4)
    assert _row(output.disparity) == pytest.approx([both, 10.0, 10.4, 21.0])
    shares = [0.8 / 1.4, 0.6 / 1.1, 1.0 / 1.4, 0.4 / 1.3]
    surest = [0.4, 0.6, 0.6, 0.4]
    confidence = [share * certainty for share, certainty in zip(shares, surest, strict=True)]
    assert _row(output.confidence) == pytest.approx(confidence)


def test_small_pairs_are_made_smaller_than_what_the_network_enlarges_them_to() -> None:
    seen: list[tuple[int, int]] = []

    class Watching(_Answers):
        def at_size(self, pair: StereoPair) -> StereoOutput:
            seen.append(pair.size)
            return super().at_size(pair)

    answers = [1.0] * 4, [1.0] * 4
    _refined(_Answers(*answers), Watching(*answers))
    _refined(_Answers(*answers), Watching(*answers, least_pixels=9))
    assert seen == [(1, 3), (1, 4)]


def test_what_the_network_finds_beyond_the_range_asked_for_does_not_count() -> None:
    network = _Answers([9.0, 8.0, 7.0, 4.0], [1.0] * 4, smaller=(9.0, 1.0))
    output = _refined(_Answers([3.0] * 4, [0.1] * 4), network, max_disparity=8)
    assert _row(output.disparity) == pytest.approx([3.0, 8.0, 7.0, (0.3 + 4) / 1.1])
    unsure = _refined(_Answers([3.0] * 4, [0.0] * 4), network, max_disparity=8)
    assert _row(unsure.disparity)[0] == pytest.approx(3.0)


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
