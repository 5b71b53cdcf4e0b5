"""What goes on around the steps: checkpoints that survive anything, progress, pictures."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from stereopsis.io.atomic import writing
from stereopsis.training.task import SupervisedTask
from stereopsis.visual import (
    disparity_picture,
    error_picture,
    image_picture,
    panel,
    robust_range,
    titled,
)

LAST = "last.ckpt"


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints are written under a temporary name and renamed: there is always a whole one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with writing(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


def _accumulating(trainer: Trainer, batch_idx: int) -> bool:
    """Whether this batch's gradients wait for the next ones' before there is a step."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches != 0


class Checkpoints(Callback):
    """Saves `last.ckpt` every so many steps, at the end, and when asked to stop (Ctrl-C, SIGTERM).

    A signal lets the step finish and saves; a second one stops at once. `interrupted` holds the signal.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.path = folder / LAST
        self.every = every
        self.saved_step = -1
        self.interrupted: int | None = None
        self._handlers: dict[int, Any] = {}
        self._random: torch.Tensor | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._stop)
        if self._random is not None:
            torch.set_rng_state(self._random)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted is not None:
            raise KeyboardInterrupt
        self.interrupted = number

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if _accumulating(trainer, batch_idx) or step == self.saved_step:
            return
        if step % self.every == 0 or self.interrupted is not None or step == trainer.max_steps:
            self._save(trainer, step)
        if self.interrupted is not None:
            trainer.should_stop = True
            trainer.limit_val_batches = 0  # who asks to stop does not wait for a validation

    def _save(self, trainer: Trainer, step: int) -> None:
        if not trainer.fast_dev_run:  # pyright: ignore[reportAttributeAccessIssue]
            trainer.save_checkpoint(self.path)
        self.saved_step = step

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def state_dict(self) -> dict[str, Any]:
        """The random state of the process, so that a resumed run draws what the first would have drawn."""
        return {"random": torch.get_rng_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._random = state_dict["random"]


class Progressing(Callback):
    """A bar with loss, EPE, pairs a second, the loader's share of the time and the time left.

    Where the output is no terminal, a line every tenth of the way.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.bar: Progress | None = None
        self.waited = self.worked = 0.0
        self.pairs = 0
        self._mark = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._mark = time.perf_counter()
        if trainer.is_global_zero:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=self.console,
                disable=not self.console.is_terminal,
            )
            self.bar.start()
            self.bar.add_task("training", total=trainer.max_steps, completed=trainer.global_step)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        self.waited += now - self._mark
        self._mark = now

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        self.worked += now - self._mark
        self._mark = now
        self.pairs += batch.disparity.shape[0] * trainer.world_size
        if not trainer.is_global_zero or self.bar is None or _accumulating(trainer, batch_idx):
            return
        line = self.summary(trainer)
        step = trainer.global_step
        self.bar.update(self.bar.task_ids[0], completed=step, description=line)
        tenth = max(1, trainer.max_steps // 10)
        if not self.console.is_terminal and step % tenth == 0:
            self.console.print(f"step {step} of {trainer.max_steps}: {line}")

    def summary(self, trainer: Trainer) -> str:
        shown = trainer.callback_metrics
        spent = max(self.waited + self.worked, 1e-9)
        figures = [f"{name.split('/')[1]} {float(shown[name]):.3f}" for name in _SHOWN if name in shown]
        if "validation/epe" in shown:
            figures.append(f"validation {float(shown['validation/epe']):.3f}")
        return " ".join(
            [*figures, f"{self.pairs / spent:.1f} pairs/s", f"loader {100 * self.waited / spent:.0f} %"]
        )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


_SHOWN = ("train/loss", "train/epe")


class Pictures(Callback):
    """Left image, prediction, truth and error of a batch's first pair, in TensorBoard."""

    def __init__(self, every: int) -> None:
        self.every = every

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stepped = trainer.is_global_zero and not _accumulating(trainer, batch_idx)
        due = stepped and trainer.global_step % self.every == 0
        if not due or not isinstance(pl_module, SupervisedTask) or pl_module.last is None:
            return
        sample, output = pl_module.last
        disparity, truth, valid = output.disparity[0].float(), sample.disparity[0], sample.valid[0]
        limits = robust_range(truth, valid=valid)
        pictures = panel(
            [
                titled(image_picture(sample.pair.left[0]), "left"),
                titled(disparity_picture(disparity, limits=limits), "prediction"),
                titled(error_picture(disparity, truth, valid), "error"),
                titled(disparity_picture(truth, limits=limits, valid=valid), "truth"),
            ]
        )
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("pair", pictures, trainer.global_step, dataformats="HWC")
