"""`stereopsis calibrate`: a predictor's confidence made a probability, fitted on rendered or own pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stereopsis.structures import StereoSample

_SEED = 977_000_017


def calibrate(
    weights: Annotated[Path, typer.Argument(help="A .safetensors file of ours.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write here instead of over the file.")
    ] = None,
    distribution: Annotated[str, typer.Option(help="Of the rendered pairs to fit on.")] = "general",
    scenes: Annotated[
        Path | None, typer.Option(help="Fit on this folder of scenes with truth instead.")
    ] = None,
    pairs: Annotated[int, typer.Option(min=4, help="How many; half as many more are held back.")] = 40,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of rendered pairs.")] = "512x384",
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    exportable: Annotated[
        bool, typer.Option("--exportable", help="Only of what an exported file also gives.")
    ] = False,
) -> None:
    """Fit what confidence means, so that of pixels with confidence 0.8 four in five are right to a pixel.

    The fit lies in the file's header, and every prediction with these weights uses it. The figures
    printed are of pairs that it was not fitted on.

    Example: stereopsis calibrate runs/fast/weights.safetensors --pairs 40
    """
    from itertools import islice

    from stereopsis.cli._sizes import parse_size
    from stereopsis.io.weights import check_weights_target
    from stereopsis.labelling.calibrate import CHEAP, answers, best, quality, store
    from stereopsis.models.base import StereoModel
    from stereopsis.prediction.certainty import PLAIN
    from stereopsis.prediction.loading import load_model
    from stereopsis.prediction.network import NetworkPredictor

    if output is not None:
        check_weights_target(output)
    model = load_model(weights)
    if not isinstance(model, StereoModel):
        raise ValueError(f"{weights} holds a monocular network: it has no disparity to be sure of")
    predictor = NetworkPredictor(model, device=device)
    samples = _opened(scenes) if scenes is not None else _rendered(distribution, parse_size(size))
    found = list(answers(predictor, islice(samples, pairs + pairs // 2)))
    held = len(found) // 3
    if held < 2:
        raise ValueError(f"{scenes} holds {len(found)} pairs with truth: at least 6 are needed")
    source = scenes.name if scenes is not None else f"synthetic/{distribution} seed {_SEED}"
    certainty, after = best(found[held:], found[:held], facts=source, cues=PLAIN if exportable else CHEAP)
    before = quality(found[:held])
    store(weights, certainty, into=output)
    for title, measured in (("before", before), ("after", after)):
        typer.echo(
            f"{title}: AUSE {measured.ause:.4f} px (random {measured.random:.4f}), "
            f"AUROC {measured.auroc:.4f}, ECE {measured.ece:.4f}"
        )
    typer.echo(f"of {', '.join(certainty.cues)}, on {held} held-back pairs: {output or weights}")


def _rendered(distribution: str, size: tuple[int, int]) -> Iterator[StereoSample]:
    from stereopsis.synthesis.stream import SyntheticStream

    return iter(SyntheticStream(_SEED, distribution, size=size))


def _opened(folder: Path) -> Iterator[StereoSample]:
    from stereopsis.data.dataset import StereoDataset
    from stereopsis.data.sources.registry import list_pairs

    return iter(StereoDataset(list_pairs("scenes", "truth", root=folder)))
