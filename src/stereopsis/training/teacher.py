"""What a student learns of a frozen teacher beside labels: where its volume puts the mass, where it looks."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.models.base import StereoModel
from stereopsis.structures import StereoOutput, StereoPair, VolumeOutput
from stereopsis.training.config import TeacherSettings
from stereopsis.training.forward import padded_forward


class Teacher:
    """`volume` times the divergence of volumes plus `features` times the distance of attention maps.

    Counted at every pixel, labelled or not. It is no module: its weights go into no checkpoint.

    Raises ValueError where either network has no layer of that name, gives no volume, or pads the images
    to another size than the other does.
    """

    def __init__(
        self, model: StereoModel[Any, Any], student: StereoModel[Any, Any], settings: TeacherSettings
    ) -> None:
        self.model = model.requires_grad_(False).eval()
        self.student = student
        self.settings = settings
        if settings.volume <= 0 and settings.features <= 0:
            raise ValueError(
                "a teacher without a weight teaches nothing: set teacher.volume or teacher.features above 0, "
                "or leave teacher.weights out"
            )
        if settings.features > 0 and not settings.layers:
            raise ValueError(
                "teacher.features compares layers: name them, teacher.layers=[[STUDENT_LAYER,TEACHER_LAYER]]"
            )
        for names in settings.layers:
            if len(names) != 2:
                raise ValueError(f"teacher.layers is of pairs, student's layer and teacher's, not {names}")
        compared = settings.layers if settings.features > 0 else []
        mine, its = [names[0] for names in compared], [names[1] for names in compared]
        self._seen = Recorded(student, mine, learning=True)
        self._taught = Recorded(self.model, its, learning=False)

    def __call__(self, output: StereoOutput, pair: StereoPair) -> Float[Tensor, ""]:
        """The loss of what the student gave for this pair; to be called once after its forward pass."""
        seen = self._seen.take()
        with torch.no_grad():
            taught = self._watch(pair)
        total = output.disparity.new_zeros(())
        if self.settings.volume > 0:
            total = total + self.settings.volume * volume_divergence(output, taught)
        if self.settings.features > 0:
            distances = [
                attention_distance(mine, its) for mine, its in zip(seen, self._taught.take(), strict=True)
            ]
            total = total + self.settings.features * torch.stack(distances).mean()
        return total

    def _watch(self, pair: StereoPair) -> StereoOutput:
        sizes = [_padded_size(model, pair) for model in (self.student, self.model)]
        if sizes[0] != sizes[1]:
            (rows, columns), (other_rows, other_columns) = sizes
            raise ValueError(
                f"the student pads to {columns}x{rows}, its teacher to {other_columns}x{other_rows}: choose "
                f"a data.crop that neither has to pad"
            )
        return padded_forward(self.model.to(pair.left.device), pair)


def _padded_size(model: StereoModel[Any, Any], pair: StereoPair) -> tuple[int, int]:
    height, width = pair.size
    top, bottom, left, right = model.padding.amounts(height, width)
    return top + height + bottom, left + width + right


class Recorded:
    """What layers gave since it was last taken; a layer that sees each view alone gives both, stacked.

    learning: passes with gradients are recorded, else those without: validation is none of the student's.
    """

    def __init__(self, model: nn.Module, layers: list[str], *, learning: bool) -> None:
        self.layers = layers
        self.learning = learning
        self._kept: dict[str, list[Tensor]] = {name: [] for name in layers}
        for name in self._kept:
            try:
                module = model.get_submodule(name)
            except AttributeError as error:
                whose = "the student" if learning else "the teacher"
                raise ValueError(f"teacher.layers: {whose} has no layer {name!r} ({error})") from error
            module.register_forward_hook(self._keeper(name, module))

    def take(self) -> list[Tensor]:
        taken = []
        for name in self.layers:
            if not self._kept[name]:
                raise ValueError(f"teacher.layers: {name} gives no feature map in a forward pass")
            taken.append(torch.cat(self._kept[name]))
        for kept in self._kept.values():
            kept.clear()
        return taken

    def _keeper(self, name: str, layer: nn.Module) -> Any:
        def keep(module: nn.Module, _inputs: object, output: object) -> None:
            # Averaged weights are copies of the network, hooks included.
            ours = module is layer and torch.is_grad_enabled() == self.learning
            if ours and isinstance(output, Tensor) and output.ndim == 4:
                self._kept[name].append(output)

        return keep


def volume_divergence(student: StereoOutput, teacher: StereoOutput) -> Float[Tensor, ""]:
    """The mean over the student's cells of KL(teacher, student), in nats.

    The teacher's mass is moved to the student's levels, each level's split between the two nearest (beyond
    the last: the last), and to its cells by averaging or between cells linearly.
    """
    volumes = []
    for output, whose in ((student, "the student"), (teacher, "the teacher")):
        if not isinstance(output, VolumeOutput) or output.probabilities is None or output.levels is None:
            raise ValueError(f"teacher.volume compares volumes, and {whose} gives none: set it to 0")
        volumes.append((output.probabilities.float(), output.levels.float()))
    (mine, my_levels), (its, its_levels) = volumes
    step = my_levels[1] - my_levels[0]
    position = ((its_levels - my_levels[0]) / step).clamp(0, len(my_levels) - 1)
    distance = (torch.arange(len(my_levels), device=position.device)[:, None] - position).abs()
    with torch.autocast(its.device.type, enabled=False):
        moved = torch.einsum("sd,bdhw->bshw", (1 - distance).clamp(min=0), its)
    size = (mine.shape[-2], mine.shape[-1])
    smaller = moved.shape[-2] >= size[0] and moved.shape[-1] >= size[1]
    moved = F.adaptive_avg_pool2d(moved, size) if smaller else F.interpolate(moved, size, mode="bilinear")
    moved = moved / moved.sum(1, keepdim=True).clamp(min=1e-6)
    surprise = moved.clamp(min=1e-6).log() - mine.clamp(min=1e-6).log()
    return (moved * surprise).sum(1).mean()


def attention_distance(
    student: Float[Tensor, "n c h w"], teacher: Float[Tensor, "m d hd wd"]
) -> Float[Tensor, ""]:
    """Attention transfer (Zagoruyko and Komodakis, ICLR 2017): how far the maps of mean squares are apart.

    Maps have length 1 each, so that channels and scales of the two networks need not agree: 0 to 2. Where
    one layer saw more images, those that both saw first are compared (StereoNet looks at a pair twice).
    """
    both = min(len(student), len(teacher))
    mine, its = (
        features.float().square().mean(1, keepdim=True) for features in (student[:both], teacher[:both])
    )
    size = (mine.shape[-2], mine.shape[-1])
    its = F.interpolate(its, size, mode="bilinear", antialias=True)
    mine, its = (F.normalize(attention.flatten(1), dim=1) for attention in (mine, its))
    return (mine - its).square().sum(1).mean()
