"""`stereopsis distil`: labels in, a student and a report of before and after out."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from fakes.labelling import write_planes
from fakes.predictors import write_scene
from stereopsis.cli.distil import read_choices
from stereopsis.cli.main import main
from stereopsis.io.weights import WeightsHeader, read_weights, write_weights
from stereopsis.models.registry import create, entry

_STUDENT = (
    "student=stereonet",
    "model.options.downsamplings=3",
    "model.options.refinements=1",
    "model.options.max_disparity=32",
)
_SMALL = (
    "data.crop=[32,64]",
    "data.batch_size=2",
    "data.workers=0",
    "trainer.threads=1",
    "trainer.accelerator=cpu",
)


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    pairs = write_planes(tmp_path / "pairs", 3)
    assert main(["label", str(pairs), "--output", str(tmp_path / "labels")]) == 0
    return tmp_path / "labels"


def _distil(tmp_path: Path, *settings: str) -> int:
    return main(["distil", *settings, f"labels={tmp_path / 'labels'}", f"output={tmp_path / 'student'}"])


def test_a_student_is_trained_and_measured_before_and_after(
    labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        write_scene(tmp_path / "scenes", name, size=(48, 80))
    wanted = (
        *_STUDENT,
        *_SMALL,
        "trainer.max_steps=2",
        "mix=none",
        "protocol=scenes",
        f"root={tmp_path / 'scenes'}",
    )
    assert _distil(tmp_path, *wanted) == 0
    told = capsys.readouterr().out
    assert "epe all:" in told
    report = (tmp_path / "student" / "report.html").read_text()
    assert "Taught by sgbm on 3 labelled pairs" in report
    state, header = read_weights(tmp_path / "student" / "weights.safetensors")
    start, _ = read_weights(tmp_path / "student" / "before.safetensors")
    assert header is not None
    assert header.training["splits"] == ["labelled/train"]
    (taught,) = header.training["teachers"]
    assert taught["name"] == "sgbm"
    assert "Apache-2.0" in taught["licence"]
    assert any(not torch.equal(state[name], start[name]) for name in state)
    before, after = (
        json.loads((tmp_path / "student" / f"{title}.json").read_text()) for title in ("before", "after")
    )
    assert before["digest"] != after["digest"]
    assert _distil(tmp_path, *wanted) == 0  # finished: nothing is done again
    assert _distil(tmp_path, *_STUDENT, *_SMALL, "mix=scenes:x", "protocol=scenes") == 2
    assert "would be trained on and measured" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["student=fast"], "say labels=..."),
        (["student=fast", "labels=a"], "say output=..."),
        (["student=fast", "labels=a", "output=b", "ratio=2"], "ratio is the share of labelled pairs"),
        (["student=fast", "labels=a", "output=b", "ratio=half"], "ratio is a number, not 'half'"),
        (["student=fast", "labels=a", "output=b", "limit=0"], "limit is a number of images"),
        (["student=fast", "labels=a", "output=b", "allow_leak=maybe"], "allow_leak is true or false"),
    ],
)
def test_what_is_missing_is_said(settings: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_choices(settings)


def test_what_is_wrong_is_one_line(labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for settings, said in (
        (["student=stereonot"], "no network is called 'stereonot'"),
        ([*_STUDENT, "mix=general"], "mix is synthetic:DISTRIBUTION"),
        ([*_STUDENT, "mix=none", "trainer.max_step=3"], "there is no setting 'trainer.max_step'"),
        ([*_STUDENT, "mix=none", "weights=none.safetensors"], "there is no file none.safetensors"),
        ([*_STUDENT, "mix=none", "protocol=opne"], "neither a protocol"),
    ):
        capsys.readouterr()
        assert _distil(tmp_path, *settings) == 2
        told = capsys.readouterr().err
        assert said in told
        assert len(told.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_heavy_teacher_teaches_a_light_student_from_the_command_line(tmp_path: Path) -> None:
    """Selective-IGEV, its weights after two steps of training, labels; RT-IGEV++ trains 50 steps on that."""
    pairs = write_planes(tmp_path / "pairs", 4)
    scenes = "[{name: synthetic, distribution: sanity, size: [96, 160], count: 2}]"
    common = ("data.workers=0", "trainer.threads=1", "trainer.accelerator=cpu", "data.validation=[]")
    brief = ("loss=sequence", f"data.sources={scenes}", "data.batch_size=1", "trainer.max_steps=2")
    runs = tmp_path / "runs"
    for name in ("selective-igev", "igev-plusplus-rt"):
        model = create(name, **entry(name).tiny)
        header = WeightsHeader(network=name, config=dataclasses.asdict(model.config))
        (runs / name).mkdir(parents=True)
        start = runs / name / "start.safetensors"
        write_weights(start, model.state_dict(), header)
        settings = (f"model.name={name}", f"model.weights={start}", f"output={runs / name}")
        assert main(["train", *settings, *brief, *common]) == 0
    teacher = runs / "selective-igev" / "weights.safetensors"
    arguments = ["--teacher", "selective-igev", "--weights", str(teacher), "--confidence", "0"]
    lenient = ["--left-right", "0", "--photometric", "0", "--iterations", "2"]
    assert main(["label", str(pairs), "-o", str(tmp_path / "labels"), *arguments, *lenient]) == 0
    assert json.loads((tmp_path / "labels" / "labels.json").read_text())["teacher"]["digest"]
    student = ("student=igev-plusplus-rt", f"weights={runs / 'igev-plusplus-rt' / 'weights.safetensors'}")
    steps = ("trainer.max_steps=50", "data.crop=[32,64]", "data.batch_size=1", "mix=none")
    assert _distil(tmp_path, *student, *steps, *common[:-1]) == 0
    _, header = read_weights(tmp_path / "student" / "weights.safetensors")
    assert header is not None
    assert header.training["steps"] == 50
