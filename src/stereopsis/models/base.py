"""What every network is: a module built from one frozen config, with its padding and its published names."""

from __future__ import annotations

import dataclasses
import difflib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar, cast, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.convolution import freeze_batch_norm_2d
from stereopsis.structures import MonoOutput, StereoOutput

Config = TypeVar("Config")
Output = TypeVar("Output", bound=StereoOutput)
StateDict = dict[str, Tensor]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Padding:
    """How images grow to sizes that a network accepts; part of what a checkpoint means.

    multiple: (height, width) divisors; vertical, horizontal: the side that grows ("both" puts the
    smaller half at the top or left); fill: an RGB colour in [0, 1] (the mean of a normalisation gives
    zeros after it), "mirror" for the image reflected at its edges (edge pixels twice), or None for
    replicated borders; minimum: smallest padded (height, width).
    """

    multiple: tuple[int, int] = (1, 1)
    vertical: Literal["top", "bottom", "both"] = "both"
    horizontal: Literal["left", "right", "both"] = "both"
    fill: tuple[float, float, float] | Literal["mirror"] | None = None
    minimum: tuple[int, int] = (1, 1)

    def amounts(self, height: int, width: int) -> tuple[int, int, int, int]:
        """(top, bottom, left, right) for an image of this size."""
        rows = _growth(height, self.multiple[0], self.minimum[0])
        columns = _growth(width, self.multiple[1], self.minimum[1])
        top = {"top": rows, "bottom": 0, "both": rows // 2}[self.vertical]
        left = {"left": columns, "right": 0, "both": columns // 2}[self.horizontal]
        return top, rows - top, left, columns - left

    def pad(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 hp wp"]:
        top, bottom, left, right = self.amounts(image.shape[-2], image.shape[-1])
        if top == bottom == left == right == 0:
            return image
        if self.fill is None:
            return F.pad(image, (left, right, top, bottom), mode="replicate")
        if self.fill == "mirror":
            rows = _mirrored(image.shape[-2], top, bottom, like=image)
            columns = _mirrored(image.shape[-1], left, right, like=image)
            return image.index_select(-2, rows).index_select(-1, columns)
        canvas = image.new_tensor(self.fill)[:, None, None].expand(
            *image.shape[:-2], image.shape[-2] + top + bottom, image.shape[-1] + left + right
        )
        canvas = canvas.clone()
        canvas[..., top : top + image.shape[-2], left : left + image.shape[-1]] = image
        return canvas


def _mirrored(length: int, before: int, after: int, *, like: Tensor) -> Tensor:
    """Indices of an axis grown by reflection, edges repeated."""
    positions = torch.arange(-before, length + after, device=like.device) % (2 * length)
    return torch.minimum(positions, 2 * length - 1 - positions)


def _growth(length: int, multiple: int, minimum: int) -> int:
    grown = max(length, minimum)
    return grown + (-grown) % multiple - length


class StereoModel(nn.Module, ABC, Generic[Config, Output]):
    """A stereo network.

    `forward(left, right)` takes float RGB in [0, 1], `[b 3 h w]`, already padded as `padding` says,
    and gives disparity in pixels of these images; it normalises and orders channels itself. In training
    mode the output also holds what the loss supervises (`stages`, `iterates`). Device, dtype and
    autocast belong to the caller.
    """

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    @property
    def padding(self) -> Padding:
        """How the predictor pads images for this network."""
        return Padding()

    @property
    def least_pixels(self) -> int:
        """Predictors enlarge images of fewer pixels, where they can choose the size, to about so many."""
        return 0

    @abstractmethod
    def forward(self, left: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"]) -> Output: ...

    # What a published checkpoint means. `recognise` and `from_official` see the tensors by their
    # published names, nesting and `module.` already stripped.

    official_prefixes: ClassVar[tuple[str, ...]] = ()
    """Prefixes, beside `module.`, under which published files hold this network's tensors."""

    @classmethod
    @abstractmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> Any | None:
        """The config that these tensors imply (what they cannot tell: published defaults), or None.

        Looks for a few names that only this network has, never fails on foreign tensors.
        """

    @classmethod
    @abstractmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> StateDict:
        """Published names -> ours; names that it does not know stay, so that strict loading sees them."""

    def without_unused(self, state: StateDict) -> StateDict:
        """Of a published checkpoint's tensors, under our names, those that this configuration can have.

        Networks that run with parts of a larger checkpoint leave the other parts out here.
        """
        return state


class FreezableConfig(Protocol):
    @property
    def frozen_norms(self) -> bool:
        """Whether the batch norms of images keep their statistics in training."""
        ...


Freezable = TypeVar("Freezable", bound=FreezableConfig)
Recurrent = TypeVar("Recurrent", bound="RecurrentModel[Any, Any]")


class RecurrentModel(StereoModel[Freezable, Output]):
    """What RAFT-Stereo and the networks after it share: their padding, and batch norms that may be frozen."""

    @property
    def padding(self) -> Padding:
        return Padding(multiple=(32, 32), minimum=(32, 64))

    def train(self: Recurrent, mode: bool = True) -> Recurrent:
        super().train(mode)
        if self.config.frozen_norms:
            freeze_batch_norm_2d(self)
        return self


class StartableModel(RecurrentModel[Freezable, Output]):
    """A recurrent network whose updates may start from a disparity that is given, not from its own."""

    @abstractmethod
    def forward(
        self,
        left: Float[Tensor, "b 3 h w"],
        right: Float[Tensor, "b 3 h w"],
        *,
        initial: Float[Tensor, "b h w"] | None = None,
    ) -> Output:
        """initial: pixels of these images; where it is not finite, the network starts as it would."""


class Backbone(nn.Module, ABC):
    """Dense features of a pair for a head that is queried elsewhere (see SMD-Nets), by name in the registry.

    `forward(left, right)` takes images as the head's network prepares them, `[b c h w]`, and gives maps
    of any resolution, `[b f hf wf]`; channels: f of each map; smallest: the shortest side that it takes,
    in pixels. Constructed with `max_disparity`, `in_channels` and `width` (its own default).
    """

    channels: tuple[int, ...]
    smallest: int

    @abstractmethod
    def forward(self, left: Float[Tensor, "b c h w"], right: Float[Tensor, "b c h w"]) -> list[Tensor]: ...

    @classmethod
    @abstractmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> StateDict:
        """Published names (the prefix of the whole already stripped) -> ours; what is unused is left out."""


@runtime_checkable
class TwoSided(Protocol):
    """A network that gives the disparity of either view from the pair as it is."""

    def forward_side(
        self,
        left: Float[Tensor, "b 3 h w"],
        right: Float[Tensor, "b 3 h w"],
        *,
        side: Literal["left", "right"],
    ) -> StereoOutput: ...


@runtime_checkable
class Adopting(Protocol):
    """A stereo network that holds the parts of another network, and can take them over."""

    def adopt(self, prior: StereoModel[Any, Any] | MonoModel[Any]) -> None:
        """Copies the prior's tensors; ValueError where it is another network, or of another size."""


class MonoModel(nn.Module, ABC, Generic[Config]):
    """A monocular network: `forward(image)` takes float RGB in [0, 1], `[b 3 h w]`, of any size."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    official_prefixes: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def forward(self, image: Float[Tensor, "b 3 h w"]) -> MonoOutput: ...

    @classmethod
    @abstractmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> Any | None: ...

    @classmethod
    @abstractmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> StateDict: ...


def rename(
    state: Mapping[str, Tensor],
    rules: Iterable[tuple[str, str | Callable[[re.Match[str]], str]]],
    *,
    drop: Iterable[str] = (),
) -> StateDict:
    """The tensors under new names: every rule (`re.sub` pattern, replacement) in order, on each name.

    Names that match an expression in `drop` (`re.search`, on the old name) are left out.
    Raises ValueError where two tensors would get one name.
    """
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]
    dropped = [re.compile(pattern) for pattern in drop]
    renamed: StateDict = {}
    for old, tensor in state.items():
        if any(pattern.search(old) for pattern in dropped):
            continue
        new = old
        for pattern, replacement in compiled:
            new = pattern.sub(replacement, new)
        if new in renamed:
            raise ValueError(f"two tensors of the checkpoint map to {new!r} (one of them is {old!r})")
        renamed[new] = tensor
    return renamed


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Load tensors that must fit exactly; ValueError names the first that are missing, extra or misshapen.

    `num_batches_tracked` counters may be absent: old checkpoints have none, and they change nothing.
    """
    own = module.state_dict()
    given = dict(state)
    for key, tensor in own.items():
        if key.endswith("num_batches_tracked"):
            given.setdefault(key, tensor)
    missing = sorted(own.keys() - given.keys())
    extra = sorted(given.keys() - own.keys())
    shapes = [
        f"{key} is {list(given[key].shape)}, {name} has {list(own[key].shape)}"
        for key in own.keys() & given.keys()
        if own[key].shape != given[key].shape
    ]
    problems = [
        f"{len(found)} {what}: {', '.join(found[:3])}{', ...' if len(found) > 3 else ''}"
        for what, found in (
            ("missing", missing),
            ("not known to it", extra),
            ("of another shape", sorted(shapes)),
        )
        if found
    ]
    if problems:
        raise ValueError(f"the tensors do not fit {name} ({'; '.join(problems)})")
    module.load_state_dict(given, strict=True)


def replace_config(config: Any, overrides: Mapping[str, object], name: str) -> Any:
    """The config with some fields changed; ValueError for a field that it has not, naming the nearest."""
    fields = {f.name for f in dataclasses.fields(config)}
    for key in overrides:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f", did you mean {near[0]}?" if near else ":"
            raise ValueError(f"{name} has no option {key!r}{hint} Its options: {', '.join(sorted(fields))}")
    return dataclasses.replace(cast(Any, config), **overrides)


def normalise(
    image: Float[Tensor, "b c h w"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Tensor, "b c h w"]:
    """`(image - mean) / std`, channel by channel."""
    shape = (len(mean), 1, 1)
    return (image - image.new_tensor(mean).view(shape)) / image.new_tensor(std).view(shape)


@torch.no_grad()
def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
