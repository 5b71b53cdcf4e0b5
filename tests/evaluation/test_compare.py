"""Paired differences by hand, their intervals, and what cannot be compared."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from fakes.predictors import ByName, write_scene
from stereopsis.evaluation.compare import Comparison, Difference, changes_table, compare, comparison_table
from stereopsis.evaluation.protocols import dataset_protocol, protocol_of
from stereopsis.evaluation.results import Evaluation, Failure, averages
from stereopsis.evaluation.run import evaluate


def _evaluation(root: Path, predictor: str, disparities: dict[str, float]) -> Evaluation:
    return evaluate(
        ByName(disparities), dataset_protocol("scenes", "all"), name=predictor, roots={"scenes": root}
    )


def _pair(root: Path, first: dict[str, float], second: dict[str, float]) -> tuple[Evaluation, Evaluation]:
    for name in first:
        write_scene(root, name, truth=10.0, dataset=name[0])
    return _evaluation(root, "a", first), _evaluation(root, "b", second)


def _of(comparison: Comparison, column: str) -> Difference:
    return next(d for d in comparison.differences if d.column == column)


def test_differences_by_hand(tmp_path: Path) -> None:
    evaluations = _pair(tmp_path, {"x": 11.0, "y": 12.0, "z": 10.0}, {"x": 10.5, "y": 11.0, "z": 10.25})
    epe = _of(compare(*evaluations), "epe all")
    assert (epe.first, epe.second) == (1.0, pytest.approx((0.5 + 1 + 0.25) / 3))
    assert epe.difference == pytest.approx((-0.5 - 1 + 0.25) / 3)
    assert (epe.lower, epe.higher, epe.images, epe.units) == (2, 1, 3, "3 images")
    assert -1 <= epe.low < epe.difference < epe.high <= 0.25


def test_equal_differences_have_a_point_as_interval(tmp_path: Path) -> None:
    evaluations = _pair(tmp_path, {"x": 11.0, "y": 12.0}, {"x": 11.5, "y": 12.5})
    epe = _of(compare(*evaluations), "epe all")
    assert (epe.low, epe.high) == (pytest.approx(0.5), pytest.approx(0.5))


def test_interval_covers_the_mean_of_many_as_often_as_it_says(tmp_path: Path) -> None:
    """Rows of two evaluations with random figures, whose true mean difference is 0.3."""
    (first, second) = _pair(tmp_path, {"x": 11.0}, {"x": 11.5})
    place = first.columns[0].index("epe all")
    random = np.random.default_rng(0)

    def with_figures(evaluation: Evaluation, values: np.ndarray) -> Evaluation:
        template = evaluation.rows[0]
        rows = []
        for number, value in enumerate(values):
            figures = list(template.figures)
            figures[place] = dataclasses.replace(figures[place], value=float(value))
            rows.append(dataclasses.replace(template, name=f"{number}", figures=tuple(figures)))
        return dataclasses.replace(evaluation, rows=tuple(rows))

    covered = 0
    for _ in range(60):
        base = random.normal(2, 1, 40)
        pair = with_figures(first, base), with_figures(second, base + random.normal(0.3, 0.5, 40))
        found = _of(compare(*pair, resamples=500), "epe all")
        covered += found.low <= 0.3 <= found.high
    assert 52 <= covered <= 60


def test_data_sets_are_the_units_where_the_protocol_averages_over_them(shared_data: Path) -> None:
    label = protocol_of("open/1")
    names = [
        ("a1", "a", 1.0, 2.0),
        ("a2", "a", 3.0, 3.0),
        ("b1", "b", 5.0, 9.0),
    ]
    row = evaluate(
        ByName({"middlebury2001_venus": 5.0}),
        label,
        name="n",
        roots={"open": shared_data / "real"},
    ).rows[0]

    def made(which: int) -> Evaluation:
        rows = []
        for name, dataset, *values in names:
            figures = (dataclasses.replace(row.figures[0], value=values[which]), *row.figures[1:])
            rows.append(dataclasses.replace(row, name=name, dataset=dataset, figures=figures))
        columns = (tuple(column.name for column in label.parts[0].columns),)
        return Evaluation(
            predictor=f"p{which}",
            protocol=label.label,
            parts=("open/truth",),
            columns=columns,
            averages=averages(label, rows),
            rows=tuple(rows),
        )

    found = _of(compare(made(0), made(1)), "epe all")
    assert found.units == "2 data sets"
    assert (found.first, found.second) == (pytest.approx(3.5), pytest.approx(5.75))
    assert (found.low, found.high) == (pytest.approx(0.5), pytest.approx(4.0))


def test_what_is_not_in_both_is_said(tmp_path: Path) -> None:
    first, second = _pair(tmp_path, {"x": 11.0, "y": 12.0}, {"x": 11.5})
    found = compare(first, second)
    assert "1 images are only in a and are left out" in found.notes
    assert "1 images failed with b" in found.notes
    epe = _of(found, "epe all")
    assert epe.images == 1
    assert math.isnan(epe.low)
    assert second.failures == (Failure(0, "y", "no disparity of y"),)


def test_other_protocols_are_refused(tmp_path: Path) -> None:
    first, second = _pair(tmp_path, {"x": 11.0}, {"x": 11.5})
    with pytest.raises(ValueError, match="only figures of one protocol"):
        compare(first, dataclasses.replace(second, protocol="open/1"))
    with pytest.raises(ValueError, match="another version"):
        protocol_of("open/99")


def test_table_has_a_line_per_column(tmp_path: Path) -> None:
    first, second = _pair(tmp_path, {"x": 11.0, "y": 12.0}, {"x": 11.5, "y": 12.0})
    table = comparison_table(compare(first, second), part=0, title="t")
    assert table.row_count == len(compare(first, second).differences) > 10


def test_images_that_changed_most_are_at_the_ends(tmp_path: Path) -> None:
    names = ["v", "w", "x", "y", "z"]
    first = dict.fromkeys(names, 10.0)
    second = dict(zip(names, (10.0, 13.0, 11.0, 10.5, 12.0), strict=True))
    table = changes_table(*_pair(tmp_path, first, second), part=0, count=1)
    assert list(table.columns[0].cells) == ["v", "w"]
    assert list(table.columns[3].cells) == ["0.000", "3.000"]
