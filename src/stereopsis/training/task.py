"""One training step, as Lightning sees it: network, loss, optimiser, averaged weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from stereopsis.io.atomic import writing
from stereopsis.layers.convolution import freeze_batch_norm_2d
from stereopsis.models.base import StereoModel
from stereopsis.structures import StereoOutput, StereoSample
from stereopsis.training.config import OptimizerSettings, TrainerSettings
from stereopsis.training.forward import padded_forward, restarted_forward
from stereopsis.training.schedule import build_optimizer, build_schedule
from stereopsis.training.teacher import Teacher

Loss = Callable[[Any, StereoSample], Tensor]


@runtime_checkable
class Drawing(Protocol):
    """A loss that draws random numbers, all of them from its own generator."""

    generator: torch.Generator

    def __call__(self, output: Any, sample: StereoSample, /) -> Tensor: ...


class DivergedError(ValueError):
    """The loss is no longer a number."""


class SupervisedTask(LightningModule):
    """A network that learns disparity from samples with truth.

    Images are padded as the network declares and its output is cropped back. With `trainer.average` the
    averaged weights are those that validation sees and `trained_model` returns.
    """

    def __init__(
        self,
        model: StereoModel[Any, Any],
        loss: Loss,
        *,
        optimizer: OptimizerSettings,
        trainer: TrainerSettings,
        batch_norm_frozen: bool,
        output: Path,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.optimizer_settings = optimizer
        self.trainer_settings = trainer
        self.batch_norm_frozen = batch_norm_frozen
        self.output = output
        self.teacher = teacher
        self.averaged: AveragedModel | None = None
        if trainer.average:
            self.averaged = AveragedModel(
                model, multi_avg_fn=get_ema_multi_avg_fn(trainer.average), use_buffers=True
            )
            self.averaged.requires_grad_(False)
        self.last: tuple[StereoSample, StereoOutput] | None = None

    @property
    def trained_model(self) -> StereoModel[Any, Any]:
        """The weights to validate and to ship."""
        return self.model if self.averaged is None else cast(StereoModel[Any, Any], self.averaged.module)

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.model, self.optimizer_settings)
        schedule = build_schedule(optimizer, self.optimizer_settings, self.trainer_settings.max_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        if self.batch_norm_frozen:
            freeze_batch_norm_2d(self.model)

    def training_step(self, batch: StereoSample, batch_index: int) -> Tensor:
        every = self.trainer_settings.restart_every
        restarts = every > 0 and self.global_step % every == every - 1
        output = (restarted_forward if restarts else padded_forward)(self.model, batch.pair)
        loss = self.loss(output, batch)
        if self.teacher is not None:
            lesson = self.teacher(output, batch.pair if batch.clean is None else batch.clean)
            self.log("train/teacher", lesson.detach(), batch_size=batch.disparity.shape[0])
            loss = loss + lesson
        if not bool(torch.isfinite(loss)):
            raise DivergedError(self._explain(batch, loss))
        self.last = (batch, output.detach())
        size = batch.disparity.shape[0]
        self.log("train/loss", loss.detach(), batch_size=size)
        self.log("train/epe", end_point_error(output.disparity.detach(), batch), batch_size=size)
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The loss's draws go on where they stopped."""
        if isinstance(self.loss, Drawing):
            checkpoint["loss_random"] = self.loss.generator.get_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if isinstance(self.loss, Drawing) and "loss_random" in checkpoint:
            self.loss.generator.set_state(checkpoint["loss_random"].cpu())

    def validation_step(self, batch: StereoSample, batch_index: int) -> None:
        output = padded_forward(self.trained_model.eval(), batch.pair)
        error = end_point_error(output.disparity, batch)
        self.log("validation/epe", error, batch_size=batch.disparity.shape[0], sync_dist=True)

    def on_validation_end(self) -> None:
        self.model.train()
        if self.batch_norm_frozen:
            freeze_batch_norm_2d(self.model)

    def _explain(self, batch: StereoSample, loss: Tensor) -> str:
        """Saves the batch that broke the training; a sentence that names the file."""
        path = self.output / f"diverged-step-{self.global_step}.pt"
        tensors = {
            "left": batch.pair.left,
            "right": batch.pair.right,
            "disparity": batch.disparity,
            "valid": batch.valid,
        }
        with writing(path) as temporary:
            torch.save({name: tensor.cpu() for name, tensor in tensors.items()}, temporary)
        names = ", ".join(info.name for info in batch.info)
        return (
            f"the loss is {float(loss.detach())} at step {self.global_step}: its batch ({names}) is saved in "
            f"{path}; lower optimizer.lr, set trainer.gradient_clip, or start again from the last checkpoint"
        )


def end_point_error(disparity: Tensor, sample: StereoSample) -> Tensor:
    """Mean absolute error over the valid pixels; 0 where there are none."""
    errors = (disparity - sample.disparity).abs()[sample.valid]
    return errors.mean() if errors.numel() else disparity.new_zeros(())
