"""`stereopsis models`: what can be named with --model, with licences, size and published figures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

import typer


@dataclass(frozen=True)
class Row:
    """One predictor or network; parameters of networks only."""

    name: str
    title: str
    parameters: int | None
    code_licence: str
    weights_licence: str
    shipped: bool
    paper: str
    repository: str
    published: tuple[str, ...]
    notes: tuple[str, ...]


def models(
    name: Annotated[str | None, typer.Argument(help="Only this one, with everything known of it.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """List every model: title, parameters, licences of code and weights, and whether weights come along.

    Published weights are not redistributed: fetch them from the repository that a model's page names.

    Example: stereopsis models raft-stereo
    """
    rows = [*_classical(name), *(() if name in _CLASSICAL else _networks(name))]
    if json:
        import json as writer

        typer.echo(writer.dumps([asdict(row) for row in rows], indent=1))
    elif name is not None:
        _print_page(rows[-1])
    else:
        _print_table(rows)


_CLASSICAL = {
    "sgbm": ("OpenCV's semi-global matching, padded, checked and filled", "-"),
    "sgbm-refined": ("SGBM and fast at two sizes, at every pixel by vote", "Apache-2.0 (those of fast)"),
    "sgbm-oracle": ("SGBM as in a recorded baseline, for comparison (stereopsis evaluate)", "-"),
}
"""Title, and the licence of the weights inside."""


def _classical(name: str | None) -> list[Row]:
    return [
        Row(
            name=key,
            title=title,
            parameters=None,
            code_licence="Apache-2.0",
            weights_licence=licence,
            shipped=True,
            paper="H. Hirschmüller, Stereo processing by semiglobal matching and mutual information, 2008",
            repository="https://github.com/opencv/opencv",
            published=(),
            notes=(),
        )
        for key, (title, licence) in _CLASSICAL.items()
        if name in (None, key)
    ]


def _networks(name: str | None) -> list[Row]:
    import torch

    from stereopsis.models.base import count_parameters
    from stereopsis.models.registry import create, entry, list_models

    rows = []
    for key in list_models() if name is None else [entry(name).name]:
        card = entry(key).card
        with torch.device("meta"):
            parameters = count_parameters(create(key))
        rows.append(
            Row(
                name=key,
                title=card.title,
                parameters=parameters,
                code_licence=card.code_licence,
                weights_licence=card.weights_licence,
                shipped=_is_shipped(key),
                paper=card.paper,
                repository=card.repository,
                published=card.published,
                notes=card.notes,
            )
        )
    return rows


def _is_shipped(name: str) -> bool:
    from stereopsis.prediction.loading import shipped_weights

    try:
        return shipped_weights(name).exists()
    except ValueError:
        return False


def _print_table(rows: list[Row]) -> None:
    lines = [("model", "parameters", "licence of code", "of weights")]
    for row in rows:
        weights = (
            f"{row.weights_licence} (come along)" if row.shipped and row.parameters else row.weights_licence
        )
        lines.append((row.name, _count(row), row.code_licence, weights))
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    for name, count, code, weights in lines:
        typer.echo(f"{name:<{widths[0]}}  {count:>{widths[1]}}  {code:<{widths[2]}}  {weights}")


def _print_page(row: Row) -> None:
    typer.echo(f"{row.name}: {row.title}")
    typer.echo(f"  paper       {row.paper}")
    typer.echo(f"  repository  {row.repository}")
    typer.echo(f"  parameters  {_count(row)}")
    typer.echo(f"  licence     code {row.code_licence}, weights {row.weights_licence}")
    for heading, lines in (("published", row.published), ("notes", row.notes)):
        for index, line in enumerate(lines):
            typer.echo(f"  {heading if index == 0 else '':<11} {line}")


def _count(row: Row) -> str:
    if row.parameters is None:
        return "-"
    return f"{row.parameters / 1e6:.2f} M"
