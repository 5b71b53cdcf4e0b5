"""`train(settings)`: from settings to weights, going on from wherever the same output stopped."""

from __future__ import annotations

import dataclasses
import json
import logging
import signal
import warnings
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from stereopsis.data.sources.registry import locate
from stereopsis.data.sources.scenes import rendered_splits
from stereopsis.io.atomic import writing
from stereopsis.io.files import existing_file
from stereopsis.io.labels import read_set
from stereopsis.io.weights import WeightsHeader, as_tuples, read_header, write_weights
from stereopsis.layers.convolution import freeze_batch_norm_2d
from stereopsis.losses import create_loss
from stereopsis.models.base import Adopting, MonoModel, StartableModel, StereoModel
from stereopsis.models.registry import create
from stereopsis.prediction.compilation import compiler_options
from stereopsis.prediction.loading import load_model
from stereopsis.prediction.provenance import Provenance
from stereopsis.training.callbacks import LAST, Checkpoints, Pictures, Progressing, WholeCheckpoints
from stereopsis.training.config import ModelSettings, TeacherSettings, TrainSettings, recorded_settings
from stereopsis.training.datamodule import Data
from stereopsis.training.task import Drawing, Loss, SupervisedTask
from stereopsis.training.teacher import Teacher

SETTINGS = "settings.json"
WEIGHTS = "weights.safetensors"

_MAY_CHANGE = {
    "trainer": {
        "max_steps",
        "checkpoint_every",
        "validate_every",
        "pictures_every",
        "accelerator",
        "threads",
        "sync_batch_norm",
    },
    "data": {"workers"},
}


@dataclasses.dataclass(frozen=True)
class Trained:
    """How a training ended: the shipped weights, or the checkpoint from which the same call goes on."""

    steps: int
    weights: Path | None
    checkpoint: Path
    metrics: dict[str, float]
    interrupted: int | None
    """The signal that stopped it, or None."""


def train(settings: TrainSettings) -> Trained:
    """Train as the settings say; the same settings and output again go on from the last checkpoint.

    Writes `settings.json`, `last.ckpt`, TensorBoard events and, at the end, `weights.safetensors` into
    `settings.output`. Raises ValueError for settings that cannot be, or that differ from those that the
    output was begun with; OSError on a full disk (the last checkpoint stays whole).
    """
    output = Path(settings.output)
    output.mkdir(parents=True, exist_ok=True)
    _quieten_lightning()
    if settings.trainer.threads:
        torch.set_num_threads(settings.trainer.threads)
    checkpoint = output / LAST
    first_step = 0
    if checkpoint.exists():
        _check_same_run(settings, output / SETTINGS)
        first_step = int(_read(checkpoint)["global_step"])
    _write_settings(settings, output / SETTINGS)
    done = first_step >= settings.trainer.max_steps
    if done and (metrics := _metrics_of(output / WEIGHTS, first_step)) is not None:
        return Trained(first_step, output / WEIGHTS, checkpoint, metrics, None)
    task = build_task(settings)
    checkpoints = Checkpoints(output, settings.trainer.checkpoint_every)
    trainer = build_trainer(settings, [checkpoints, Progressing(), Pictures(settings.trainer.pictures_every)])
    if not done:
        data = Data(settings, first_step=first_step, rank=trainer.global_rank, processes=trainer.world_size)
        resumed = str(checkpoint) if checkpoint.exists() else None
        trainer.fit(task, datamodule=data, ckpt_path=resumed, weights_only=True)
    else:
        task.load_state_dict(_read(checkpoint)["state_dict"])
    metrics = {name: round(float(value), 6) for name, value in trainer.callback_metrics.items()}
    steps = max(first_step, trainer.global_step)
    finished = checkpoints.interrupted is None and not settings.trainer.fast_dev_run
    if finished and trainer.is_global_zero:
        _write_weights(settings, task, steps, metrics, output / WEIGHTS)
    weights = output / WEIGHTS if finished else None
    return Trained(steps, weights, checkpoint, metrics, checkpoints.interrupted)


def build_task(settings: TrainSettings) -> SupervisedTask:
    """The network (from weights where given), its loss and its optimiser."""
    torch.manual_seed(settings.trainer.seed)
    model = build_model(settings.model)
    if settings.trainer.restart_every and not isinstance(model, StartableModel):
        raise ValueError(f"{settings.model.name} takes no start: leave trainer.restart_every out")
    several = settings.trainer.devices * settings.trainer.nodes > 1
    if settings.trainer.sync_batch_norm and several and torch.cuda.is_available():
        synchronise_batch_norms(model, frozen=settings.model.freeze_batch_norm)
    if settings.trainer.channels_last:
        hold_channels_last(model)
    loss = create_loss(settings.loss.name, **settings.loss.options)
    if settings.trainer.compile:
        model.compile(dynamic=False, options=compiler_options())
        loss = _compiled(loss)
    return SupervisedTask(
        model,
        loss,
        optimizer=settings.optimizer,
        trainer=settings.trainer,
        batch_norm_frozen=settings.model.freeze_batch_norm,
        output=Path(settings.output),
        teacher=build_teacher(settings.teacher, model) if settings.teacher.weights else None,
    )


def _compiled(loss: Loss) -> Loss:
    """Of a light network's step on a CPU the loss, at full resolution, is a third. One that draws stays."""
    if isinstance(loss, Drawing):
        return loss
    return torch.compile(loss, dynamic=False, options=compiler_options())


def build_teacher(settings: TeacherSettings, student: StereoModel[Any, Any]) -> Teacher:
    model = load_model(existing_file(settings.weights, "a teacher's weights"))
    if isinstance(model, MonoModel):
        raise ValueError(f"{settings.weights} is monocular: a stereo network teaches")
    return Teacher(model, student, settings)


def synchronise_batch_norms(model: nn.Module, *, frozen: bool) -> None:
    """Batch norms that learn their statistics take them over all processes; frozen ones stay as they are."""
    model.train()
    if frozen:
        freeze_batch_norm_2d(model)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d | nn.BatchNorm3d) and child.training:
                setattr(parent, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))


def hold_channels_last(model: nn.Module) -> None:
    """The weights of 2-D convolutions; their inputs follow. (`Module.to` would refuse 3-D ones.)"""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)


def build_model(settings: ModelSettings) -> StereoModel[Any, Any]:
    options = {key: as_tuples(value) for key, value in settings.options.items()}
    model = load_model(settings.weights, **options) if settings.weights else create(settings.name, **options)
    if isinstance(model, MonoModel):
        raise ValueError(f"{settings.name} is monocular: this training is of stereo networks")
    if settings.weights and type(model) is not type(create(settings.name)):
        raise ValueError(f"{settings.weights} holds {type(model).__name__}, not {settings.name}")
    if settings.prior:
        if not isinstance(model, Adopting):
            raise ValueError(f"{settings.name} holds no other network: leave model.prior out")
        model.adopt(load_model(settings.prior))
    return model


def build_trainer(settings: TrainSettings, callbacks: list[Callback]) -> Trainer:
    """Lightning's trainer for an endless first epoch of counted steps."""
    chosen = settings.trainer
    return Trainer(
        accelerator=chosen.accelerator,
        devices=chosen.devices,
        num_nodes=chosen.nodes,
        strategy=chosen.strategy,
        precision=chosen.precision,  # pyright: ignore[reportArgumentType]
        max_steps=chosen.max_steps,
        max_epochs=-1,
        accumulate_grad_batches=chosen.accumulate,
        gradient_clip_val=chosen.gradient_clip or None,
        val_check_interval=chosen.validate_every * chosen.accumulate if settings.data.validation else None,
        check_val_every_n_epoch=None,
        limit_val_batches=None if settings.data.validation else 0,
        num_sanity_val_steps=0,
        logger=TensorBoardLogger(settings.output, name="", version="events"),
        log_every_n_steps=10,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        fast_dev_run=2 if chosen.fast_dev_run else False,
        default_root_dir=settings.output,
        plugins=[WholeCheckpoints()],
    )


def _check_same_run(settings: TrainSettings, path: Path) -> None:
    """ValueError where the output holds another run, naming the first setting that differs."""
    if not path.exists():
        raise ValueError(f"{path.parent} holds a checkpoint without {SETTINGS}: name another output")
    before, now = recorded_settings(path), json.loads(json.dumps(dataclasses.asdict(settings)))
    for section, values in now.items():
        if not isinstance(values, dict):
            continue
        for key, value in values.items():
            if before.get(section, {}).get(key) != value and key not in _MAY_CHANGE.get(section, set()):
                raise ValueError(
                    f"{path.parent} holds a run with {section}.{key}={before.get(section, {}).get(key)}, "
                    f"now it is {value}: to begin anew name another output"
                )


def _metrics_of(weights: Path, steps: int) -> dict[str, float] | None:
    """The figures of the weights that so many steps gave; None where these are not there."""
    header = read_header(weights) if weights.exists() else None
    if header is None or header.training.get("steps") != steps:
        return None
    return cast(dict[str, float], dict(header.metrics))


def _write_settings(settings: TrainSettings, path: Path) -> None:
    with writing(path) as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(settings), indent=1) + "\n")


def _read(checkpoint: Path) -> dict[str, Any]:
    try:
        return torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{checkpoint} cannot be read ({type(error).__name__}): remove it to begin anew"
        ) from error


def _write_weights(
    settings: TrainSettings, task: SupervisedTask, steps: int, metrics: dict[str, float], path: Path
) -> None:
    model = task.trained_model
    sources = ", ".join(
        f"{s.name}/{s.distribution if s.name == 'synthetic' else s.split}" for s in settings.data.sources
    )
    header = WeightsHeader(
        network=settings.model.name,
        config=dataclasses.asdict(model.config),
        licence=settings.licence,
        provenance=f"trained by stereopsis on {sources}"
        + (f", from {settings.model.weights}" if settings.model.weights else ""),
        metrics=metrics,
        training={
            "steps": steps,
            "splits": _training_splits(settings),
            "teachers": _teachers(settings),
            "settings": json.loads(json.dumps(dataclasses.asdict(settings))),
        },
    )
    write_weights(path, model.state_dict(), header)


def _teachers(settings: TrainSettings) -> list[dict[str, str]]:
    """Whose labels were learnt: name, weights' file and digest, licence and origin, as the sets tell them."""
    told = [
        read_set(locate(source.name, source.root))["teacher"]
        for source in settings.data.sources
        if source.name == "labelled"
    ]
    names = [field.name for field in dataclasses.fields(Provenance)]
    return [{name: str(teacher.get(name, "")) for name in names} for teacher in told]


def _training_splits(settings: TrainSettings) -> list[str]:
    """The splits whose pairs shaped the weights (rendered ones by seed), for evaluation's check of leaks.

    Those of the weights that training started from are included, where these say them.
    """
    start = settings.model.weights
    inherited: list[str] = []
    if start is not None and Path(start).suffix == ".safetensors":
        header = read_header(start)
        inherited = (
            [str(split) for split in cast(list[str], header.training.get("splits", []))] if header else []
        )
    own = [
        f"synthetic/{s.distribution} seed {s.seed}" if s.name == "synthetic" else f"{s.name}/{s.split}"
        for s in settings.data.sources
    ]
    folders = [rendered_splits(locate(s.name, s.root)) for s in settings.data.sources if s.name == "scenes"]
    return sorted({*inherited, *own}.union(*folders))


def _quieten_lightning() -> None:
    """Its hints about workers, loggers and sanity checks are not ours."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"lightning\..*")


def exit_code(result: Trained) -> int:
    """130 after Ctrl-C, 143 after SIGTERM, as shells expect."""
    return 0 if result.interrupted is None else 128 + signal.Signals(result.interrupted).value
