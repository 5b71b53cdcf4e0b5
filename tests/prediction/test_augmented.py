"""Test-time augmentation: every variant comes back to the pair's own pixels, and outliers do not count."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch

from stereopsis.prediction.augmented import Augmented, Variants, consensus, spread
from stereopsis.structures import StereoOutput, StereoPair


@dataclass(frozen=True)
class Rows:
    """Disparity that depends on the row's brightness and on the width, as true disparity would."""

    def __call__(self, pair: StereoPair) -> StereoOutput:
        disparity = pair.left.mean(0) * pair.size[1]
        return StereoOutput(disparity, torch.full_like(disparity, 0.8))


def _pair() -> StereoPair:
    rows = torch.linspace(0.1, 0.4, 16)[None, :, None].expand(3, 16, 24).contiguous()
    return StereoPair(rows, rows)


def test_variants_agree_where_the_predictor_does_not_care() -> None:
    output = Augmented(Rows(), Variants(flip=True, scales=(2.0,)))(_pair())
    torch.testing.assert_close(output.disparity, Rows()(_pair()).disparity, atol=0.15, rtol=0.0)
    assert output.confidence is not None
    assert float(output.confidence.min()) > 0.8 / (1 + 0.2)
    assert float(output.confidence.max()) <= 0.8 + 1e-6


def test_light_that_changes_the_answer_lowers_the_confidence() -> None:
    output = Augmented(Rows(), Variants(gammas=(0.5, 2.0)))(_pair())
    assert output.confidence is not None
    assert float(output.confidence.max()) < 0.6


def test_an_outlier_does_not_move_the_consensus() -> None:
    answers = torch.tensor([[[10.0, 4.0, 1.0]], [[10.4, 40.0, math.inf]], [[10.2, 4.2, math.inf]]])
    torch.testing.assert_close(consensus(answers), torch.tensor([[10.2, 4.1, math.inf]]))
    assert spread(answers)[0, 2] == math.inf
    assert float(spread(answers)[0, 0]) == pytest.approx(0.4 / math.sqrt(6), rel=1e-3)


@pytest.mark.parametrize("variants", [{"scales": (1.0,)}, {"scales": (0.0,)}, {"gammas": (20.0,)}])
def test_impossible_variants_are_refused(variants: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ValueError, match="to average over must lie between"):
        Variants(**variants)
