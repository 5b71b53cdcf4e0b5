"""A network as a predictor: padding as it declares, batches, device, precision, confidence."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stereopsis import confidence, geometry
from stereopsis.models.base import StartableModel, StereoModel, TwoSided
from stereopsis.prediction.certainty import Certainty
from stereopsis.prediction.compilation import compiler_options
from stereopsis.prediction.graph import TensorGraph
from stereopsis.prediction.rescaled import enlarged
from stereopsis.structures import StereoOutput, StereoPair

Precision = Literal["float32", "bfloat16", "float16"]
Compile = Literal["no", "default", "cudagraphs"]


class NetworkPredictor:
    """A stereo network in evaluation mode, called with pairs of any size.

    device: where it runs ("cpu", "cuda", "cuda:1"); precision: float32, or an autocast to bfloat16 or
    float16; batch_size: pairs a pass; both: also the right view's disparity, and occlusion from
    left-right disagreement. compile: "default" fuses operators with torch.compile (needs a C++ compiler;
    minutes at the first pair, again at other sizes), "cudagraphs" also replays the launches of a CUDA
    device; outputs are then plain StereoOutputs. Confidence is the network's own, else what its output's
    kind tells, else left-right agreement; with `certainty`, what that makes of it. Outputs are on the CPU,
    float32, at the size of the pair.
    """

    def __init__(
        self,
        model: StereoModel[Any, Any],
        *,
        device: str | torch.device = "cpu",
        precision: Precision = "float32",
        batch_size: int = 1,
        both: bool = False,
        compile: Compile = "no",  # noqa: A002 - as torch calls it
        certainty: Certainty | None = None,
    ) -> None:
        if precision not in get_args(Precision):
            raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, not {precision!r}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, it is {batch_size}")
        self.device = available_device(device)
        self.model = model.to(self.device).eval()
        self.precision = precision
        self.batch_size = batch_size
        self.both = both
        self.certainty = certainty
        if compile not in get_args(Compile):
            raise ValueError(f"compile must be one of {', '.join(get_args(Compile))}, not {compile!r}")
        if compile == "cudagraphs" and self.device.type != "cuda":
            raise ValueError(f"CUDA graphs need a CUDA device, not {self.device}: take compile=default")
        self._compiled = None if compile == "no" else _compiled(self.model, compile)

    @property
    def runtime(self) -> str:
        """What runs it and its arithmetic."""
        return f"PyTorch {torch.__version__}, {self.precision}" + (
            "" if self._compiled is None else ", compiled"
        )

    @property
    def least_pixels(self) -> int:
        """Smaller pairs are enlarged."""
        return self.model.least_pixels

    def __call__(self, pair: StereoPair, *, initial: Float[Tensor, "*b h w"] | None = None) -> StereoOutput:
        """initial: where a `StartableModel` begins, in pixels of the pair, infinite where unknown.

        The right view's disparity, where it is asked for, starts as ever. Raises ValueError where the
        network, or the way it runs, takes none, and where it is NaN or of another size.
        """
        if initial is None:
            return enlarged(self.at_size, pair, self.least_pixels)
        self.check_startable()
        _check_start(initial, pair)
        return self.at_size(pair, initial=initial)

    def check_startable(self) -> None:
        """ValueError where no disparity can be given to start from."""
        if not isinstance(self.model, StartableModel):
            raise ValueError(
                f"{type(self.model).__name__} takes no disparity to start from: "
                "only the RAFT-Stereo, IGEV and Selective networks do"
            )
        if self._compiled is not None:
            raise ValueError("a compiled network takes no disparity to start from: load it with compile='no'")

    @torch.inference_mode()
    def at_size(self, pair: StereoPair, *, initial: Float[Tensor, "*b h w"] | None = None) -> StereoOutput:
        """The pair as it is, never enlarged."""
        leading = pair.left.shape[:-3]
        flat = pair.map(lambda image: image.reshape(-1, *image.shape[-3:]))
        starts = None if initial is None else initial.reshape(-1, *pair.size)
        outputs = []
        for first in range(0, flat.left.shape[0], self.batch_size):
            chosen = slice(first, first + self.batch_size)
            part = flat.map(lambda image, chosen=chosen: image[chosen])
            outputs.append(self._predict(part, None if starts is None else starts[chosen]))
        return type(outputs[0]).join(outputs).reshaped(leading)

    def _predict(self, pair: StereoPair, initial: Float[Tensor, "b h w"] | None) -> StereoOutput:
        height, width = pair.size
        padding = self.model.padding
        top, bottom, left, right = padding.amounts(height, width)
        padded = pair.to(self.device).map(padding.pad)
        if initial is not None:
            initial = F.pad(initial.to(self.device), (left, right, top, bottom), value=math.inf)
        output = self._run(padded, initial)
        if self.both or confidence.confidence_of(output) is None:
            output = self._with_right_view(padded, output)
        output = dataclasses.replace(output, confidence=confidence.confidence_of(output))
        if self.certainty is not None:
            output = dataclasses.replace(output, confidence=self.certainty(padded, output))
        return output.cropped(top, left, height, width).to("cpu", torch.float32)

    def _run(self, pair: StereoPair, initial: Float[Tensor, "b h w"] | None = None) -> StereoOutput:
        with self._autocast():
            if initial is not None:
                return self.model(pair.left, pair.right, initial=initial).to(torch.float32)
            if self._compiled is None:
                return self.model(pair.left, pair.right).to(torch.float32)
            # Graphs that are replayed write into the same memory each time: what they gave is copied.
            maps = [m.float().clone() for m in self._compiled(pair.left, pair.right)]
        return StereoOutput(maps[0], maps[1] if len(maps) > 1 else None)

    def _autocast(self) -> AbstractContextManager[object]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, getattr(torch, self.precision))

    def _with_right_view(self, pair: StereoPair, output: StereoOutput) -> StereoOutput:
        if isinstance(self.model, TwoSided):
            with self._autocast():
                right = self.model.forward_side(pair.left, pair.right, side="right").disparity.float()
        else:
            mirrored = self._run(StereoPair(pair.right.flip(-1), pair.left.flip(-1)))
            right = mirrored.disparity.flip(-1)
        occluded = geometry.occlusion(output.disparity, right) if self.both else output.occluded
        return dataclasses.replace(output, right_disparity=right, occluded=occluded)


def _check_start(initial: Tensor, pair: StereoPair) -> None:
    wanted = (*pair.left.shape[:-3], *pair.size)
    if tuple(initial.shape) != wanted:
        raise ValueError(
            f"the initial disparity must have the shape of the pair, {list(wanted)}: "
            f"it is {list(initial.shape)}"
        )
    if bool(initial.isnan().any()):
        raise ValueError("the initial disparity holds NaN: write infinity where it is unknown")


def _compiled(model: StereoModel[Any, Any], kind: Compile) -> Callable[..., tuple[Tensor, ...]]:
    graph = TensorGraph(model)
    if kind == "cudagraphs":
        return torch.compile(graph, mode="reduce-overhead")
    return torch.compile(graph, options=compiler_options())


def available_device(device: str | torch.device) -> torch.device:
    """The device; ValueError where it is not there."""
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"the device {device} is not available here: {str(error).splitlines()[0]}"
        ) from error
    return found
