"""A training ends in weights, whatever interrupts it on the way."""

from __future__ import annotations

import dataclasses
import errno
import functools
import json
import math
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stereopsis.io.weights import read_weights
from stereopsis.losses import SmoothL1Loss
from stereopsis.models.registry import create
from stereopsis.prediction.loading import load
from stereopsis.structures import StereoPair
from stereopsis.synthesis.folder import Order, render_folder
from stereopsis.training import main
from stereopsis.training.callbacks import WholeCheckpoints
from stereopsis.training.config import TrainSettings, list_experiments, read_settings
from stereopsis.training.main import Trained, exit_code, train

Tiny = Callable[..., TrainSettings]


def _weights(result: Trained) -> dict[str, Tensor]:
    assert result.weights is not None
    return read_weights(result.weights)[0]


def _equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of torch.compile's own imports
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # which it looks at itself
def test_a_compiled_training_takes_the_steps_of_a_plain_one(tiny: Tiny) -> None:
    plain = train(tiny("trainer.max_steps=2", output="plain"))
    compiled = train(tiny("trainer.max_steps=2", "trainer.compile=true", output="compiled"))
    assert compiled.metrics == pytest.approx(plain.metrics, rel=1e-3)  # the second step's, after an update


class SignalAt:
    """A loss that sends this process a signal when it is asked for the nth time."""

    def __init__(self, number: int, step: int) -> None:
        self.loss = SmoothL1Loss()
        self.number = number
        self.left = step

    def __call__(self, output: Any, sample: Any) -> Tensor:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)
        return self.loss(output, sample)


def test_weights_name_the_seeds_of_rendered_folders(tiny: Tiny, tmp_path: Path) -> None:
    rendered = tmp_path / "rendered"
    for seed in (7, 8):
        order = Order(output=rendered, distribution="sanity", count=1, seed=seed, size=(48, 64))
        list(render_folder(order))
    source = f"data.sources=[{{name: scenes, split: truth, root: {rendered}}}]"
    result = train(tiny(source, "trainer.max_steps=1"))
    assert result.weights is not None
    header = read_weights(result.weights)[1]
    assert header is not None
    assert header.training["splits"] == [
        "scenes/truth", "synthetic/sanity seed 7", "synthetic/sanity seed 8",
    ]  # fmt: skip


def test_weights_come_with_their_config_data_seed_and_figures(tiny: Tiny) -> None:
    settings = tiny("trainer.max_steps=2", "trainer.average=0.9")
    result = train(settings)
    assert result.weights is not None
    state, header = read_weights(result.weights)
    assert header is not None
    assert header.network == "stereonet"
    assert header.config["max_disparity"] == 32
    assert header.training["steps"] == 2
    assert "folder/truth" in header.provenance
    assert header.metrics.keys() == {"train/loss", "train/epe"}
    predictor = load(result.weights)
    output = predictor(StereoPair(torch.rand(3, 40, 70), torch.rand(3, 40, 70)))
    assert output.disparity.shape == (40, 70)
    assert len(state) > 20


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_was_asked_to_stop_goes_on_to_the_same_weights(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    undisturbed = train(tiny("trainer.average=0.9", output="undisturbed"))
    settings = tiny("trainer.average=0.9", output="stopped")
    with monkeypatch.context() as patched:
        patched.setattr(main, "create_loss", lambda *_, **__: SignalAt(number, 5))
        stopped = train(settings)
    assert stopped.interrupted == number
    assert exit_code(stopped) == code
    assert stopped.steps == 5
    assert stopped.weights is None
    assert _equal(_weights(undisturbed), _weights(train(settings)))


def test_who_asks_to_stop_does_not_wait_for_a_validation(
    tiny: Tiny, planes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny(f"data.validation=[{{name: folder, split: truth, root: {planes}}}]")
    with monkeypatch.context() as patched:
        patched.setattr(main, "create_loss", lambda *_, **__: SignalAt(signal.SIGTERM, 3))
        stopped = train(settings)
    assert stopped.steps == 3
    assert "validation/epe" not in stopped.metrics


def test_a_full_disk_leaves_the_last_checkpoint_whole(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = train(tiny(output="undisturbed"))
    settings = tiny(output="full")
    save = torch.save

    def full(checkpoint: Any, path: Any) -> None:
        if checkpoint["global_step"] > 3:
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(checkpoint, path)

    with monkeypatch.context() as patched:
        patched.setattr("stereopsis.training.callbacks.torch.save", full)
        with pytest.raises(OSError, match="No space left"):
            train(settings)
    output = Path(settings.output)
    assert [path.name for path in output.glob("*.part*")] == []
    assert torch.load(output / "last.ckpt", weights_only=True)["global_step"] == 3
    assert _equal(_weights(undisturbed), _weights(train(settings)))


def test_a_finished_run_keeps_its_weights_and_their_figures(tiny: Tiny) -> None:
    first = train(tiny("trainer.max_steps=2"))
    assert first.weights is not None
    written = first.weights.read_bytes()
    again = train(tiny("trainer.max_steps=2"))
    assert again == first
    assert first.metrics
    assert first.weights.read_bytes() == written


def test_a_finished_run_writes_its_weights_again_and_can_be_extended(tiny: Tiny) -> None:
    first = _weights(train(tiny("optimizer.schedule=constant", output="run")))
    (Path(tiny(output="run").output) / "weights.safetensors").unlink()
    again = train(tiny("optimizer.schedule=constant", output="run"))
    assert _equal(first, _weights(again))
    longer = train(tiny("optimizer.schedule=constant", "trainer.max_steps=10", output="run"))
    assert longer.steps == 10
    straight = train(tiny("optimizer.schedule=constant", "trainer.max_steps=10", output="straight"))
    assert _equal(_weights(straight), _weights(longer))


def test_a_resumed_run_draws_the_points_that_the_first_would_have_drawn(tiny: Tiny) -> None:
    mixture = [
        "model.name=smd-stereodepth",
        "~model.options.downsamplings",
        "~model.options.refinements",
        "model.options.max_disparity=64",
        "model.options.width=4",
        "model.options.head=[16,8]",
        "loss=mixture",
        "loss.options.points=50",
        "data.crop=[48,96]",
        "optimizer.schedule=constant",
    ]
    straight = train(tiny(*mixture, "trainer.max_steps=4", output="straight"))
    train(tiny(*mixture, "trainer.max_steps=2", output="resumed"))
    resumed = train(tiny(*mixture, "trainer.max_steps=4", output="resumed"))
    assert _equal(_weights(straight), _weights(resumed))


def test_an_output_of_another_run_is_not_gone_on_with(tiny: Tiny) -> None:
    train(tiny("trainer.max_steps=1"))
    with pytest.raises(ValueError, match=r"optimizer\.lr=0\.001.*now it is 0\.002"):
        train(tiny("trainer.max_steps=2", "optimizer.lr=2e-3"))


def test_a_run_begun_before_a_setting_existed_goes_on_with_its_default(tiny: Tiny) -> None:
    first = train(tiny("trainer.max_steps=1"))
    recorded = first.checkpoint.parent / main.SETTINGS
    older = json.loads(recorded.read_text())
    del older["data"]["occluded"], older["data"]["augment"]["camera"], older["data"]["sources"][0]["seed"]
    recorded.write_text(json.dumps(older))
    assert train(tiny("trainer.max_steps=2")).steps == 2
    recorded.write_text(json.dumps(older))
    with pytest.raises(ValueError, match=r"data\.occluded=True, now it is False"):
        train(tiny("trainer.max_steps=3", "data.occluded=false"))
    recorded.write_text('{"data": {"unheard": 1}}')
    with pytest.raises(ValueError, match=r"does not hold a run's settings \(Key 'unheard'"):
        train(tiny("trainer.max_steps=3"))


def test_a_damaged_checkpoint_is_named(tiny: Tiny) -> None:
    settings = tiny("trainer.max_steps=1")
    result = train(settings)
    result.checkpoint.write_bytes(result.checkpoint.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"last\.ckpt cannot be read"):
        train(settings)


def test_a_loss_that_is_no_number_stops_and_keeps_its_batch(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(output: Any, sample: Any) -> Tensor:
        return output.disparity.sum() * float("nan")

    monkeypatch.setattr(main, "create_loss", lambda *_, **__: broken)
    settings = tiny()
    with pytest.raises(ValueError, match=r"nan at step 0: its batch .* saved in") as raised:
        train(settings)
    path = Path(settings.output) / "diverged-step-0.pt"
    assert str(path) in str(raised.value)
    assert torch.load(path, weights_only=True)["left"].shape == (2, 3, 32, 64)


def test_training_begins_from_weights_of_the_same_network_only(tiny: Tiny) -> None:
    first = train(tiny("trainer.max_steps=1", output="first"))
    second = tiny("trainer.max_steps=1", "optimizer.lr=0", f"model.weights={first.weights}", output="second")
    started = train(second)
    frozen = {k: v for k, v in _weights(first).items() if "running" not in k and "tracked" not in k}
    assert all(torch.equal(v, _weights(started)[k]) for k, v in frozen.items())
    model = dataclasses.replace(second.model, name="fast")
    other = dataclasses.replace(second, model=model, output=f"{second.output}-other")
    with pytest.raises(ValueError, match="holds StereoNet, not fast"):
        train(other)


def test_channels_last_is_another_layout_and_the_same_training(tiny: Tiny) -> None:
    plain = _weights(train(tiny("trainer.max_steps=3", "optimizer.name=sgd", output="plain")))
    settings = tiny(
        "trainer.max_steps=3", "optimizer.name=sgd", "trainer.channels_last=true", output="innermost"
    )
    task = main.build_task(settings)
    convolutions = [module for module in task.model.modules() if isinstance(module, torch.nn.Conv2d)]
    assert convolutions
    assert all(c.weight.is_contiguous(memory_format=torch.channels_last) for c in convolutions)
    innermost = _weights(train(settings))
    for name, tensor in plain.items():
        torch.testing.assert_close(innermost[name], tensor, rtol=1e-4, atol=1e-5)


def test_validation_measures_held_back_pairs_and_accumulation_counts_optimiser_steps(
    tiny: Tiny, planes: Path
) -> None:
    settings = tiny(
        "trainer.max_steps=3",
        "trainer.accumulate=2",
        "trainer.validate_every=3",
        f"data.validation=[{{name: folder, split: truth, root: {planes}}}]",
        "data.validation_count=2",
        "trainer.pictures_every=2",
    )
    result = train(settings)
    assert result.steps == 3
    assert result.metrics["validation/epe"] > 0
    assert list(Path(settings.output).glob("events/*tfevents*"))


def test_a_step_of_several_batches_has_one_picture(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[np.ndarray] = []

    def panel(pictures: list[np.ndarray]) -> np.ndarray:
        drawn.append(pictures[0])
        return pictures[0]

    monkeypatch.setattr("stereopsis.training.callbacks.panel", panel)
    train(tiny("trainer.max_steps=3", "trainer.accumulate=2", "trainer.pictures_every=2"))
    assert len(drawn) == 1


def test_checkpoints_are_renamed_into_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    WholeCheckpoints().save_checkpoint({"a": torch.zeros(2)}, path)
    before = path.read_bytes()

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("stereopsis.training.callbacks.torch.save", dies)
    with pytest.raises(KeyboardInterrupt):
        WholeCheckpoints().save_checkpoint({"a": torch.ones(2)}, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_released_lightning_checkpoint_continues_training(tiny: Tiny, tmp_path: Path) -> None:
    """As StereoNet's release pickles it: tensors under official names beside partials of the optimiser."""
    first = create("stereonet", downsamplings=2, refinements=1, max_disparity=32)
    official = {
        re.sub(
            r"^feature_extractor\.downsampling\.(\d+)", r"feature_extractor.net.segment_0_conv_\1", name
        ): t
        for name, t in first.state_dict().items()
    }
    for pattern, replacement in _TO_OFFICIAL:
        official = {re.sub(pattern, replacement, name): tensor for name, tensor in official.items()}
    checkpoint = {
        "state_dict": official,
        "hyper_parameters": {"optimizer_partial": functools.partial(torch.optim.RMSprop, lr=1e-3)},
        "pytorch-lightning_version": "2.0.2",
    }
    torch.save(checkpoint, tmp_path / "released.ckpt")
    result = train(tiny("trainer.max_steps=1", "optimizer.lr=0", f"model.weights={tmp_path}/released.ckpt"))
    state = _weights(result)
    learnt = dict(first.named_parameters())
    assert all(torch.equal(tensor, state[name]) for name, tensor in learnt.items())


_TO_OFFICIAL = [
    (r"^feature_extractor\.residual\.(\d+)", r"feature_extractor.net.segment_1_res_\1"),
    (r"^feature_extractor\.projection", "feature_extractor.net.segment_2_conv_0"),
    (r"^cost_filter\.blocks\.(\d+)\.conv", r"cost_volumizer.net.segment_0_conv_\1"),
    (r"^cost_filter\.blocks\.(\d+)\.norm", r"cost_volumizer.net.segment_0_bn_\1"),
    (r"^cost_filter\.projection", "cost_volumizer.net.segment_1_conv_0"),
    (r"^refiners\.(\d+)\.embedding", r"refiners.\1.net.segment_0_conv_0"),
    (r"^refiners\.(\d+)\.residual\.(\d+)", r"refiners.\1.net.segment_1_res_\2"),
    (r"^refiners\.(\d+)\.projection", r"refiners.\1.net.segment_2_conv_0"),
    (r"\.conv([12])\.conv\.", r".conv_\1."),
    (r"\.conv([12])\.norm\.", r".batch_norm_\1."),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", list_experiments())
def test_every_experiment_runs_two_steps(name: str, planes: Path, tmp_path: Path) -> None:
    # Batch norm over single cells needs two pairs; the others are tried with one, which is lighter.
    pairs = 2 if any(network in name for network in ("psmnet", "hsmnet", "stereonet", "sttr")) else 1
    settings = read_settings(
        [
            f"experiment={name}",
            f"data.sources=[{{name: folder, split: truth, root: {planes}}}]",
            "data.validation=[]",
            f"data.batch_size={pairs}",
            "data.workers=0",
            "data.crop=[48,96]" if not name.startswith("sttr") else "data.crop=[128,256]",  # its smallest
            "data.augment.scale=[0,0]" if not name.startswith("sttr") else "data.augment.scale=[1.5,1.5]",
            "data.augment.flip=0",
            "trainer.accelerator=cpu",
            "trainer.precision=32-true",
            "trainer.fast_dev_run=true",
            f"output={tmp_path}",
        ]
    )
    if "iterations" in settings.model.options:
        settings.model.options["iterations"] = 2
    result = train(settings)
    assert result.steps == 2
    assert math.isfinite(result.metrics["train/loss"])
