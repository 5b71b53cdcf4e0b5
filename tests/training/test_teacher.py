"""What a student learns of its teacher beside labels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stereopsis.io.weights import WeightsHeader, read_weights, write_weights
from stereopsis.models.base import StereoModel
from stereopsis.models.registry import create
from stereopsis.structures import StereoOutput, StereoPair, StereoSample, VolumeOutput
from stereopsis.training.config import TeacherSettings, TrainSettings
from stereopsis.training.main import train
from stereopsis.training.task import SupervisedTask
from stereopsis.training.teacher import Teacher, attention_distance, volume_divergence

Tiny = Callable[..., TrainSettings]


def _volume(probabilities: Tensor, levels: list[float]) -> VolumeOutput:
    size = probabilities.shape[-2:]
    return VolumeOutput(
        torch.zeros(len(probabilities), *size), probabilities=probabilities, levels=torch.tensor(levels)
    )


def test_volumes_diverge_by_the_surprise_of_the_teachers_mass() -> None:
    teacher = _volume(torch.tensor([0.5, 0.5, 0.0]).reshape(1, 3, 1, 1), [0.0, 4.0, 8.0])
    student = _volume(torch.tensor([0.25, 0.5, 0.25]).reshape(1, 3, 1, 1), [0.0, 4.0, 8.0])
    assert float(volume_divergence(student, teacher)) == pytest.approx(0.5 * math.log(2), abs=1e-5)
    assert float(volume_divergence(teacher, teacher)) == pytest.approx(0, abs=1e-5)


def test_a_finer_and_larger_volume_teaches_a_coarser_one_through_its_mean() -> None:
    """Levels at 0, 2 .. 14 on 4x4 cells; the student's at 0, 8 and 16 on 2x2."""
    fine = torch.rand(2, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    fine = fine / fine.sum(1, keepdim=True)
    levels = torch.arange(0, 16, 2.0)
    near = fine.reshape(2, 8, 2, 2, 2, 2).mean((3, 5))
    shares = torch.stack([(1 - levels / 8).clamp(0), 1 - (levels - 8).abs() / 8, (levels / 8 - 1).clamp(0)])
    expected = torch.einsum("sd,bdhw->bshw", shares, near)
    student = _volume(expected, [0.0, 8.0, 16.0])
    assert float(volume_divergence(student, _volume(fine, levels.tolist()))) == pytest.approx(0, abs=1e-6)


def test_attention_asks_where_not_how_much() -> None:
    features = torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    assert float(attention_distance(features, torch.cat([features, -features], 1) * 7)) < 1e-6
    left, right = torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2)
    left[..., 0], right[..., 1] = 1, 1
    assert float(attention_distance(left, right)) == pytest.approx(2)
    assert float(attention_distance(features, features[:1])) < 1e-6


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    model = create("stereonet", downsamplings=2, refinements=1, max_disparity=32)
    path = tmp_path / "teacher.safetensors"
    header = WeightsHeader(network="stereonet", config=dataclasses.asdict(model.config))
    write_weights(path, model.state_dict(), header)
    return path


def test_a_student_comes_nearer_to_its_teacher_than_with_labels_alone(tiny: Tiny, teacher: Path) -> None:
    def distance(*overrides: str, output: str) -> float:
        alone = train(tiny("trainer.max_steps=12", "data.augment.brightness=0", *overrides, output=output))
        assert alone.weights is not None
        state, _ = read_weights(alone.weights)
        student = create("stereonet", downsamplings=2, refinements=1, max_disparity=32)
        student.load_state_dict(state)
        guide = create("stereonet", downsamplings=2, refinements=1, max_disparity=32)
        guide.load_state_dict(read_weights(teacher)[0])
        images = torch.rand(2, 1, 3, 32, 64, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            given, wanted = (model.eval()(*images) for model in (student, guide))
        return float(volume_divergence(given, wanted))

    taught = (f"teacher.weights={teacher}", "teacher.volume=20")
    assert distance(*taught, output="taught") < 0.8 * distance(output="alone")


def test_a_taught_run_averages_resumes_and_ends_as_an_undisturbed_one(tiny: Tiny, teacher: Path) -> None:
    taught = (
        f"teacher.weights={teacher}",
        "teacher.volume=1",
        "teacher.features=1",
        "teacher.layers=[[feature_extractor,feature_extractor]]",
        "trainer.average=0.9",
        "optimizer.schedule=constant",
    )
    straight = train(tiny(*taught, "trainer.max_steps=4", output="straight"))
    train(tiny(*taught, "trainer.max_steps=2", output="resumed"))
    resumed = train(tiny(*taught, "trainer.max_steps=4", output="resumed"))
    assert straight.weights is not None
    assert resumed.weights is not None
    first, second = (read_weights(path)[0] for path in (straight.weights, resumed.weights))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert straight.metrics["train/teacher"] > 0
    checkpoint = torch.load(straight.checkpoint, weights_only=True)
    assert not [name for name in checkpoint["state_dict"] if "teacher" in name]


def test_a_teacher_sees_clean_pairs_where_it_is_told_to_and_the_students_pairs_where_not(
    tiny: Tiny, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def contrasts(*overrides: str, output: str) -> tuple[list[float], list[float]]:
        """Of the left images: those that the student saw, and those that its teacher saw."""
        shown: list[float] = []
        called = Teacher.__call__

        def watch(self: Teacher, output: StereoOutput, pair: StereoPair) -> Tensor:
            shown.append(float(pair.left.std()))
            return called(self, output, pair)

        monkeypatch.setattr(Teacher, "__call__", watch)
        learnt: list[float] = []
        forward = SupervisedTask.training_step

        def step(self: SupervisedTask, batch: StereoSample, batch_index: int) -> Tensor:
            learnt.append(float(batch.pair.left.std()))
            return forward(self, batch, batch_index)

        monkeypatch.setattr(SupervisedTask, "training_step", step)
        taught = (f"teacher.weights={teacher}", "teacher.volume=1", "trainer.max_steps=3")
        train(tiny(*taught, "data.augment.contrast=0.9", *overrides, output=output))
        monkeypatch.undo()
        return learnt, shown

    learnt, shown = contrasts(output="disturbed")
    assert shown == learnt
    learnt, shown = contrasts("teacher.clean=true", output="clean")
    assert len(shown) == len(learnt) == 3
    assert max(shown) - min(shown) < 0.3 * (max(learnt) - min(learnt))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([], "a teacher without a weight teaches nothing"),
        (["teacher.features=1"], "name them"),
        (
            ["teacher.features=1", "teacher.layers=[[feature_extractor,nowhere]]"],
            "the teacher has no layer 'nowhere'",
        ),
        (
            ["teacher.features=1", "teacher.layers=[[nowhere,feature_extractor]]"],
            "the student has no layer 'nowhere'",
        ),
        (["teacher.features=1", "teacher.layers=[[feature_extractor]]"], "pairs"),
    ],
)
def test_what_cannot_teach_is_refused_before_the_first_step(
    tiny: Tiny, teacher: Path, overrides: list[str], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        train(tiny(f"teacher.weights={teacher}", *overrides))


def test_layers_that_nothing_compares_are_not_kept() -> None:
    student, guide = (create("stereonet", downsamplings=2, refinements=1, max_disparity=32) for _ in range(2))
    assert isinstance(student, StereoModel)
    assert isinstance(guide, StereoModel)
    layers = [["feature_extractor", "feature_extractor"]]
    Teacher(guide, student, TeacherSettings(volume=1.0, layers=layers))
    for network in (student, guide):
        assert not network.get_submodule("feature_extractor")._forward_hooks


def test_a_teacher_without_a_volume_is_refused() -> None:
    volume = _volume(torch.ones(1, 1, 2, 2), [0.0])
    with pytest.raises(ValueError, match="the teacher gives none: set it to 0"):
        volume_divergence(volume, StereoOutput(torch.zeros(1, 2, 2)))


def test_volumes_diverge_as_much_under_autocast() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        _volume(torch.rand(1, 5, 2, 2, generator=generator).softmax(1), [0.0, 4.0, 8.0, 12.0, 16.0])
        for _ in range(2)
    )
    with torch.autocast("cpu", torch.bfloat16):
        found = volume_divergence(student, teacher)
    assert torch.equal(found, volume_divergence(student, teacher))
