"""The shape of a training's settings, checked by Hydra: what `stereopsis train KEY=VALUE ...` may say."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from stereopsis.data.augment import Augmentation

_CONFIGS = Path(__file__).resolve().parents[1] / "configs"
_OPEN = ("model.options", "loss.options", "optimizer.rates")


@dataclass
class ModelSettings:
    name: str = MISSING
    """A name of `stereopsis models`."""
    options: dict[str, Any] = field(default_factory=dict)
    """Fields of the network's config."""
    weights: str | None = None
    """Start from this file: safetensors or a published checkpoint."""
    prior: str | None = None
    """Start the part that is another network (SyDE-Net's monocular one) from this file, after `weights`."""
    freeze_batch_norm: bool = False
    """Batch norm layers stay in evaluation mode (the RAFT family's recipe)."""


@dataclass
class SourceSettings:
    name: str = MISSING
    """A data set of `stereopsis datasets`, or `synthetic`."""
    split: str = "train"
    root: str | None = None
    """Its folder; where it is left out, $STEREOPSIS_DATA/<name>."""
    weight: float = 1.0
    """Its share of the pairs, relative to the other sources'."""
    distribution: str = "general"
    """Of `synthetic` only, as are size and seed."""
    size: list[int] = field(default_factory=lambda: [480, 640])
    """Height and width of rendered pairs."""
    seed: int = 0
    count: int = 1_000_000
    """Rendered pairs before they repeat."""
    augment: dict[str, Any] = field(default_factory=dict)
    """Settings of `data.augment` that are others for its pairs."""


@dataclass
class DataSettings:
    sources: list[SourceSettings] = MISSING
    batch_size: int = 4
    """Pairs a process and step."""
    workers: int = 2
    crop: list[int] | None = None
    """Height and width; None takes whole images (all of one size)."""
    max_disparity: float = 0.0
    """Truth at or above this is unknown; 0 keeps all."""
    occluded: bool = True
    """Whether truth counts that the other camera does not see; leaving it out needs sources that tell."""
    augment: Augmentation = field(default_factory=Augmentation)
    validation: list[SourceSettings] = field(default_factory=list)
    validation_count: int = 50


@dataclass
class LossSettings:
    name: str = MISSING
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class TeacherSettings:
    """A frozen network that adds to the loss what labels do not tell."""

    weights: str = ""
    """Its weights file; none: no teacher."""
    clean: bool = False
    """Whether it sees each window without augmented colours, patches, noise and rows that are off."""
    volume: float = 0.0
    """Weight of the divergence of its volume from the student's."""
    features: float = 0.0
    """Weight of the distance of attention maps, means of squared features."""
    layers: list[list[str]] = field(default_factory=list)
    """For `features`: the student's layer and the teacher's, pair by pair."""


@dataclass
class OptimizerSettings:
    name: str = "adamw"
    """adam, adamw, muon, rmsprop or sgd."""
    lr: float = 2e-4
    weight_decay: float = 0.0
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8
    momentum: float = 0.0
    schedule: str = "constant"
    """constant, one-cycle, one-cycle-cosine, steps, exponential, warmup-cosine, or trapezoid."""
    milestones: list[int] = field(default_factory=list)
    """Steps at which `steps` multiplies the rate by gamma."""
    gamma: float = 0.1
    every: int = 0
    """`exponential` multiplies the rate by gamma every so many steps."""
    warmup: float = 0.01
    """Share of all steps that one-cycle, warmup-cosine and trapezoid climb."""
    hold: float = 1.0
    """Of trapezoid: the share of all steps after which it falls."""
    final: float = 0.0
    """Of warmup-cosine: the last rate, as a share of lr; of trapezoid: the last and the first."""
    extra_steps: int = 0
    """Of one-cycle: steps of the schedule beyond the last that is trained."""
    rates: dict[str, float] = field(default_factory=dict)
    """Factors on lr for parameters whose name begins so, `*` standing for anything (0 freezes them)."""


@dataclass
class TrainerSettings:
    max_steps: int = 1000
    seed: int = 0
    precision: str = "32-true"
    """32-true, bf16-mixed or 16-mixed."""
    gradient_clip: float = 0.0
    """Largest norm of the gradient; 0 is off."""
    accumulate: int = 1
    average: float = 0.0
    """Decay of averaged (EMA) weights, which are validated and shipped; 0 is off."""
    restart_every: int = 0
    """Every so many steps an iterative network starts from its own disparity, as on videos; 0 is never."""
    checkpoint_every: int = 500
    validate_every: int = 500
    pictures_every: int = 500
    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"
    """auto or ddp."""
    sync_batch_norm: bool = True
    """Several CUDA processes take the statistics of batch norm together (the CPU's backend cannot)."""
    compile: bool = False
    channels_last: bool = False
    """2-D convolutions hold their channels innermost, which 16-bit arithmetic likes on CPUs and on CUDA."""
    threads: int = 0
    """Threads of torch on the CPU; 0 leaves its choice."""
    fast_dev_run: bool = False


@dataclass
class TrainSettings:
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    output: str = "runs/latest"
    licence: str = "Apache-2.0"
    """Of the weights that come out."""


def read_settings(overrides: Sequence[str]) -> TrainSettings:
    """Settings from the package's configs and `KEY=VALUE` overrides (`experiment=NAME` picks a recipe).

    Raises ValueError for a key or a name that does not exist, naming the nearest, for a value of the wrong
    type, and for none of what there must be one of.
    """
    ConfigStore.instance().store(name="train_schema", node=TrainSettings)
    try:
        with initialize_config_dir(str(_CONFIGS), version_base="1.3"):
            composed = compose("train", overrides=[_opened(override) for override in overrides])
        settings = cast(TrainSettings, OmegaConf.to_object(composed))
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(_explain(error, overrides)) from error
    for source in settings.data.sources:
        augmentation(settings.data, source)
    _check_counts(settings)
    return settings


def _check_counts(settings: TrainSettings) -> None:
    counts = {
        "data.batch_size": settings.data.batch_size,
        "trainer.accumulate": settings.trainer.accumulate,
        "trainer.devices": settings.trainer.devices,
        "trainer.nodes": settings.trainer.nodes,
    }
    for key, count in counts.items():
        if count < 1:
            raise ValueError(f"{key} is at least 1, not {count}")


def augmentation(data: DataSettings, source: SourceSettings) -> Augmentation:
    """What is done to the pairs of one source of `data`.

    Raises ValueError where the source names something that `data.augment` does not have, or gives it a value
    of the wrong type.
    """
    common = OmegaConf.structured(data.augment)
    try:
        return cast(Augmentation, OmegaConf.to_object(OmegaConf.merge(common, source.augment)))
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"the augment of source {source.name}, {source.augment}, does not fit data.augment: {reason}"
        ) from error


def _opened(override: str) -> str:
    """Options of networks and losses are checked by these, not by the schema: any may be given."""
    key = override.partition("=")[0]
    return f"++{override}" if _open(key) else override


def _open(key: str) -> bool:
    return any(key == part or key.startswith(f"{part}.") for part in _OPEN)


def recorded_settings(path: Path) -> dict[str, Any]:
    """The settings that a run was begun with; those that came later have their defaults.

    Raises ValueError where the file is none of ours.
    """
    try:
        recorded = OmegaConf.merge(OmegaConf.structured(TrainSettings), json.loads(path.read_text()))
    except (OmegaConfBaseException, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} does not hold a run's settings ({reason}): name another output") from error
    return cast(dict[str, Any], OmegaConf.to_container(recorded))


def list_experiments() -> list[str]:
    return sorted(path.stem for path in (_CONFIGS / "experiment").glob("*.yaml"))


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        options = _CONFIGS / key
        if options.is_dir():
            names = [path.stem for path in options.glob("*.yaml")]
            if value not in names:
                return f"{override}: there is no {key} {value!r}{_nearest(value, names)}"
        elif key not in _keys() and not _open(key):
            return f"{override}: there is no setting {key!r}{_nearest(key, _keys())}"
    reasons = [str(reason).strip().splitlines()[0] for reason in (error, error.__cause__) if reason]
    return f"the settings {' '.join(overrides) or '(none)'} do not fit: {': '.join(reasons)}"


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    known = sorted({name.split(".")[0] for name in names})
    return f"; did you mean {' or '.join(near)}?" if near else f"; there are {', '.join(known)}"


def _keys() -> list[str]:
    """Every dotted key of the settings, and every group."""

    def walk(node: type, prefix: str) -> list[str]:
        keys: list[str] = []
        hints = get_type_hints(node)
        for setting in dataclasses.fields(node):
            name = f"{prefix}{setting.name}"
            keys.append(name)
            if dataclasses.is_dataclass(hints[setting.name]):
                keys += walk(hints[setting.name], f"{name}.")
        return keys

    groups = [path.name for path in _CONFIGS.iterdir() if path.is_dir()]
    return [*groups, *walk(TrainSettings, "")]
