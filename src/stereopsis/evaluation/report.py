"""An evaluation as one HTML file that needs nothing else: meaning, figures, charts, pictures, worst first."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from html import escape
from pathlib import Path

from stereopsis.evaluation.charts import histogram_chart, sparsification_chart
from stereopsis.evaluation.pictures import KINDS, Pictures
from stereopsis.evaluation.results import Evaluation, Row
from stereopsis.evaluation.tables import formatted, worst_first
from stereopsis.html import embedded, head
from stereopsis.html import row as table_row
from stereopsis.io.atomic import writing
from stereopsis.visual import KITTI_COLOURS, KITTI_STEPS

SHOWN = 40
"""Images with pictures in each part; the others have their row of figures."""


def write_report(path: str | Path, evaluation: Evaluation, pictures: Pictures) -> None:
    """Writes the report, whole or not at all; pictures are taken from their folder and embedded."""
    with writing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for piece in _pieces(evaluation, pictures):
            file.write(piece + "\n")


def _pieces(evaluation: Evaluation, pictures: Pictures) -> Iterable[str]:
    title = f"{evaluation.predictor} on {evaluation.protocol}"
    yield f"{head(title)}<ul>"
    yield from (f"<li>{escape(line)}</li>" for line in evaluation.description)
    yield "</ul>"
    yield from (f'<p class="note">{escape(note)}</p>' for note in evaluation.notes)
    for failure in evaluation.failures:
        yield f'<p class="failed">{escape(failure.name)}: {escape(failure.reason)}</p>'
    for part in range(len(evaluation.parts)):
        yield from _part(evaluation, part, pictures)
    yield "</body></html>"


def _part(evaluation: Evaluation, part: int, pictures: Pictures) -> Iterable[str]:
    rows = worst_first(evaluation, part=part)
    columns = evaluation.columns[part]
    yield f"<h2>{escape(evaluation.parts[part])}: {len(rows)} images</h2>"
    yield "<table><tr><th>metric, mask</th><th>value</th><th>images</th><th>without</th></tr>"
    for average in evaluation.averages:
        if average.part == part:
            cells = (
                average.column,
                formatted(average.column, average.value),
                average.images,
                average.empty or "",
            )
            yield table_row(cells)
    yield f'</table><div class="charts">{histogram_chart(rows)}{sparsification_chart(rows)}</div>'
    if not rows:
        return
    yield f"<h2>Image by image, the worst in {escape(columns[0])} first</h2><table>"
    yield table_row(("image", *columns, "s"), cell="th")
    for row in rows:
        values = (formatted(name, f.value) for name, f in zip(columns, row.figures, strict=True))
        yield table_row((row.name, *values, f"{row.seconds:.2f}"))
    yield f"</table>{_key()}"
    if len(rows) > SHOWN:
        yield f"<p>Pictures of the {SHOWN} worst of {len(rows)} images.</p>"
    for row in itertools.islice(rows, SHOWN):
        yield from _scene(row, columns, pictures)


def _scene(row: Row, columns: tuple[str, ...], pictures: Pictures) -> Iterable[str]:
    figures = zip(columns, row.figures, strict=True)
    shown = ", ".join(
        f"{name} {formatted(name, figure.value)}" for name, figure in itertools.islice(figures, 5)
    )
    yield f'<div class="scene"><b>{escape(row.name)}</b> {escape(shown)}<div class="pictures">'
    for kind in KINDS:
        content = pictures.get(row, kind)
        if content is not None:
            yield embedded(content, title=row.name, kind=kind)
    yield "</div></div>"


def _key() -> str:
    """What the colours of errors mean: the same for every image."""
    spans = []
    bounds = (0.0, *KITTI_STEPS, float("inf"))
    for place, colour in enumerate(KITTI_COLOURS):
        low, high = 3 * bounds[place], 3 * bounds[place + 1]
        text = f"over {low:g}" if high == float("inf") else f"{low:.2g}-{high:.2g}"
        dark = ' class="dark"' if int(colour.sum()) < 400 else ""
        spans.append(
            f'<span{dark} style="background: rgb({colour[0]}, {colour[1]}, {colour[2]})">{text}</span>'
        )
    legend = "error in pixels (times truth / 60 where the truth is above 60 px); black: no truth"
    return f'<p class="key">{"".join(spans)} {legend}</p>'
