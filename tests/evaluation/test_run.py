"""Runs: figures by hand, masks and ranges, failures named and left out, resuming, flat memory, leaks."""

from __future__ import annotations

import json
import math
import resource
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from fakes.datasets import kitti2015
from fakes.predictors import ByName, Offset, write_scene
from stereopsis.data.dataset import Annotations
from stereopsis.evaluation.contestants import Contestant, RecordedRanges, leak_note
from stereopsis.evaluation.protocols import Column, Part, Protocol, dataset_protocol, list_protocols, protocol
from stereopsis.evaluation.results import Evaluation, Row
from stereopsis.evaluation.run import describe, evaluate
from stereopsis.evaluation.scenes import reduced
from stereopsis.structures import (
    Calibration,
    Predictor,
    SceneInfo,
    StereoOutput,
    StereoPair,
    StereoSample,
)


def _protocol(*columns: Column, **facts: object) -> Protocol:
    given = {"dataset": "scenes", "split": "all", "averaging": "images", "columns": columns}
    return Protocol(name="p", version=1, parts=(Part(**(given | facts)),), comparable="nothing")  # type: ignore[arg-type]


def _evaluate(
    predictor: Predictor | ByName, protocol: Protocol, root: Path, journal: Path | None = None
) -> Evaluation:
    return evaluate(predictor, protocol, name="fake", roots={"scenes": root}, journal=journal)


def test_recorded_baseline_to_the_printed_digit(shared_data: Path) -> None:
    record = json.loads((shared_data / "sgbm_baseline.json").read_text())
    ranges = RecordedRanges(shared_data / "sgbm_baseline.json")
    found = evaluate(ranges, protocol("open"), name="sgbm-oracle", roots={"open": shared_data / "real"})
    names = {"epe": ("epe all", 4), "bad_1": ("bad-1 all", 5), "bad_2": ("bad-2 all", 5), "d1": ("d1 all", 5)}
    columns = found.columns[0]
    assert not found.failures
    assert {row.name for row in found.rows} == set(record["scenes"])
    for row in found.rows:
        for key, (column, digits) in names.items():
            value = row.figures[columns.index(column)].value
            assert round(value, digits) == record["scenes"][row.name][key], (row.name, key)
    for key, (column, _) in names.items():
        assert round(found.value(column), 4) == record["average_over_datasets"][key]


def test_masks_and_ranges_by_hand(tmp_path: Path) -> None:
    hidden = np.zeros((12, 16), bool)
    hidden[:, :4] = True
    write_scene(tmp_path, "a", truth=10.0, hidden=hidden)
    write_scene(tmp_path, "b", truth=300.0)
    columns = (
        Column("epe"),
        Column("epe", "noc"),
        Column("epe", "occ"),
        Column("epe", below=192.0),
        Column("bad-3"),
    )
    found = _evaluate(Offset(12.0), _protocol(*columns), tmp_path)
    assert [average.value for average in found.averages] == [145.0, 2.0, 2.0, 2.0, 0.5]
    assert [(a.images, a.empty) for a in found.averages] == [(2, 0), (1, 1), (1, 1), (1, 1), (2, 0)]
    assert [figure.pixels for figure in found.rows[0].figures] == [192, 144, 48, 192, 192]


def test_kitti2015_pools_pixels_over_background_and_foreground(tmp_path: Path) -> None:
    (expected,) = kitti2015(tmp_path)
    found = evaluate(Offset(20.0), protocol("kitti2015"), name="fake", roots={"kitti2015": tmp_path})
    wrong = (np.abs(expected.disparity - 20) > 3) & (
        np.abs(expected.disparity - 20) > 0.05 * expected.disparity
    )
    cars = expected.regions["foreground"]
    for column, mask in (("d1 all", expected.known), ("d1 foreground", expected.known & cars)):
        assert found.value(column) == pytest.approx(wrong[mask].mean())
    assert found.value("d1 background") == pytest.approx(wrong[expected.known & ~cars].mean())
    assert not math.isnan(found.value("see all"))
    assert any("1 images where the protocol has 200" in note for note in found.notes)


def test_failures_are_named_the_rest_is_finished(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_scene(tmp_path, name)
    left = tmp_path / "b" / "left.png"
    left.write_bytes(left.read_bytes()[:70])
    found = _evaluate(Offset(11.0), _protocol(Column("epe")), tmp_path)
    assert [row.name for row in found.rows] == ["a", "c"]
    assert [failure.name for failure in found.failures] == ["b"]
    assert "left.png" in found.failures[0].reason
    assert found.value("epe all") == 1.0
    assert "1 of 3 images FAILED and are in no average" in found.notes


def test_scene_without_a_recorded_disparity_fails_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_scene(tmp_path, name)
    found = _evaluate(ByName({"a": 13.0}), _protocol(Column("epe")), tmp_path)
    assert found.value("epe all") == 3.0
    assert [failure.reason for failure in found.failures] == ["no disparity of b"]


def test_truth_that_is_all_unknown_fails(tmp_path: Path) -> None:
    write_scene(tmp_path, "a", known=np.zeros((12, 16), bool))
    found = _evaluate(Offset(1.0), _protocol(Column("epe")), tmp_path)
    assert "no known pixel" in found.failures[0].reason
    assert math.isnan(found.value("epe all"))


@dataclass
class Counting:
    """Counts its predictions and stops the run, as an interruption would, at the one named."""

    stop: int | None
    made: int = 0

    def __call__(self, pair: StereoPair) -> StereoOutput:
        if self.made == self.stop:
            raise KeyboardInterrupt
        self.made += 1
        return Offset(12.0)(pair)


def test_interrupted_run_continues_and_gives_the_same(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        write_scene(tmp_path / "data", name, truth=10.0 + len(name))
    journal, wanted = tmp_path / "j.jsonl", _protocol(Column("epe"), Column("auroc-1"))
    with pytest.raises(KeyboardInterrupt):
        _evaluate(Counting(stop=2), wanted, tmp_path / "data", journal)
    with journal.open("ab") as file:
        file.write(b'{"part": 0, "name": "c", "cut off')
    rest = Counting(stop=None)
    found = _evaluate(rest, wanted, tmp_path / "data", journal)
    assert rest.made == 2
    whole = _evaluate(Offset(12.0), wanted, tmp_path / "data")
    assert repr(found.averages) == repr(whole.averages)
    assert [row.name for row in found.rows] == ["a", "b", "c", "d"]
    again = Counting(stop=0)
    assert repr(_evaluate(again, wanted, tmp_path / "data", journal).averages) == repr(whole.averages)


def test_image_whose_pictures_were_cut_off_is_measured_again(tmp_path: Path) -> None:
    write_scene(tmp_path / "data", "a")
    journal, wanted = tmp_path / "j.jsonl", _protocol(Column("epe"))

    def interrupted(row: Row, sample: StereoSample, output: StereoOutput) -> None:
        raise KeyboardInterrupt

    facts = {"name": "fake", "roots": {"scenes": tmp_path / "data"}, "journal": journal}
    with pytest.raises(KeyboardInterrupt):
        evaluate(Offset(1.0), wanted, observe=interrupted, **facts)  # type: ignore[arg-type]
    again = Counting(stop=None)
    evaluate(again, wanted, **facts)  # type: ignore[arg-type]
    assert again.made == 1


def test_journal_of_another_run_is_refused(tmp_path: Path) -> None:
    write_scene(tmp_path / "data", "a")
    journal = tmp_path / "j.jsonl"
    _evaluate(Offset(1.0), _protocol(Column("epe")), tmp_path / "data", journal)
    with pytest.raises(ValueError, match="delete it"):
        _evaluate(Offset(1.0), _protocol(Column("rms")), tmp_path / "data", journal)
    with pytest.raises(ValueError, match="delete it"):
        evaluate(
            Offset(1.0),
            _protocol(Column("epe")),
            name="fake",
            digest="weights changed since",
            roots={"scenes": tmp_path / "data"},
            journal=journal,
        )


@pytest.mark.parametrize("content", [b'{"mine": 1}', b"[1]\n", b"precious", b"\x89PNG\r\n"])
def test_file_that_is_no_journal_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    write_scene(tmp_path / "data", "a")
    mine = tmp_path / "mine.json"
    mine.write_bytes(content)
    with pytest.raises(ValueError, match=r"mine\.json cannot be continued"):
        _evaluate(Offset(1.0), _protocol(Column("epe")), tmp_path / "data", mine)
    assert mine.read_bytes() == content


def test_journal_stopped_in_its_first_line_begins_anew(tmp_path: Path) -> None:
    write_scene(tmp_path / "data", "a")
    journal = tmp_path / "j.jsonl"
    _evaluate(Offset(1.0), _protocol(Column("epe")), tmp_path / "data", journal)
    whole = journal.read_bytes()
    journal.write_bytes(whole[:20])
    _evaluate(Offset(1.0), _protocol(Column("epe")), tmp_path / "data", journal)
    assert journal.read_bytes().splitlines()[0] == whole.splitlines()[0]


@pytest.mark.slow
def test_memory_is_flat_over_a_thousand_images(tmp_path: Path) -> None:
    """A thousand images of 300 kB of maps each: kept, they would be 300 MB."""
    write_scene(tmp_path, "a", size=(96, 128))
    line = "a/left.png,a/right.png,a/disparity.pfm"
    lines = [f"{number},{line}" for number in range(1000)]
    (tmp_path / "many.csv").write_text("\n".join(["name,left,right,disparity", *lines]))
    peaks: list[int] = []

    def watch(row: Row, sample: StereoSample, output: StereoOutput) -> None:
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

    columns = Column("epe"), Column("bad-2")
    wanted = _protocol(*columns, dataset="csv", split="many.csv")
    evaluate(Offset(12.0), wanted, name="fake", roots={"csv": tmp_path}, observe=watch)
    assert len(peaks) == 1000
    assert peaks[-1] - peaks[100] < 30_000


def test_two_pairs_of_one_name_are_refused(tmp_path: Path) -> None:
    write_scene(tmp_path, "a")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(ValueError, match="several pairs called 'a'"):
        _evaluate(Offset(12.0), _protocol(Column("epe")), tmp_path)


def test_limit_is_said(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_scene(tmp_path, name)
    found = evaluate(Offset(1.0), _protocol(Column("epe")), name="fake", roots={"scenes": tmp_path}, limit=2)
    assert len(found.rows) == 2
    assert any("first 2 of 3" in note for note in found.notes)


def test_subset_is_drawn_as_raft_stereo_does(tmp_path: Path) -> None:
    names = [f"{number:02}" for number in range(20)]
    for name in names:
        write_scene(tmp_path, name)
    found = _evaluate(Offset(1.0), _protocol(Column("epe"), subset=5, pairs=5), tmp_path)
    drawn = np.random.RandomState(1000).permutation(20)[:5]
    assert [row.name for row in found.rows] == [names[place] for place in sorted(drawn)]
    assert not found.notes


def test_reduced_keeps_disparity_true_to_its_pixels() -> None:
    truth = torch.arange(64.0).reshape(8, 8)
    sample = StereoSample(
        StereoPair(torch.rand(3, 8, 8), torch.rand(3, 8, 8)),
        truth,
        truth > 20,
        info=(SceneInfo("a", "b", Calibration(focal=100.0, baseline=0.1)),),
    )
    regions = Annotations({"foreground": truth > 40})
    smaller, annotated = reduced(sample, regions, 0.25)
    assert smaller.pair.size == (2, 2)
    assert smaller.disparity.tolist() == (truth[::4, ::4] * 0.25).tolist()
    assert smaller.valid.tolist() == (truth[::4, ::4] > 20).tolist()
    assert annotated.regions["foreground"].tolist() == (truth[::4, ::4] > 40).tolist()
    assert smaller.info[0].calibration is not None
    assert smaller.info[0].calibration.focal == 25


def test_every_protocol_says_what_its_figures_mean() -> None:
    for name in list_protocols():
        wanted = protocol(name)
        lines = describe(wanted)
        assert len(lines) == len(wanted.parts) + 1
        assert all("masks:" in line and "range:" in line for line in lines[:-1])
        assert lines[-1].startswith("comparable with:")
        assert all(part.columns for part in wanted.parts)
    with pytest.raises(ValueError, match="kitti2015"):
        protocol("kiti2015")


def test_weights_trained_on_the_split_are_refused() -> None:
    kitti = protocol("kitti2015")
    seen = Contestant("net", Offset(1.0), ("sceneflow/train-final", "kitti2015/train"))
    with pytest.raises(ValueError, match="--allow-leak"):
        leak_note(seen, kitti, allowed=False)
    assert "LEAK" in leak_note(seen, kitti, allowed=True)[0]
    assert leak_note(Contestant("net", Offset(1.0), ("sceneflow/train-final",)), kitti, allowed=False) == ()
    assert (
        leak_note(
            Contestant("net", Offset(1.0), ("sceneflow/train-final",)), protocol("sceneflow"), allowed=False
        )
        == ()
    )
    with pytest.raises(ValueError, match="open/truth"):
        leak_note(Contestant("net", Offset(1.0), ("middlebury2014",)), protocol("open"), allowed=False)
    rendered = dataset_protocol("synthetic", "general")
    assert (
        leak_note(Contestant("net", Offset(1.0), ("synthetic/general seed 7",)), rendered, allowed=False)
        == ()
    )
    with pytest.raises(ValueError, match="synthetic/general"):
        leak_note(
            Contestant("net", Offset(1.0), ("synthetic/general seed 977000003",)), rendered, allowed=False
        )
    whole = Contestant("net", Offset(1.0), ("scenes",))
    with pytest.raises(ValueError, match="scenes/truth"):
        leak_note(whole, dataset_protocol("scenes", "truth"), allowed=False)


def test_rendered_pairs_are_measured_as_read_ones() -> None:
    found = evaluate(Offset(5.0), dataset_protocol("synthetic", "general"), name="fake", limit=1)
    assert [row.name for row in found.rows] == ["general-0000"]
    assert not found.failures
    assert found.value("epe noc") > 0
