"""`stereopsis import-weights`: a published checkpoint as safetensors that say what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_weights(
    checkpoint: Annotated[Path, typer.Argument(help="Published file: .pth, .pth.tar, .tar, .ckpt, .pt")],
    output: Annotated[Path, typer.Option("--output", help="The .safetensors file to write.")],
) -> None:
    """Rewrite a published checkpoint, without running its code, with config, licence and provenance.

    Example: stereopsis import-weights raftstereo-eth3d.pth --output raftstereo-eth3d.safetensors
    """
    import dataclasses
    import hashlib

    from stereopsis.io.weights import WeightsHeader, check_weights_target, write_weights
    from stereopsis.models.base import count_parameters
    from stereopsis.models.registry import entry, name_of
    from stereopsis.prediction.loading import load_model

    check_weights_target(output)
    model = load_model(checkpoint)
    name = name_of(model)
    card = entry(name).card
    with checkpoint.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    header = WeightsHeader(
        network=name,
        config=dataclasses.asdict(model.config),
        licence=card.weights_licence,
        provenance=f"{checkpoint.name} of {card.repository}, sha256 {digest}",
    )
    write_weights(output, model.state_dict(), header)
    typer.echo(f"{name}, {count_parameters(model):,} parameters, licence {card.weights_licence}: {output}")
