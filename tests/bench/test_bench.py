"""A bench from rows to files: processes of their own, interleaved runs, failures that do not stop others."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from stereopsis.bench import latency
from stereopsis.bench.contender import Contender, contender
from stereopsis.bench.latency import Plan, Row, measure
from stereopsis.bench.machine import describe_machine
from stereopsis.bench.reference import REFERENCES
from stereopsis.bench.report import bench_table, write_bench
from stereopsis.bench.throughput import multiply_adds, parameters
from stereopsis.cli.main import main
from stereopsis.models.registry import create, entry
from stereopsis.prediction.memory import peak_resident_bytes
from stereopsis.prediction.network import NetworkPredictor
from stereopsis.structures import StereoPair

_PLAN = Plan(size=(48, 64), threads=1, warmups=2, runs=3)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    told: list[str] = []
    contenders = [
        contender("opencv-bm"),
        Contender(name="gone", predictor="gone.onnx"),
        Contender(name="fast", predictor="fast", options={"width": 8, "depth": 1}, random=True),
    ]
    rows = measure(contenders, _PLAN, observe=told.append)
    assert told[-3:] == ["run 1 of 3", "run 2 of 3", "run 3 of 3"]
    return rows


def test_every_contender_is_measured_in_its_own_process(rows: list[Row]) -> None:
    matcher, _, network = rows
    for row in (matcher, network):
        assert row.error == ""
        assert len(row.seconds) == len(row.cpu_seconds) == 3
        assert min(row.seconds) > 0
        assert row.peak_bytes >= row.imported_bytes > 1e7
    assert matcher.runtime.startswith("OpenCV")
    assert matcher.parameters is None
    assert network.runtime.startswith("PyTorch")
    assert network.parameters == sum(p.numel() for p in create("fast", width=8, depth=1).parameters())
    assert network.multiply_adds is not None
    assert network.multiply_adds > 1e6


def test_a_contender_that_fails_says_why(rows: list[Row]) -> None:
    assert "gone.onnx" in rows[1].error
    assert rows[1].seconds == ()


def test_rows_become_a_table_and_json(rows: list[Row], tmp_path: Path) -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(bench_table(rows, _PLAN))
    shown = console.export_text()
    assert "64x48, 1 threads" in shown
    assert "fast (random weights)" in shown
    assert "failed: " in shown
    machine = describe_machine()
    write_bench(tmp_path / "b.json", rows, _PLAN, command="stereopsis bench", before=machine, after=machine)
    kept = json.loads((tmp_path / "b.json").read_text())
    assert kept["command"] == "stereopsis bench"
    assert kept["machine"]["cores"] >= 1
    assert len(kept["machine"]["load_average"]) == 3
    assert kept["rows"][0]["summary"]["median"] == pytest.approx(np.median(rows[0].seconds))
    assert "summary" not in kept["rows"][1]


def test_in_a_pipe_the_table_is_as_wide_as_it_needs_and_a_failure_ends_with_an_error(
    rows: list[Row], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(latency, "measure", lambda *_, **__: rows)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["bench", "opencv-bm"]) == 2
    said = capsys.readouterr().out
    assert "median ms" in said
    assert "failed: " in said


def test_slow_contenders_run_less_and_all_take_turns() -> None:
    turns: list[str] = []

    class Fake:
        def __init__(self, name: str, *, slow: bool) -> None:
            self.name, self.slow = name, slow

        def warm_up(self) -> None:
            turns.append(f"warm {self.name}")

        def run(self) -> None:
            turns.append(self.name)

        def finish(self) -> Row:
            return Row(contender=contender("opencv-bm"))

    racers: Any = [Fake("a", slow=False), Fake("b", slow=True)]
    latency.race(racers, Plan(size=(48, 64), warmups=2, runs=3, slow_runs=1), lambda _: None)
    assert turns == ["warm a", "warm b", "warm a", "a", "b", "a", "a"]


@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_reference_rows_match(name: str) -> None:
    left, right = (torch.rand(3, 60, 320, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    left, right = left[..., :-16], right[..., 16:]  # a shift of 16 pixels
    output = REFERENCES[name]()(StereoPair(left.roll(16, -1), right.roll(16, -1)))
    assert output.disparity.shape == (60, 304)
    known = output.disparity.isfinite()
    assert output.confidence is not None
    assert torch.equal(known, output.confidence == 1)


def test_multiply_adds_are_of_the_padded_pair() -> None:
    """One convolution alone, counted by hand: stem of fast, 7x7x3 to 8 channels at a quarter, two images."""
    network = NetworkPredictor(create("fast", **entry("fast").tiny))  # pyright: ignore[reportArgumentType]
    small, padded = (
        multiply_adds(network, StereoPair(torch.zeros(3, *size), torch.zeros(3, *size)))
        for size in ((40, 60), (64, 64))
    )
    assert small == padded
    assert small is not None
    assert small > 2 * 16 * 16 * 8 * 3 * 49


def test_a_network_answers_after_its_multiply_adds_were_counted() -> None:
    network = NetworkPredictor(create("fast", **entry("fast").tiny))  # pyright: ignore[reportArgumentType]
    pair = StereoPair(torch.zeros(3, 64, 64), torch.zeros(3, 64, 64))
    assert multiply_adds(network, pair)
    assert network.at_size(pair).disparity.shape == (64, 64)


def test_networks_without_shipped_weights_are_measured_with_random_ones() -> None:
    found = contender("stereonet-gray")
    assert found.random
    assert Contender.from_json(found.to_json()) == found
    assert parameters(found.build()) == sum(p.numel() for p in create("stereonet-gray").parameters())
    with pytest.raises(ValueError, match="monocular"):
        contender("depth-anything-v2-small")
    with pytest.raises(ValueError, match="no network is called 'stereonot'"):
        contender("stereonot")


def test_peak_memory_grows_with_what_is_touched() -> None:
    before = peak_resident_bytes()
    block = np.ones(300_000_000, np.uint8)
    assert peak_resident_bytes() >= before
    assert peak_resident_bytes() >= block.nbytes
