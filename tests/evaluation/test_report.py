"""The report: one file that needs nothing else, worst image first, pictures by value."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from fakes.predictors import ByName, write_scene
from stereopsis.evaluation.charts import histogram_chart, sparsification_chart
from stereopsis.evaluation.pictures import Pictures
from stereopsis.evaluation.protocols import dataset_protocol
from stereopsis.evaluation.report import write_report
from stereopsis.evaluation.results import Evaluation
from stereopsis.evaluation.run import evaluate
from stereopsis.visual import KITTI_COLOURS


@pytest.fixture
def measured(tmp_path: Path) -> tuple[Evaluation, Pictures]:
    write_scene(tmp_path / "data", "fine", truth=10.0)
    write_scene(tmp_path / "data", "worse<b>", truth=10.0)
    known = np.zeros((12, 16), bool)
    known[3, 5] = True
    write_scene(tmp_path / "data", "worst & sparse", truth=10.0, known=known)
    write_scene(tmp_path / "data", "broken", truth=10.0)
    pictures = Pictures(tmp_path / "pictures")
    evaluation = evaluate(
        ByName({"fine": 10.0, "worse<b>": 14.0, "worst & sparse": 90.0}),
        dataset_protocol("scenes", "all"),
        name="someone <1>",
        roots={"scenes": tmp_path / "data"},
        observe=pictures.add,
    )
    return evaluation, pictures


class _Checker(HTMLParser):
    """Collects tags, and fails where one is closed that is not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_report_is_whole_and_self_contained(measured: tuple[Evaluation, Pictures], tmp_path: Path) -> None:
    evaluation, pictures = measured
    write_report(tmp_path / "r.html", evaluation, pictures)
    text = (tmp_path / "r.html").read_text()
    checker = _Checker()
    checker.feed(text)
    assert checker.open == []
    assert checker.seen.count("img") == 3 * 5
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert "worse&lt;b&gt;" in text
    assert "worse<b>" not in text
    assert "no disparity of broken" in text
    assert "1 of 4 images FAILED" in text
    scenes = re.findall(r'<div class="scene"><b>([^<]*)</b>', text)
    assert scenes == ["worst &amp; sparse", "worse&lt;b&gt;", "fine"]


def _pictures_of(text: str, kind: str) -> list[np.ndarray]:
    found = re.findall(rf'alt="{kind} of [^"]*" src="data:image/\w+;base64,([^"]+)"', text)
    return [
        cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR_RGB) for data in found
    ]


def test_errors_have_one_scale(measured: tuple[Evaluation, Pictures], tmp_path: Path) -> None:
    evaluation, pictures = measured
    write_report(tmp_path / "r.html", evaluation, pictures)
    sparse, worse, fine = _pictures_of((tmp_path / "r.html").read_text(), "error")
    assert (fine == KITTI_COLOURS[0]).all()
    assert (worse == KITTI_COLOURS[5]).all()
    assert (sparse[3, 5] == KITTI_COLOURS[9]).all()
    assert sparse.any(-1).sum() == 1


def test_charts_show_the_counts(measured: tuple[Evaluation, Pictures]) -> None:
    evaluation, _ = measured
    chart = histogram_chart(evaluation.rows)
    total = 192 + 192 + 1
    for count in (192, 192, 1):
        assert f">{100 * count / total:.1f}<" in chart
    assert "by confidence" in sparsification_chart(evaluation.rows)
    assert sparsification_chart([]) == ""


def test_wide_sparse_truth_keeps_its_worst_pixel(tmp_path: Path) -> None:
    known = np.zeros((30, 900), bool)
    known[7, 401] = True
    write_scene(tmp_path / "data", "wide", truth=10.0, size=(30, 900), known=known)
    pictures = Pictures(tmp_path / "pictures")
    evaluation = evaluate(
        ByName({"wide": 60.0}),
        dataset_protocol("scenes", "all"),
        name="n",
        roots={"scenes": tmp_path / "data"},
        observe=pictures.add,
    )
    content = pictures.get(evaluation.rows[0], "error")
    assert content is not None
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert picture.shape == (10, 300, 3)
    assert (picture[7 // 3, 401 // 3] == KITTI_COLOURS[9]).all()
    pictures.remove()
    assert pictures.get(evaluation.rows[0], "error") is None
