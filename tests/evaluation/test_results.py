"""Averaging on hand-made cases where per-pixel, per-image and per-data-set means differ; JSON and back."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from stereopsis.evaluation.measure import Curves, Figure
from stereopsis.evaluation.protocols import Averaging, Column, Part, Protocol
from stereopsis.evaluation.results import (
    Evaluation,
    Failure,
    Row,
    averages,
    read_evaluation,
    write_evaluation,
)

_CURVES = Curves((1, 2, 3), (), (math.nan, 0.5))


def _row(name: str, dataset: str, value: float, pixels: int) -> Row:
    return Row(
        part=0,
        name=name,
        dataset=dataset,
        figures=(Figure(value, pixels),),
        curves=_CURVES,
        seconds=0.5,
        size=(3, 4),
    )


_ROWS = (
    _row("a", "first", 1.0, 100),
    _row("b", "first", 3.0, 300),
    _row("c", "second", 8.0, 100),
    _row("d", "second", math.nan, 0),
)


def _protocol(averaging: Averaging, metric: str = "epe", **weights: float) -> Protocol:
    part = Part(dataset="x", split="y", columns=(Column(metric),), averaging=averaging, weights=weights)
    return Protocol(name="p", version=1, parts=(part,), comparable="nothing")


@pytest.mark.parametrize(
    ("averaging", "expected"),
    [
        ("images", (1 + 3 + 8) / 3),
        ("pixels", (1 * 100 + 3 * 300 + 8 * 100) / 500),
        ("datasets", ((1 + 3) / 2 + 8) / 2),
        ("weighted", (1 + 3 + 8 * 0.5) / 2.5),
    ],
)
def test_each_way_of_averaging_by_hand(averaging: Averaging, expected: float) -> None:
    (average,) = averages(_protocol(averaging, c=0.5), _ROWS)
    assert average.value == pytest.approx(expected)
    assert (average.images, average.empty) == (3, 1)


def test_what_is_no_mean_over_pixels_is_not_pooled() -> None:
    (average,) = averages(_protocol("pixels", "a90"), _ROWS)
    assert average.value == pytest.approx(4.0)


def test_no_number_at_all_gives_nan() -> None:
    (average,) = averages(_protocol("images"), _ROWS[3:])
    assert math.isnan(average.value)
    assert (average.images, average.empty) == (0, 1)


def test_evaluation_survives_json(tmp_path: Path) -> None:
    protocol = _protocol("images")
    evaluation = Evaluation(
        predictor="someone",
        protocol=protocol.label,
        parts=("x/y",),
        columns=(("epe all",),),
        averages=averages(protocol, _ROWS),
        rows=(*_ROWS, _row("e", "second", math.inf, 5)),
        failures=(Failure(0, "f", "broken"),),
        notes=("a note",),
        description=("what it means",),
    )
    write_evaluation(tmp_path / "e.json", evaluation)
    found = read_evaluation(tmp_path / "e.json")
    assert repr(found) == repr(evaluation)
    assert found.value("epe all") == pytest.approx(4.0)
    with pytest.raises(ValueError, match="epe all"):
        found.value("rms all")


def test_other_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text('{"format": "something"}')
    with pytest.raises(ValueError, match="no evaluation"):
        read_evaluation(tmp_path / "e.json")


def test_rows_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        _ROWS[0].name = "b"  # type: ignore[misc]
