"""The page on measuring names every protocol and benchmark."""

from __future__ import annotations

import re
from pathlib import Path

from stereopsis.evaluation.protocols import list_protocols
from stereopsis.evaluation.submission import list_benchmarks

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "evaluation.md"


def test_page_names_every_protocol_and_benchmark() -> None:
    text = _PAGE.read_text(encoding="utf-8")
    table, submissions = (
        text.split("## Protocols")[1].split("## What the figures")[0],
        text.split("## Submissions")[1],
    )
    named = set(re.findall(r"`([a-z0-9-]+)`", table))
    base = next(iter(re.findall(r"`(middlebury-v3)`", table)))
    named |= {f"{base}{suffix}" for suffix in ("-q", "-f")}
    assert set(list_protocols()) <= named
    assert set(list_benchmarks()) <= set(re.findall(r"`([a-z0-9-]+)`", submissions))
