"""`stereopsis label` as a user meets it: labels, continues, says in one line what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fakes.labelling import snapshot, write_planes
from stereopsis.cli.main import main
from stereopsis.data.dataset import StereoDataset
from stereopsis.data.sources.registry import list_pairs
from stereopsis.labelling import label as labelling


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_planes(tmp_path / "pairs", 3)


def _label(pairs: Path, tmp_path: Path, *more: str) -> int:
    return main(["label", str(pairs), "--output", str(tmp_path / "labels"), *more])


def test_planes_are_labelled_right(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _label(pairs, tmp_path, "--teacher", "sgbm", "--flip", "--max-disparity", "16") == 0
    assert "3 of 3 pairs labelled" in capsys.readouterr().out
    for sample in StereoDataset(list_pairs("labelled", root=tmp_path / "labels")):
        truth = int(sample.info[0].name[-1]) + 1
        error = (sample.disparity - truth).abs()[sample.valid]
        assert float(sample.valid.float().mean()) > 0.4
        assert float((error <= 1).float().mean()) > 0.95
    before = snapshot(tmp_path / "labels")
    assert _label(pairs, tmp_path, "--teacher", "sgbm", "--flip", "--max-disparity", "16") == 0
    assert snapshot(tmp_path / "labels") == before


def test_a_corrupt_pair_is_told_and_the_others_are_labelled(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pairs / "plane0" / "right.png").write_bytes(b"")
    assert _label(pairs, tmp_path) == 0
    told = capsys.readouterr()
    assert "failed plane0: " in told.err
    assert "right.png is empty" in told.err
    assert "2 of 3 pairs labelled" in told.out
    assert _label(pairs, tmp_path, "--retry") == 0


def test_ctrl_c_ends_with_130_and_the_next_run_continues(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = labelling.label_pair
    calls: list[str] = []

    def stops_at_the_second(order, pair):
        calls.append(pair.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return work(order, pair)

    monkeypatch.setattr(labelling, "label_pair", stops_at_the_second)
    assert _label(pairs, tmp_path) == 130
    assert _label(pairs, tmp_path) == 0
    assert len(calls) == 4
    assert not (tmp_path / "labels" / labelling.CLAIMS).exists()


def test_nothing_labelled_is_an_error(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _label(pairs, tmp_path, "--min-kept", "1") == 2
    assert "no pair of" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "labels" / "summary.json").read_text())["dropped"]) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--teacher", "sgmb"], "no network is called 'sgmb'"),
        (["--teacher", "raft-stereo"], "no weights for raft-stereo come with the package"),
        (["--teacher", "raft-stereo", "--weights", "none.pth"], "there is no file none.pth"),
        (["--scales", "0.5,two"], "--scales takes numbers with commas between, not '0.5,two'"),
        (["--scales", "1"], "not at 1: it is 1.0"),
        (["--confidence", "2"], "between 0 and 1, it is 2.0"),
        (["--min-kept", "7"], "--min-kept is a share between 0 and 1, not 7"),
        (["--expiry", "0"], "must expire after a positive number of seconds"),
        (["--max-memory", "lots"], "lots"),
    ],
)
def test_what_is_wrong_is_one_line(
    pairs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    assert _label(pairs, tmp_path, *arguments) == 2
    told = capsys.readouterr().err
    assert said in told
    assert len(told.strip().splitlines()) == 1


def test_other_settings_and_wrong_folders_are_refused(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["label", str(tmp_path / "nowhere"), "--output", str(tmp_path / "labels")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert _label(pairs, tmp_path) == 0
    assert _label(pairs, tmp_path, "--confidence", "0.8") == 2
    assert "made with other settings (filters.confidence 0.5, now 0.8)" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["label", str(pairs), "--output", str(tmp_path / "file")]) == 2
