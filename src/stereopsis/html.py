"""Parts that reports share: one style, rows of tables, pictures embedded in the page."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape

import cv2
import numpy as np

from stereopsis.visual import AnyPicture

STYLE = """
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


def head(title: str) -> str:
    """The page up to its heading."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body><h1>{escape(title)}</h1>"
    )


def row(cells: Iterable[object], *, cell: str = "td") -> str:
    """A row of a table; cell: td or th."""
    return "<tr>" + "".join(f"<{cell}>{escape(str(c))}</{cell}>" for c in cells) + "</tr>"


def encoded(picture: AnyPicture, suffix: str) -> bytes:
    """A picture as .jpg or .png."""
    options = [cv2.IMWRITE_JPEG_QUALITY, 85] if suffix == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 9]
    done, stored = cv2.imencode(suffix, np.ascontiguousarray(picture[..., ::-1]), options)
    if not done:
        raise ValueError(f"OpenCV cannot encode a {suffix} picture")
    return stored.tobytes()


def embedded(content: bytes, *, title: str, kind: str) -> str:
    """An encoded picture, JPEG or PNG, above the name of its kind."""
    form = "jpeg" if content[:2] == b"\xff\xd8" else "png"
    data = base64.b64encode(content).decode("ascii")
    image = f'<img alt="{escape(kind)} of {escape(title)}" src="data:image/{form};base64,{data}">'
    return f"<div>{image}{escape(kind)}</div>"
