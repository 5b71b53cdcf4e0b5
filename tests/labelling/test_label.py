"""A set is the same however often its making was killed, and however many made it."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fakes.labelling import order, snapshot, write_planes
from stereopsis.data.dataset import StereoDataset
from stereopsis.data.sources.registry import list_pairs
from stereopsis.io.labels import list_records, pair_folder, read_record, read_set
from stereopsis.labelling import label as module
from stereopsis.labelling.engine import SharedFolder
from stereopsis.labelling.filters import Filters
from stereopsis.labelling.label import CLAIMS, Order, forget_failures, label
from stereopsis.labelling.report import write_summary

_COUNT = 6
_fork = multiprocessing.get_context("fork")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_planes(tmp_path / "pairs", _COUNT)


def _run(wanted: Order) -> list[str]:
    engine = SharedFolder(folder=wanted.output / CLAIMS, expiry=2.0, poll=0.02)
    names = [record.name for record in label(wanted, engine=engine)]
    write_summary(wanted.output, engine=engine)
    return names


def _logged(wanted: Order, log: Path) -> None:
    """A run in a process of its own that notes every pair it finishes."""
    work: Callable[..., object] = module.label_pair

    def noted(*arguments: object) -> object:
        record = work(*arguments)
        with log.open("a") as file:
            file.write(f"{getattr(record, 'name', '')}\n")
        return record

    module.label_pair = noted  # pyright: ignore[reportAttributeAccessIssue]
    _run(wanted)
    os._exit(0)


def test_labels_read_back_as_samples_with_confidence_as_weight(pairs: Path, tmp_path: Path) -> None:
    assert sorted(_run(order(pairs, tmp_path / "set"))) == sorted(_run(order(pairs, tmp_path / "set")))
    samples = list(StereoDataset(list_pairs("labelled", root=tmp_path / "set")))
    assert [sample.info[0].name for sample in samples] == sorted(s.info[0].name for s in samples)
    assert len(samples) == _COUNT
    wanted = order(pairs, tmp_path / "set")
    for sample in samples:
        output = wanted.teacher(sample.pair)
        reasons = wanted.filters.reasons(sample.pair, module._answer(wanted.teacher, sample.pair))
        assert bool((sample.valid == (reasons == 0)).all())
        assert bool((sample.disparity[sample.valid] == output.disparity[sample.valid]).all())
        assert sample.weight is not None
        assert float((sample.weight - output.confidence).abs().max()) <= 0.5 / 255 + 1e-6


def test_records_say_where_labels_come_from(pairs: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    _run(order(pairs, root))
    settings = read_set(root)
    assert settings["teacher"]["name"] == "reading"
    assert settings["filters"]["left_right"] == 1.0
    record = read_record(root, "deep/plane1")
    assert (root / record.left).resolve() == (pairs / "deep/plane1/left.png").resolve()
    assert len(record.digests[0]) == 64
    assert 0 < record.kept < 1
    assert record.rejected["confidence"] == pytest.approx(0.5, abs=0.02)
    report = (root / "report.html").read_text()
    assert report.count("data:image/") == 5 * _COUNT
    summary = json.loads((root / "summary.json").read_text())
    assert (summary["pairs"], summary["labelled"]) == (_COUNT, _COUNT)


def test_killed_at_any_moment_the_next_run_gives_the_same(pairs: Path, tmp_path: Path) -> None:
    _run(order(pairs, tmp_path / "whole"))
    _killed_often(pairs, tmp_path, times=4, seconds=0.03, longest=0.25)


@pytest.mark.slow
def test_killed_ten_times_the_next_run_gives_the_same(pairs: Path, tmp_path: Path) -> None:
    _run(order(pairs, tmp_path / "whole"))
    for attempt in range(3):
        (tmp_path / str(attempt)).mkdir()
        _killed_often(pairs, tmp_path / str(attempt), times=10, seconds=0.05, longest=0.4, whole=tmp_path)


def _killed_often(
    pairs: Path, tmp_path: Path, *, times: int, seconds: float, longest: float, whole: Path | None = None
) -> None:
    chance = random.Random(0)
    log, root = tmp_path / "log", tmp_path / "set"
    wanted = order(pairs, root, seconds=seconds)
    for _ in range(times):
        process = _fork.Process(target=_logged, args=(wanted, log))
        process.start()
        process.join(chance.uniform(0.01, longest))
        process.kill()
        process.join()
    _run(wanted)
    finished = log.read_text().split() if log.exists() else []
    assert len(finished) == len(set(finished))
    assert not (root / CLAIMS).exists()
    assert _same_but_for_the_paths(snapshot(root), snapshot((whole or tmp_path) / "whole"))


def _same_but_for_the_paths(first: dict[str, bytes], second: dict[str, bytes]) -> bool:
    """Sets at other depths name the same images by other relative paths."""
    if first.keys() != second.keys():
        return False
    return all(
        content.replace(b"../", b"") == second[name].replace(b"../", b"") for name, content in first.items()
    )


def test_three_side_by_side_and_one_killed_give_the_same_once(pairs: Path, tmp_path: Path) -> None:
    _run(order(pairs, tmp_path / "whole"))
    log = tmp_path / "log"
    wanted = order(pairs, tmp_path / "set", seconds=0.05)
    processes = [_fork.Process(target=_logged, args=(wanted, log)) for _ in range(3)]
    for process in processes:
        process.start()
    time.sleep(0.12)
    assert processes[0].pid is not None
    os.kill(processes[0].pid, signal.SIGKILL)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes[1:]] == [0, 0]
    assert snapshot(tmp_path / "set") == snapshot(tmp_path / "whole")
    finished = log.read_text().split()
    assert len(finished) == len(set(finished))
    assert len(finished) >= _COUNT - 1  # one may have died between its record and its note


def test_finished_pairs_are_left_alone(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = order(pairs, tmp_path / "set")
    _run(wanted)

    def never(*_: object) -> None:
        raise AssertionError("labelled again")

    monkeypatch.setattr(module, "label_pair", never)
    assert len(_run(wanted)) == _COUNT


def test_a_corrupt_pair_is_told_and_tried_again_when_it_changes(pairs: Path, tmp_path: Path) -> None:
    broken = pairs / "plane0" / "left.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:200])
    wanted = order(pairs, tmp_path / "set")
    assert len(_run(wanted)) == _COUNT
    record = read_record(wanted.output, "plane0")
    assert record.status == "failed"
    assert "left.png" in record.failure
    assert "truncated" in record.failure
    assert len(list_pairs("labelled", root=wanted.output)) == _COUNT - 1
    summary = json.loads((wanted.output / "summary.json").read_text())
    assert list(summary["failed"]) == ["plane0"]
    broken.write_bytes(whole)
    _run(wanted)
    assert read_record(wanted.output, "plane0").status == "labelled"
    _run(order(pairs, tmp_path / "whole"))
    assert snapshot(wanted.output) == snapshot(tmp_path / "whole")


def test_failures_can_be_forgotten(pairs: Path, tmp_path: Path) -> None:
    (pairs / "plane0" / "left.png").write_bytes(b"no image")
    wanted = order(pairs, tmp_path / "set")
    _run(wanted)
    forget_failures(wanted.output)
    assert "plane0" not in [record.name for record in list_records(wanted.output)]


def test_pairs_that_keep_too_little_are_dropped_and_listed(pairs: Path, tmp_path: Path) -> None:
    strict = dataclasses.replace(order(pairs, tmp_path / "set"), min_kept=0.95)
    _run(strict)
    with pytest.raises(ValueError, match="holds no pair of labelled, split 'train'"):
        list_pairs("labelled", root=strict.output)
    assert len(list_pairs("labelled", "all", root=strict.output)) == _COUNT
    assert len(json.loads((strict.output / "summary.json").read_text())["dropped"]) == _COUNT


def test_a_set_keeps_to_its_settings(pairs: Path, tmp_path: Path) -> None:
    wanted = order(pairs, tmp_path / "set")
    _run(wanted)
    other = dataclasses.replace(wanted, filters=Filters(confidence=0.7))
    with pytest.raises(ValueError, match=r"filters\.confidence 0\.5, now 0\.7"):
        _run(other)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    with pytest.raises(ValueError, match="name an empty folder"):
        _run(order(pairs, tmp_path / "full"))


def test_new_pairs_join_a_set(pairs: Path, tmp_path: Path) -> None:
    wanted = order(pairs, tmp_path / "set")
    _run(wanted)
    (pairs / "new").mkdir()
    for side in ("left", "right"):
        (pairs / "new" / f"{side}.png").write_bytes((pairs / "plane0" / f"{side}.png").read_bytes())
    assert "new" in _run(wanted)


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow beyond some bytes: the writer gets an OSError after a part was written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_stops_the_run_and_leaves_nothing_half(
    pairs: Path, tmp_path: Path, full_disk: None
) -> None:
    wanted = order(pairs, tmp_path / "set")
    with pytest.raises(OSError, match=r"disparity\.pfm could not be written"):
        _run(wanted)
    assert list(list_records(wanted.output)) == []
    left_over = [path.name for path in wanted.output.rglob("*") if path.is_file()]
    assert left_over == ["labels.json"]


def test_rests_of_a_killed_writer_are_cleared_away(pairs: Path, tmp_path: Path) -> None:
    wanted = order(pairs, tmp_path / "set")
    folder = pair_folder(wanted.output, "plane0")
    folder.mkdir(parents=True)
    module.begin(dataclasses.replace(wanted, output=tmp_path / "other"))
    (wanted.output / "labels.json").write_bytes((tmp_path / "other" / "labels.json").read_bytes())
    (folder / ".disparity.0000.part.pfm").write_bytes(b"half")
    (folder / "disparity.pfm").write_bytes(b"older")
    _run(wanted)
    _run(order(pairs, tmp_path / "whole"))
    assert snapshot(wanted.output) == snapshot(tmp_path / "whole")


@pytest.mark.slow
def test_the_program_killed_ten_times_gives_the_same(tmp_path: Path) -> None:
    """The whole program with a real matcher, killed from without at random moments."""
    pairs = write_planes(tmp_path / "pairs", 12)
    program = [sys.executable, "-m", "stereopsis", "label", str(pairs), "--output"]
    subprocess.run([*program, str(tmp_path / "whole")], check=True, capture_output=True)
    chance = np.random.default_rng(0)
    for _ in range(10):
        process = subprocess.Popen(
            [*program, str(tmp_path / "set")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and not (tmp_path / "set").exists():
            time.sleep(0.01)
        time.sleep(float(chance.uniform(0.0, 0.4)))
        process.kill()
        process.wait()
    subprocess.run([*program, str(tmp_path / "set")], check=True, capture_output=True)
    assert snapshot(tmp_path / "set") == snapshot(tmp_path / "whole")
