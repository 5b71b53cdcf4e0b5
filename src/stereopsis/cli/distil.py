"""`stereopsis distil`: a student trained on a teacher's labels, measured before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from stereopsis.evaluation.results import Evaluation
    from stereopsis.training.config import TrainSettings

_RECIPE = "experiment=distil"
_RANDOM = "before.safetensors"


def distil(
    settings: Annotated[
        list[str],
        typer.Argument(
            help="KEY=VALUE: student=NAME labels=FOLDER output=FOLDER, weights=FILE, ratio=0.5, "
            "mix=synthetic:general, protocol=NAME, root=FOLDER, limit=N, allow_leak=true, "
            "and any setting of train."
        ),
    ],
) -> None:
    """Train a light network on labels of a heavy one; with protocol=NAME, measure before and after.

    The student starts from `weights`, else from those that come with the package, else from random ones.
    `ratio` of the pairs are labelled ones, the others come from `mix`: synthetic:DISTRIBUTION,
    DATASET:FOLDER, or none. Confidence is the weight of each pixel. All of training's settings may
    be given too; the same command again goes on from where it stopped.

    Example: stereopsis distil student=fast labels=labels/ output=runs/student protocol=synthetic:indoor
    """
    from stereopsis.cli._before_after import write_comparison
    from stereopsis.cli._outputs import check_folder, make_folder
    from stereopsis.training.main import exit_code, train

    chosen = read_choices(settings)
    check_folder(chosen.output)
    make_folder(chosen.output)
    start = _starting_weights(chosen)
    training = _training(chosen, start)
    _check_leak(chosen, training)
    before = _measured(chosen, start, "before") if chosen.protocol else None
    result = train(training)
    if result.interrupted is not None or result.weights is None:
        typer.echo(f"stopped at step {result.steps}: the same command goes on from there", err=True)
        raise typer.Exit(exit_code(result))
    typer.echo(f"{result.steps} steps: weights in {result.weights}")
    if before is not None:
        after = _measured(chosen, result.weights, "after")
        report = chosen.output / "report.html"
        comparison = write_comparison(report, before, after, labels=Path(chosen.labels))
        first = comparison.differences[0]
        typer.echo(f"{first.column}: {first.first:.4g} before, {first.second:.4g} after; all in {report}")


@dataclass(frozen=True, kw_only=True)
class Choices:
    """The settings that are distillation's own, and the rest, which are training's."""

    student: str
    labels: str
    output: Path
    weights: str = ""
    ratio: float = 0.5
    mix: str = "synthetic:general"
    protocol: str = ""
    root: str = ""
    limit: int | None = None
    allow_leak: bool = False
    training: tuple[str, ...] = ()


def read_choices(settings: Sequence[str]) -> Choices:
    """From KEY=VALUE; ValueError names what is missing or cannot be."""
    own: dict[str, str] = {}
    rest = []
    names = {field.name for field in fields(Choices)} - {"training"}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if equals and key in names:
            own[key] = value
        else:
            rest.append(setting)
    for name in ("student", "labels", "output"):
        if not own.get(name):
            raise ValueError(f"say {name}=... (stereopsis distil student=NAME labels=FOLDER output=FOLDER)")
    ratio, limit = _number(own, "ratio", 0.5), own.get("limit")
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio is the share of labelled pairs, above 0 and at most 1, not {ratio:g}")
    if limit is not None and not (limit.isdigit() and int(limit) > 0):
        raise ValueError(f"limit is a number of images, not {limit!r}")
    allowed = own.get("allow_leak", "false").lower()
    if allowed not in ("true", "false"):
        raise ValueError(f"allow_leak is true or false, not {allowed!r}")
    texts = {name: own[name] for name in ("weights", "mix", "protocol", "root") if name in own}
    return Choices(
        student=own["student"],
        labels=own["labels"],
        output=Path(own["output"]),
        ratio=ratio,
        limit=None if limit is None else int(limit),
        allow_leak=allowed == "true",
        training=tuple(rest),
        **texts,
    )


def _number(own: dict[str, str], name: str, default: float) -> float:
    try:
        return float(own.get(name, default))
    except ValueError:
        raise ValueError(f"{name} is a number, not {own[name]!r}") from None


def _starting_weights(chosen: Choices) -> Path:
    """The file that the student starts from; random weights are written into the output first."""
    import torch

    from stereopsis.io.files import existing_file
    from stereopsis.io.weights import WeightsHeader, write_weights
    from stereopsis.prediction.provenance import weights_file
    from stereopsis.training.config import read_settings
    from stereopsis.training.main import build_model

    if chosen.weights:
        return existing_file(chosen.weights, "a weights")
    shipped = weights_file(chosen.student, None)
    if shipped is not None:
        return shipped
    path = chosen.output / _RANDOM
    if not path.exists():
        settings = read_settings(
            [_RECIPE, *chosen.training, f"model.name={chosen.student}", *_of_labels(chosen)]
        )
        torch.manual_seed(settings.trainer.seed)
        model = build_model(settings.model)
        config = {field.name: getattr(model.config, field.name) for field in fields(model.config)}
        header = WeightsHeader(
            network=chosen.student, config=config, licence=settings.licence, provenance="random weights"
        )
        write_weights(path, model.state_dict(), header)
    return path


def _training(chosen: Choices, before: Path) -> TrainSettings:
    """Training's settings: the recipe, the student's usual loss, then what the user says."""
    from stereopsis.training.config import read_settings

    start = [f"model.name={chosen.student}", f"model.weights={before}", f"output={chosen.output}"]
    # What trained norms know of many pairs, a few small batches would spoil.
    frozen = [f"model.freeze_batch_norm={'false' if before == chosen.output / _RANDOM else 'true'}"]
    given = list(chosen.training)
    recipe = [] if any(setting.startswith("experiment=") for setting in given) else [_RECIPE]
    if recipe and not any(setting.startswith("loss") for setting in given):
        recipe += _usual_loss(before)
    return read_settings([*recipe, *_of_labels(chosen), "data.validation=[]", *frozen, *given, *start])


def _of_labels(chosen: Choices) -> list[str]:
    """The sources: labels, and beside them what is mixed in."""
    labelled = f"{{name: labelled, split: train, root: {chosen.labels}, weight: {chosen.ratio}}}"
    name, _, where = chosen.mix.partition(":")
    if chosen.mix == "none" or chosen.ratio == 1:
        return [f"data.sources=[{labelled}]"]
    if not where:
        raise ValueError(f"mix is synthetic:DISTRIBUTION, DATASET:FOLDER or none, not {chosen.mix!r}")
    weight = f"weight: {1 - chosen.ratio:g}"
    if name == "synthetic":
        return [f"data.sources=[{labelled},{{name: synthetic, distribution: {where}, {weight}}}]"]
    from stereopsis.data.sources.registry import dataset_entry

    split = dataset_entry(name).card.splits[0]
    return [f"data.sources=[{labelled},{{name: {name}, split: {split}, root: {where}, {weight}}}]"]


def _usual_loss(weights: Path) -> list[str]:
    """The loss of what the student gives in training, tried on a small pair."""
    import torch

    from stereopsis.losses import usual_loss
    from stereopsis.models.base import StereoModel
    from stereopsis.prediction.loading import load_model

    model = load_model(weights)
    if not isinstance(model, StereoModel):
        raise ValueError(f"{weights} is monocular: a student gives disparity")
    image = model.padding.pad(torch.rand(2, 3, 64, 128))
    with torch.no_grad():
        name, options = usual_loss(model.train()(image, image))
    return [f"loss={name}", *(f"loss.options.{key}={value}" for key, value in options.items())]


def _check_leak(chosen: Choices, training: TrainSettings) -> None:
    """Before any work: ValueError where the student would be measured on what is mixed in."""
    from stereopsis.cli.evaluate import protocol_named
    from stereopsis.evaluation.contestants import leaks

    if not chosen.protocol or chosen.allow_leak:
        return
    splits = [f"{source.name}/{source.split}" for source in training.data.sources]
    found = leaks(
        [split for split in splits if not split.startswith("synthetic/")], protocol_named(chosen.protocol)
    )
    if found:
        raise ValueError(
            f"{', '.join(found)} would be trained on and measured: choose another protocol or mix, or say "
            f"allow_leak=true"
        )


def _measured(chosen: Choices, weights: Path, title: str) -> Evaluation:
    from stereopsis.cli.evaluate import protocol_named, roots_of
    from stereopsis.evaluation.contestants import contestant, leak_note
    from stereopsis.evaluation.results import write_evaluation
    from stereopsis.evaluation.run import evaluate

    wanted = protocol_named(chosen.protocol)
    found = contestant(str(weights))
    journal = chosen.output / f".{title}.{found.digest[:8]}.journal.jsonl"
    evaluation = evaluate(
        found.predictor,
        wanted,
        name=f"{chosen.student} {title}",
        digest=found.digest,
        roots=roots_of([chosen.root] if chosen.root else [], wanted),
        journal=journal,
        limit=chosen.limit,
        notes=leak_note(found, wanted, allowed=chosen.allow_leak),
    )
    write_evaluation(chosen.output / f"{title}.json", evaluation)
    journal.unlink(missing_ok=True)
    return evaluation
