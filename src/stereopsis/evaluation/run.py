"""Measures a predictor by a protocol, one image at a time: nothing is kept but numbers.

Every finished image is a line of the journal, so that an interrupted run continues; an image that cannot
be read or predicted is named, the rest is finished, and the evaluation says so.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol as Interface
from typing import cast, runtime_checkable

import cv2
import numpy as np
import torch

from stereopsis.data.dataset import Annotations, StereoDataset
from stereopsis.data.files import PairFiles
from stereopsis.data.sources.registry import list_pairs
from stereopsis.evaluation.journal import Journal
from stereopsis.evaluation.measure import curves, measure
from stereopsis.evaluation.protocols import AVERAGING, MASKS, Part, Protocol
from stereopsis.evaluation.results import Evaluation, Failure, Row, averages
from stereopsis.structures import Predictor, SceneInfo, StereoOutput, StereoPair, StereoSample


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
    files: PairFiles

    @property
    def key(self) -> tuple[int, str]:
        return self.part, self.files.name


def evaluate(
    predictor: Predictor | ByScene,
    protocol: Protocol,
    *,
    name: str,
    roots: Mapping[str, Path] | None = None,
    journal: Path | None = None,
    observe: Observer | None = None,
    on_start: Callable[[int, int], None] | None = None,
    limit: int | None = None,
    notes: Sequence[str] = (),
) -> Evaluation:
    """The predictor's rows and averages by the protocol.

    name: of the predictor, for the record; roots: folders of data sets by name (else as `locate`
    finds them); journal: a file of finished images, continued where it exists; on_start: told how many
    images there are and how many of them the journal has; limit: only the first images of each part,
    said in the notes.
    Raises ValueError or OSError where a data set is not found or the journal belongs to another run.
    """
    work, found_notes = _work(protocol, roots or {}, limit)
    record = Journal(journal, predictor=name, protocol=protocol)
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
        except (ValueError, OSError, RuntimeError) as error:
            failures.append(Failure(item.part, item.files.name, str(error)))
            continue
        rows[item.key] = row
        record.add(row)
        if observe is not None:
            observe(row, sample, output)
    ordered = tuple(rows[item.key] for item in work if item.key in rows)
    return Evaluation(
        predictor=name,
        protocol=protocol.label,
        parts=tuple(part.label for part in protocol.parts),
        columns=tuple(tuple(column.name for column in part.columns) for part in protocol.parts),
        averages=averages(protocol, ordered),
        rows=ordered,
        failures=tuple(failures),
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
        pairs = list_pairs(part.dataset, part.split, root=roots.get(part.dataset))
        without = [files.name for files in pairs if files.disparity is None]
        pairs = [files for files in pairs if files.disparity is not None]
        twice = [name for name, count in Counter(files.name for files in pairs).items() if count > 1]
        if twice:
            raise ValueError(f"{part.label} has several pairs called {twice[0]!r}: names must be unique")
        if not pairs:
            raise ValueError(
                f"{part.label} has no truth: it can be predicted (stereopsis submit), not measured"
            )
        if without:
            notes.append(f"{part.label}: {len(without)} pairs have no truth and are left out")
        if part.subset is not None and part.subset < len(pairs):
            order = np.random.RandomState(1000).permutation(len(pairs))[: part.subset]
            pairs = [pairs[place] for place in sorted(order)]
        if limit is not None and limit < len(pairs):
            notes.append(f"{part.label}: only the first {limit} of {len(pairs)} images: not the protocol")
            pairs = pairs[:limit]
        elif part.pairs is not None and part.pairs != len(pairs):
            notes.append(f"{part.label}: {len(pairs)} images where the protocol has {part.pairs}")
        work += [_Work(index, files) for files in pairs]
    return work, notes


def _measured(
    predictor: Predictor | ByScene, item: _Work, part: Part
) -> tuple[Row, StereoSample, StereoOutput]:
    dataset = StereoDataset([item.files])
    sample = dataset[0]
    if not bool(sample.valid.any()):
        raise ValueError(f"the truth of {item.files.name} has no known pixel")
    annotations = dataset.annotations(0) if item.files.regions or item.files.instances else Annotations()
    if part.scale != 1:
        sample, annotations = reduced(sample, annotations, part.scale)
    predict = predictor_for(predictor, item.files.name)
    started = time.perf_counter()
    output = predict(sample.pair)
    seconds = time.perf_counter() - started
    output = output.to("cpu")
    if output.disparity.shape != sample.disparity.shape:
        raise ValueError(
            f"the disparity of {item.files.name} is {_size(output.disparity)}, "
            f"its image {_size(sample.disparity)}: they must be equal"
        )
    row = Row(
        part=item.part,
        name=item.files.name,
        dataset=item.files.dataset,
        figures=measure(output, sample, annotations, part.columns),
        curves=curves(output, sample),
        seconds=seconds,
        size=sample.pair.size,
    )
    return row, sample, output


def reduced(sample: StereoSample, annotations: Annotations, scale: float) -> tuple[StereoSample, Annotations]:
    """Images by bilinear interpolation, maps by the nearest pixel, disparity times `scale` (as SMD-Nets)."""
    height, width = sample.pair.size
    size = int(width * scale), int(height * scale)

    def shrink(tensor: torch.Tensor, interpolation: int) -> torch.Tensor:
        array = tensor.movedim(0, -1).numpy() if tensor.ndim == 3 else tensor.numpy()
        resized = cv2.resize(np.ascontiguousarray(array, np.float32), size, interpolation=interpolation)
        result = torch.from_numpy(resized)
        return result.movedim(-1, 0).contiguous() if tensor.ndim == 3 else result

    def nearest(tensor: torch.Tensor) -> torch.Tensor:
        result = shrink(tensor, cv2.INTER_NEAREST)
        return result > 0.5 if tensor.dtype == torch.bool else result

    pair = StereoPair(*(shrink(view, cv2.INTER_LINEAR) for view in (sample.pair.left, sample.pair.right)))
    info = tuple(
        SceneInfo(i.name, i.dataset, i.calibration and i.calibration.scaled(scale)) for i in sample.info
    )
    right = sample.disparity_right
    smaller = StereoSample(
        pair,
        nearest(sample.disparity) * scale,
        nearest(sample.valid),
        occluded=None if sample.occluded is None else nearest(sample.occluded),
        disparity_right=None if right is None else nearest(right) * scale,
        info=info,
    )
    regions = {name: nearest(region) for name, region in annotations.regions.items()}
    instances = None if annotations.instances is None else nearest(annotations.instances)
    return smaller, Annotations(regions, instances)


def _size(tensor: torch.Tensor) -> str:
    return f"{tensor.shape[-1]}x{tensor.shape[-2]}"


def _failure_note(failures: Sequence[Failure], total: int) -> tuple[str, ...]:
    if not failures:
        return ()
    return (f"{len(failures)} of {total} images FAILED and are in no average",)
