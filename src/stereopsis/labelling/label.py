"""Labels a folder of pairs with a teacher: safe to kill, to run again, and to run side by side.

A pair is finished when its record is there, which is written last; what a killed run left of a pair is
written over. Nothing on disk depends on when, where or by which process it was made.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch

import stereopsis
from stereopsis.io.disparity import write_disparity
from stereopsis.io.images import write_image
from stereopsis.io.labels import (
    CONFIDENCE,
    DISPARITY,
    REASONS,
    RECORD,
    SET,
    LabelRecord,
    list_records,
    pair_folder,
    read_record,
    read_set,
    relative_path,
    write_record,
    write_set,
)
from stereopsis.io.pairs import PairPaths, find_pairs
from stereopsis.labelling.engine import Engine
from stereopsis.labelling.filters import Filters, shares
from stereopsis.labelling.teacher import Teacher
from stereopsis.prediction.provenance import file_digest
from stereopsis.structures import StereoOutput, StereoPair

CLAIMS = ".claims"
"""The folder of claims inside a set's folder."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to label. input: a folder or a glob of pairs; output: the set's folder; min_kept: pairs of which
    a smaller share of the pixels is kept are dropped."""

    input: str | Path
    output: Path
    teacher: Teacher
    filters: Filters = field(default_factory=Filters)
    min_kept: float = 0.1

    def plain(self) -> dict[str, object]:
        """What decides the labels: the same in every run on one set."""
        return {
            "teacher": self.teacher.plain(),
            "filters": self.filters.plain(),
            "min_kept": self.min_kept,
        }


def label(order: Order, *, engine: Engine) -> Iterator[LabelRecord]:
    """Labels what is not labelled yet and yields the record of every pair once, as they are finished.

    A pair that cannot be opened or predicted gets a record that says why, and is tried again when its
    images change. Raises ValueError where there are no pairs or the set was made with other settings,
    OSError where labels cannot be written.
    """
    pairs = {pair.name: pair for pair in find_pairs(order.input)}
    begin(order)

    def finished(name: str) -> bool:
        try:
            record = read_record(order.output, name)
        except (OSError, ValueError):
            return False
        return record.status != "failed" or record.stamps == _stamps(pairs[name])

    def work(name: str) -> None:
        label_pair(order, pairs[name])

    for name in engine.run(list(pairs), work=work, finished=finished):
        yield read_record(order.output, name)


def begin(order: Order) -> None:
    """Makes the set's folder, or checks that it was made with these settings: ValueError names the first
    that differs."""
    order.output.mkdir(parents=True, exist_ok=True)
    now = json.loads(json.dumps(order.plain()))
    if not (order.output / SET).exists():
        if any(not path.name.startswith(".") for path in order.output.iterdir()):
            raise ValueError(f"{order.output} holds other files and no {SET}: name an empty folder")
        write_set(order.output, {**now, "version": stereopsis.__version__})
    before = read_set(order.output)
    for section, wanted in now.items():
        there = before.get(section)
        if there != wanted:
            raise ValueError(
                f"{order.output} holds labels made with other settings "
                f"({_difference(section, there, wanted)}): name another folder"
            )


def forget_failures(root: Path) -> None:
    """Removes the records of failed pairs, so that the next run tries them again."""
    for record in list_records(root):
        if record.status == "failed":
            (pair_folder(root, record.name) / RECORD).unlink(missing_ok=True)


def label_pair(order: Order, pair: PairPaths) -> LabelRecord:
    """Labels one pair, whatever is there already; its record is written last."""
    folder = pair_folder(order.output, pair.name)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if not pair.rectified:
            raise ValueError("the pair is not rectified: run stereopsis rectify first")
        opened = StereoPair.open(pair.left, pair.right)
        output = _answer(order.teacher, opened)
        reasons = order.filters.reasons(opened, output)
        record = _record(order, pair, output, reasons)
    except (ValueError, OSError, RuntimeError, cv2.error) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        record = dataclasses.replace(_failed(order, pair), failure=said, stamps=_stamps(pair))
    else:
        _write_maps(folder, output, reasons.numpy())
    for rest in folder.glob(".*.part*"):  # of a run that was killed while writing
        rest.unlink(missing_ok=True)
    write_record(order.output, record)
    return record


@torch.inference_mode()
def _answer(teacher: Teacher, pair: StereoPair) -> StereoOutput:
    """The teacher's answer with confidence as it is stored, so that filters and students see the same."""
    output = teacher(pair)
    if output.disparity.shape != pair.size:
        raise ValueError(f"the teacher's disparity has the shape {tuple(output.disparity.shape)}")
    confidence = torch.ones_like(output.disparity) if output.confidence is None else output.confidence
    stored = (confidence.nan_to_num(nan=0.0).clamp(0, 1) * 255).round() / 255
    return StereoOutput(output.disparity, stored, right_disparity=output.right_disparity)


def _record(order: Order, pair: PairPaths, output: StereoOutput, reasons: torch.Tensor) -> LabelRecord:
    kept = reasons == 0
    share = float(kept.float().mean())
    known = output.disparity[kept]
    assert output.confidence is not None
    return dataclasses.replace(
        _failed(order, pair),
        status="labelled" if share >= order.min_kept and known.numel() else "dropped",
        digests=(file_digest(pair.left), file_digest(pair.right)),
        size=(output.disparity.shape[0], output.disparity.shape[1]),
        kept=round(share, 6),
        rejected=shares(reasons),
        limits=(round(float(known.min()), 3), round(float(known.max()), 3)) if known.numel() else (0.0, 0.0),
        confidence=round(float(output.confidence.mean()), 6),
        runtime=order.teacher.runtime,
    )


def _failed(order: Order, pair: PairPaths) -> LabelRecord:
    """What is known of a pair before it is labelled."""
    given = pair.calibration
    return LabelRecord(
        name=pair.name,
        status="failed",
        left=relative_path(pair.left, order.output),
        right=relative_path(pair.right, order.output),
        calibration=None if given is None else relative_path(given, order.output),
    )


def _write_maps(folder: Path, output: StereoOutput, reasons: np.ndarray) -> None:
    assert output.confidence is not None
    write_disparity(folder / DISPARITY, output.disparity.numpy())
    write_image(folder / CONFIDENCE, (output.confidence * 255).round().byte().numpy())
    write_image(folder / REASONS, reasons)


def _stamps(pair: PairPaths) -> tuple[str, str]:
    return _stamp(pair.left), _stamp(pair.right)


def _stamp(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return "missing"
    return f"{found.st_size}/{found.st_mtime_ns}"


def _difference(section: str, before: object, now: object) -> str:
    """The first setting that differs, with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*now, *before]:
            if before.get(key) != now.get(key):
                return _difference(f"{section}.{key}", before.get(key), now.get(key))
    return f"{section} {before}, now {now}"
