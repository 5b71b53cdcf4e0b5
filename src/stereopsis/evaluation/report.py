"""An evaluation as one HTML file that needs nothing else: meaning, figures, charts, pictures, worst first."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterable
from html import escape
from pathlib import Path

from stereopsis.evaluation.charts import histogram_chart, sparsification_chart
from stereopsis.evaluation.pictures import KINDS, Pictures
from stereopsis.evaluation.results import Evaluation, Row
from stereopsis.evaluation.tables import formatted, worst_first
from stereopsis.io.atomic import writing
from stereopsis.visual import KITTI_COLOURS, KITTI_STEPS

SHOWN = 40
"""Images with pictures in each part; the others have their row of figures."""

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1500px; padding: 0 1em;
  color: #222; }
h1 { font-size: 1.5em; } h2 { font-size: 1.2em; margin-top: 2em; }
table { display: block; overflow-x: auto; }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums; }
th, td { padding: 2px 10px; white-space: nowrap; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
.note { background: #fff3cd; padding: 4px 10px; } .failed { background: #f8d7da; padding: 4px 10px; }
.charts { display: flex; flex-wrap: wrap; gap: 2em; } figure { margin: 0; }
figcaption { font-weight: 600; } svg text { font: 11px system-ui, sans-serif; fill: #444; }
.bar { fill: #4575b4; } polyline { fill: none; stroke-width: 2; } line { stroke-width: 2; }
.ranked { stroke: #d73027; } .best { stroke: #4575b4; } .flat { stroke: #bbb; stroke-dasharray: 4; }
.scene { border-top: 1px solid #ddd; padding: 10px 0; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(260px, 1fr)); gap: 8px; }
.pictures img { width: 100%; display: block; image-rendering: auto; }
.key span { display: inline-block; padding: 1px 8px; font-size: 12px; } .dark { color: #fff; }
"""


def write_report(path: str | Path, evaluation: Evaluation, pictures: Pictures) -> None:
    """Writes the report, whole or not at all; pictures are taken from their folder and embedded."""
    with writing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for piece in _pieces(evaluation, pictures):
            file.write(piece + "\n")


def _pieces(evaluation: Evaluation, pictures: Pictures) -> Iterable[str]:
    title = f"{evaluation.predictor} on {evaluation.protocol}"
    yield f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
    yield f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1><ul>"
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
            yield _line(cells)
    yield f'</table><div class="charts">{histogram_chart(rows)}{sparsification_chart(rows)}</div>'
    if not rows:
        return
    yield f"<h2>Image by image, the worst in {escape(columns[0])} first</h2><table>"
    yield _line(("image", *columns, "s"), cell="th")
    for row in rows:
        values = (formatted(name, f.value) for name, f in zip(columns, row.figures, strict=True))
        yield _line((row.name, *values, f"{row.seconds:.2f}"))
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
            type_ = "jpeg" if content[:2] == b"\xff\xd8" else "png"
            data = base64.b64encode(content).decode("ascii")
            image = f'<img alt="{kind} of {escape(row.name)}" src="data:image/{type_};base64,{data}">'
            yield f"<div>{image}{kind}</div>"
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


def _line(cells: Iterable[object], *, cell: str = "td") -> str:
    return "<tr>" + "".join(f"<{cell}>{escape(str(c))}</{cell}>" for c in cells) + "</tr>"
