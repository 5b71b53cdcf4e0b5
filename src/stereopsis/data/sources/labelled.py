"""A folder that `stereopsis label` wrote: its images where they lay, labels as truth, confidence as weight.

`pairs/<name>/label.json` names the two images, relative to the set's folder; `disparity.pfm`,
`confidence.png` (255 is 1) and `reasons.png` (0 where the pixel is a label) lie beside it.
"""

from __future__ import annotations

from pathlib import Path

from stereopsis.data.files import MapFile, MaskFile, PairFiles
from stereopsis.data.sources.registry import Card, source, unknown_split
from stereopsis.io.labels import (
    CONFIDENCE,
    CONFIDENCE_ENCODING,
    DISPARITY,
    REASONS,
    LabelRecord,
    list_records,
    pair_folder,
    read_set,
)

_SPLITS = {"train": ("labelled",), "all": ("labelled", "dropped")}


@source(
    "labelled",
    Card(
        title="Pseudo-labels, as stereopsis label writes them",
        splits=tuple(_SPLITS),
        pairs="any",
        image="any",
        disk="-",
        licence="the images' owner's and the teacher's (labels.json)",
        link="-",
    ),
)
def labelled(root: Path, split: str) -> list[PairFiles]:
    """Split `train`: pairs of which enough is kept; `all`: also those that were dropped."""
    if split not in _SPLITS:
        raise unknown_split("labelled", split)
    read_set(root)
    return [_files(root, record) for record in list_records(root) if record.status in _SPLITS[split]]


def _files(root: Path, record: LabelRecord) -> PairFiles:
    folder = pair_folder(root, record.name)
    return PairFiles(
        name=record.name,
        dataset="labelled",
        left=root / record.left,
        right=root / record.right,
        disparity=MapFile(folder / DISPARITY, "pfm"),
        unknown=(MaskFile(folder / REASONS, (0,), inverted=True),),
        weight=MapFile(folder / CONFIDENCE, CONFIDENCE_ENCODING),
    )
