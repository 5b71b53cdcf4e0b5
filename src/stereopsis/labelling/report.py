"""What became of a set, from its records alone: `summary.json`, and `report.html` with pictures."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any

import cv2
import numpy as np
import torch

from stereopsis.html import embedded, encoded, head, row
from stereopsis.io.atomic import writing
from stereopsis.io.disparity import read_disparity
from stereopsis.io.images import read_image, read_stored
from stereopsis.io.labels import (
    CONFIDENCE,
    DISPARITY,
    REASONS,
    LabelRecord,
    list_records,
    pair_folder,
    read_set,
)
from stereopsis.labelling.engine import Engine
from stereopsis.labelling.filters import Reason
from stereopsis.structures import StereoPair
from stereopsis.visual import confidence_picture, disparity_picture, image_picture, robust_range

SUMMARY, REPORT = "summary.json", "report.html"
SHOWN = 24
"""Pairs with pictures, from the least kept to the most."""
_WIDTH = 400

COLOURS: Mapping[Reason, tuple[int, int, int]] = {
    Reason.UNKNOWN: (255, 255, 255),
    Reason.LEFT_RIGHT: (230, 75, 53),
    Reason.CONFIDENCE: (243, 155, 0),
    Reason.PHOTOMETRIC: (255, 220, 0),
    Reason.RANGE: (150, 60, 190),
    Reason.SKY: (77, 187, 213),
    Reason.SATURATED: (240, 110, 200),
}
"""Of rejected pixels; where a pixel has several reasons, the first of these."""


@dataclass(frozen=True, kw_only=True)
class LabelSummary:
    """Of a set. kept: mean share over labelled pairs; rejected: mean share by reason, over labelled and
    dropped pairs; dropped, failed: names and why."""

    pairs: int
    labelled: int
    kept: float
    rejected: Mapping[str, float]
    dropped: Mapping[str, str]
    failed: Mapping[str, str]


def summarised(records: Sequence[LabelRecord]) -> LabelSummary:
    labelled = [record for record in records if record.status == "labelled"]
    dropped = [record for record in records if record.status == "dropped"]
    answered = [*labelled, *dropped]
    reasons = [reason.title for reason in Reason]
    return LabelSummary(
        pairs=len(records),
        labelled=len(labelled),
        kept=round(fmean(record.kept for record in labelled), 6) if labelled else 0.0,
        rejected={
            reason: round(fmean(record.rejected.get(reason, 0.0) for record in answered), 6)
            for reason in reasons
            if answered
        },
        dropped={record.name: f"{record.kept:.1%} of its pixels kept" for record in dropped},
        failed={record.name: record.failure for record in records if record.status == "failed"},
    )


def write_summary(root: Path, *, engine: Engine) -> LabelSummary:
    """Writes `report.html` and then `summary.json` of a set, each whole or not at all, in one process of
    those that are at it; what killed ones left in the set's folder is removed."""
    records = list(list_records(root))
    summary = summarised(records)
    text = json.dumps(dataclasses.asdict(summary), indent=1) + "\n"

    def finished(_: str) -> bool:
        path = root / SUMMARY
        return path.exists() and path.read_text(encoding="utf-8") == text

    def work(_: str) -> None:
        for rest in root.glob(".*.part*"):
            rest.unlink(missing_ok=True)
        with writing(root / REPORT) as temporary, temporary.open("w", encoding="utf-8") as file:
            for piece in _pieces(root, records, summary):
                file.write(piece + "\n")
        with writing(root / SUMMARY) as temporary:
            temporary.write_text(text, encoding="utf-8")

    for _ in engine.run([SUMMARY], work=work, finished=finished):
        pass
    return summary


def _pieces(root: Path, records: Sequence[LabelRecord], summary: LabelSummary) -> Iterable[str]:
    settings = read_set(root)
    yield head(f"Labels by {settings['teacher']['name']}")
    yield "<table>"
    yield from (row(line) for line in _settings(settings))
    yield "</table>"
    yield (
        f"<p>{summary.labelled} of {summary.pairs} pairs are labelled, {summary.kept:.1%} of their pixels; "
        f"{len(summary.dropped)} are dropped, {len(summary.failed)} failed.</p>"
    )
    yield "<h2>Why pixels were rejected</h2><p>Shares of all pixels; a pixel may have several reasons.</p>"
    yield f"<table>{row(('reason', 'share'), cell='th')}"
    yield from (row((reason, f"{share:.1%}")) for reason, share in summary.rejected.items())
    yield "</table>"
    for title, pairs in (("Dropped", summary.dropped), ("Failed", summary.failed)):
        if pairs:
            yield f"<h2>{title}</h2>"
            yield from (f'<p class="failed">{escape(name)}: {escape(why)}</p>' for name, why in pairs.items())
    answered = sorted((r for r in records if r.status != "failed"), key=lambda r: (r.kept, r.name))
    places = np.linspace(0, len(answered) - 1, min(SHOWN, len(answered))).round().astype(int)
    shown = [answered[place] for place in places]
    yield f"<h2>From the least kept to the most: {len(shown)} of {len(answered)} pairs</h2>{_key()}"
    for record in shown:
        yield from _scene(root, record)
    yield "</body></html>"


def _settings(settings: Mapping[str, Any]) -> Iterable[tuple[str, object]]:
    for section in ("teacher", "filters"):
        for name, value in settings[section].items():
            shown = json.dumps(value) if isinstance(value, dict | list) else value
            yield f"{section}: {name.replace('_', ' ')}", "-" if value in (None, "", {}) else shown
    yield "smallest share kept", settings["min_kept"]
    yield "version", settings["version"]


def _key() -> str:
    spans = (
        f'<span style="background: rgb{colour}">{reason.title}</span>' for reason, colour in COLOURS.items()
    )
    return f'<p class="key">rejected: {"".join(spans)} (the first that applies); kept: the image</p>'


def _scene(root: Path, record: LabelRecord) -> Iterable[str]:
    rejected = ", ".join(f"{reason} {share:.1%}" for reason, share in record.rejected.items() if share > 0)
    low, high = record.limits
    line = f"{record.status}, kept {record.kept:.1%} ({low:g} to {high:g} px); {rejected}"
    yield f'<div class="scene"><b>{escape(record.name)}</b> {escape(line)}<div class="pictures">'
    for kind, content in pictures(root, record).items():
        yield embedded(content, title=record.name, kind=kind)
    yield "</div></div>"


def pictures(root: Path, record: LabelRecord) -> dict[str, bytes]:
    """Encoded pictures of a labelled pair: left image (if it is still there), disparity, labels, confidence,
    reasons."""
    folder = pair_folder(root, record.name)
    disparity = torch.from_numpy(read_disparity(folder / DISPARITY)[0])
    confidence = torch.from_numpy(read_stored(folder / CONFIDENCE).astype(np.float32) / 255)
    reasons = read_stored(folder / REASONS)
    kept = torch.from_numpy(reasons == 0)
    step = max(1, math.ceil(disparity.shape[-1] / _WIDTH))
    left = _left_image(root, record, (disparity.shape[0], disparity.shape[1]))
    limits = robust_range(disparity, valid=kept)
    maps = {
        "disparity": disparity_picture(disparity, limits=limits),
        "labels": disparity_picture(disparity, limits=limits, valid=kept),
        "confidence": confidence_picture(confidence),
        "reasons": reasons_picture(left, reasons),
    }
    thinned = (slice(step // 2, None, step), slice(step // 2, None, step))
    found = {kind: encoded(picture[thinned], ".png") for kind, picture in maps.items()}
    size = max(1, left.shape[1] // step), max(1, left.shape[0] // step)
    return {"left": encoded(cv2.resize(left, size, interpolation=cv2.INTER_AREA), ".jpg"), **found}


def reasons_picture(left: np.ndarray, reasons: np.ndarray) -> np.ndarray:
    """The image where pixels are kept, the colour of the first reason where they are rejected."""
    picture = left.copy()
    for reason, colour in reversed(list(COLOURS.items())):
        picture[(reasons & int(reason)) > 0] = colour
    return picture


def _left_image(root: Path, record: LabelRecord, size: tuple[int, int]) -> np.ndarray:
    """Gray where the image has gone."""
    try:
        image = read_image(root / record.left)
        return image_picture(StereoPair.from_arrays(image, image).left)
    except (OSError, ValueError):
        return np.full((*size, 3), 128, np.uint8)
