"""A report of one student measured twice, with what it was taught from."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path

from stereopsis.evaluation.compare import Comparison, compare
from stereopsis.evaluation.results import Evaluation
from stereopsis.evaluation.tables import formatted
from stereopsis.html import head, row
from stereopsis.io.atomic import writing
from stereopsis.io.labels import list_records, read_set
from stereopsis.labelling.report import summarised


def write_comparison(path: Path, before: Evaluation, after: Evaluation, *, labels: Path) -> Comparison:
    """Writes the report, whole or not at all."""
    comparison = compare(before, after)
    with writing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for piece in _pieces(before, after, comparison, labels):
            file.write(piece + "\n")
    return comparison


def _pieces(before: Evaluation, after: Evaluation, found: Comparison, labels: Path) -> Iterable[str]:
    settings, summary = read_set(labels), summarised(list(list_records(labels)))
    yield head(f"{after.predictor} distillation on {after.protocol}")
    yield (
        f"<p>Taught by {escape(settings['teacher']['name'])} on {summary.labelled} labelled pairs, of which "
        f"{summary.kept:.1%} of the pixels are kept.</p><ul>"
    )
    yield from (f"<li>{escape(line)}</li>" for line in after.description)
    yield "</ul>"
    yield from (f'<p class="note">{escape(note)}</p>' for note in (*after.notes, *found.notes))
    for part, title in enumerate(after.parts):
        yield f"<h2>{escape(title)}</h2><table>"
        yield row(("metric, mask", "before", "after", "difference", "95 %", "lower/higher"), cell="th")
        for line in found.differences:
            if line.part == part:
                values = (line.first, line.second, line.difference, line.low, line.high)
                first, second, change, low, high = (formatted(line.column, value) for value in values)
                yield row(
                    (line.column, first, second, change, f"{low} to {high}", f"{line.lower}/{line.higher}")
                )
        yield "</table><h2>Image by image</h2><table>"
        column = after.columns[part][0]
        yield row(("image", f"{column} before", "after"), cell="th")
        others = {r.name: r for r in before.rows if r.part == part}
        for image in after.rows:
            if image.part == part and image.name in others:
                pair = (others[image.name].figures[0].value, image.figures[0].value)
                yield row((image.name, *(formatted(column, value) for value in pair)))
        yield "</table>"
    yield "</body></html>"
