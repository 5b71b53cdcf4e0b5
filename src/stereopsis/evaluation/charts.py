"""The two charts of a report, as SVG: how errors are spread, and whether confidence finds them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from statistics import fmean

from stereopsis.evaluation.measure import CURVE_STEPS, HISTOGRAM
from stereopsis.evaluation.results import Row

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 460.0, 240.0, 52.0, 44.0, 16.0


def histogram_chart(rows: Sequence[Row]) -> str:
    """Share of pixels per bin of absolute error, all images pooled."""
    counts = [sum(row.curves.histogram[i] for row in rows) for i in range(len(HISTOGRAM) - 1)]
    total = sum(counts) or 1
    shares = [count / total for count in counts]
    top = max(shares) or 1.0
    slot = (_WIDTH - _LEFT) / len(shares)
    parts = []
    for place, share in enumerate(shares):
        height = (_HEIGHT - _BOTTOM - _TOP) * share / top
        x, y = _LEFT + place * slot, _HEIGHT - _BOTTOM - height
        parts.append(
            f'<rect x="{x + 1:.1f}" y="{y:.1f}" width="{slot - 2:.1f}" height="{height:.1f}" class="bar"/>'
        )
        parts.append(_text(x + slot / 2, y - 3, f"{100 * share:.1f}"))
        high = HISTOGRAM[place + 1]
        label = f"{HISTOGRAM[place]:g}+" if math.isinf(high) else f"{HISTOGRAM[place]:g}-{high:g}"
        parts.append(_text(x + slot / 2, _HEIGHT - _BOTTOM + 14, label))
    parts.append(_text((_LEFT + _WIDTH) / 2, _HEIGHT - 8, "absolute error in pixels"))
    parts.append(_text(4.0, _TOP - 4, "% of pixels", anchor="start"))
    return _svg(parts, "Errors, all images pooled")


def sparsification_chart(rows: Sequence[Row]) -> str:
    """Mean error of what remains after removing the least confident pixels, mean over images.

    Beside it the curve that removes the largest errors, and the flat one of no knowledge.
    """
    known = [row for row in rows if row.curves.by_confidence and not math.isnan(row.curves.by_error[0])]
    if not known:
        return ""
    steps = range(CURVE_STEPS)
    ranked = [fmean(row.curves.by_confidence[i] for row in known) for i in steps]
    best = [fmean(row.curves.by_error[i] for row in known) for i in steps]
    flat = [best[0]] * CURVE_STEPS
    top = max(*ranked, *best, 1e-9)

    def line(values: Sequence[float], kind: str) -> str:
        points = " ".join(f"{_x(i):.1f},{_y(value / top):.1f}" for i, value in enumerate(values))
        return f'<polyline points="{points}" class="{kind}"/>'

    parts = [line(flat, "flat"), line(best, "best"), line(ranked, "ranked")]
    for i in range(0, CURVE_STEPS, 4):
        parts.append(_text(_x(i), _HEIGHT - _BOTTOM + 14, f"{100 * i // CURVE_STEPS} %"))
    for share in (0.0, 0.5, 1.0):
        parts.append(_text(_LEFT - 4, _y(share) + 4, f"{share * top:.2f}", anchor="end"))
    parts.append(_text((_LEFT + _WIDTH) / 2, _HEIGHT - 8, "pixels removed, the least confident first"))
    parts.append(_text(4.0, _TOP - 4, "mean error in pixels", anchor="start"))
    for place, (label, kind) in enumerate((("by confidence", "ranked"), ("by error (best)", "best"))):
        parts.append(
            f'<line x1="330" x2="350" y1="{26 + 16 * place}" y2="{26 + 16 * place}" class="{kind}"/>'
        )
        parts.append(_text(354.0, 30.0 + 16 * place, label, anchor="start"))
    return _svg(parts, f"Sparsification, mean over {len(known)} images")


def _x(step: int) -> float:
    return _LEFT + (_WIDTH - _LEFT - 10) * step / (CURVE_STEPS - 1)


def _y(share: float) -> float:
    return _TOP + (_HEIGHT - _BOTTOM - _TOP) * (1 - share)


def _text(x: float, y: float, text: str, *, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(parts: Sequence[str], title: str) -> str:
    body = "\n".join(parts)
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" '
        f'width="{_WIDTH:g}" height="{_HEIGHT:g}"><title>{escape(title)}</title>{body}</svg></figure>'
    )
