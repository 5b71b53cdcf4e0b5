"""Measures a predictor by a protocol, one image at a time: nothing is kept but numbers.

Every finished image is a line of the journal, so that an interrupted run continues; an image that cannot
be read or predicted is named, the rest is finished, and the evaluation says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol as Interface
from typing import cast, runtime_checkable

import cv2
import numpy as np
import torch

from stereopsis.evaluation.journal import Journal
from stereopsis.evaluation.measure import curves, measure
from stereopsis.evaluation.protocols import AVERAGING, MASKS, Part, Protocol
from stereopsis.evaluation.results import Evaluation, Failure, Row, averages
from stereopsis.evaluation.scenes import PartScene, part_scenes, reduced
from stereopsis.structures import Predictor, StereoOutput, StereoSample


@runtime_checkable
class ByScene(Interface):
    """A predictor that must know which scene it is shown: recorded disparities, recorded ranges."""

    def for_scene(self, name: str) -> Predictor: ...


def predictor_for(predictor: Predictor | ByScene, name: str) -> Predictor:
    """The predictor for the scene of that name."""
    return predictor.for_scene(name) if isinstance(predictor, ByScene) else cast(Predictor, predictor)


Observer = Callable[[Row, StereoSample, StereoOutput], None]
"""Called after each new image, with its maps: for pictures and progress."""


@dataclass(frozen=True)
class _Work:
    part: int
    scene: PartScene

    @property
    def key(self) -> tuple[int, str]:
        return self.part, self.scene.name


def evaluate(
    predictor: Predictor | ByScene,
    protocol: Protocol,
    *,
    name: str,
    digest: str = "",
    roots: Mapping[str, Path] | None = None,
    journal: Path | None = None,
    observe: Observer | None = None,
    on_start: Callable[[int, int], None] | None = None,
    limit: int | None = None,
    notes: Sequence[str] = (),
) -> Evaluation:
    """The predictor's rows and averages by the protocol.

    name, digest: of the predictor and its weights, for the record and the journal; roots: folders of data
    sets by name (else as `locate` finds them); journal: a file of finished images, continued where it
    exists; on_start: told how many images there are and how many of them the journal has; limit: only the
    first images of each part, said in the notes.
    Raises ValueError or OSError where a data set is not found or the journal belongs to another run.
    """
    work, found_notes = _work(protocol, roots or {}, limit)
    record = Journal(journal, predictor=f"{name} {digest}".strip(), protocol=protocol)
    wanted = {item.key for item in work}
    rows = {key: row for row in record.rows if (key := (row.part, row.name)) in wanted}
    if on_start is not None:
        on_start(len(work), len(rows))
    failures = []
    for item in work:
        if item.key in rows:
            continue
        try:
            row, sample, output = _measured(predictor, item, protocol.parts[item.part])
        except (ValueError, OSError, RuntimeError, cv2.error) as error:
            failures.append(Failure(item.part, item.scene.name, str(error)))
            continue
        rows[item.key] = row
        if observe is not None:
            observe(row, sample, output)
        record.add(row)  # last: what the journal has is finished, pictures included
    ordered = tuple(rows[item.key] for item in work if item.key in rows)
    return Evaluation(
        predictor=name,
        protocol=protocol.label,
        parts=tuple(part.label for part in protocol.parts),
        columns=tuple(tuple(column.name for column in part.columns) for part in protocol.parts),
        averages=averages(protocol, ordered),
        rows=ordered,
        failures=tuple(failures),
        digest=digest,
        notes=(*notes, *found_notes, *_failure_note(failures, len(work))),
        description=describe(protocol),
    )


def describe(protocol: Protocol) -> tuple[str, ...]:
    """What the figures mean, a sentence each: masks, ranges, averaging, scale, what they compare with."""
    lines = []
    for part in protocol.parts:
        names = dict.fromkeys(column.mask for column in part.columns)
        masks = "; ".join(f"{name}: {MASKS.get(name, 'the region of that name')}" for name in names)
        limits = dict.fromkeys(
            (column.above, column.below)
            for column in part.columns
            if np.isfinite([column.above, column.below]).any()
        )
        ranges = ", ".join(f"{above:g} < truth < {below:g} px" for above, below in limits) or "all truth"
        size = "" if part.scale == 1 else f"; images and truth at {part.scale:g} of their size"
        lines.append(f"{part.label}: {AVERAGING[part.averaging]}{size}; range: {ranges}; masks: {masks}")
    return (*lines, f"comparable with: {protocol.comparable}")


def _work(protocol: Protocol, roots: Mapping[str, Path], limit: int | None) -> tuple[list[_Work], list[str]]:
    work, notes = [], []
    for index, part in enumerate(protocol.parts):
        scenes, found = part_scenes(part, roots.get(part.dataset))
        notes += found
        if limit is not None and limit < len(scenes):
            notes.append(f"{part.label}: only the first {limit} of {len(scenes)} images: not the protocol")
        work += [_Work(index, scene) for scene in scenes[:limit]]
    return work, notes


def _measured(
    predictor: Predictor | ByScene, item: _Work, part: Part
) -> tuple[Row, StereoSample, StereoOutput]:
    sample, annotations = item.scene.open()
    if not bool(sample.valid.any()):
        raise ValueError(f"the truth of {item.scene.name} has no known pixel")
    if part.scale != 1:
        sample, annotations = reduced(sample, annotations, part.scale)
    predict = predictor_for(predictor, item.scene.name)
    started = time.perf_counter()
    output = predict(sample.pair).to("cpu")
    seconds = time.perf_counter() - started
    if output.disparity.shape != sample.disparity.shape:
        raise ValueError(
            f"the disparity of {item.scene.name} is {_size(output.disparity)}, "
            f"its image {_size(sample.disparity)}: they must be equal"
        )
    row = Row(
        part=item.part,
        name=item.scene.name,
        dataset=item.scene.dataset,
        figures=measure(output, sample, annotations, part.columns),
        curves=curves(output, sample),
        seconds=seconds,
        size=sample.pair.size,
    )
    return row, sample, output


def _size(tensor: torch.Tensor) -> str:
    return f"{tensor.shape[-1]}x{tensor.shape[-2]}"


def _failure_note(failures: Sequence[Failure], total: int) -> tuple[str, ...]:
    if not failures:
        return ()
    return (f"{len(failures)} of {total} images FAILED and are in no average",)
