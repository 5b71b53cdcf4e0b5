"""Named, versioned ways to measure: which pairs, which pixels, which range, how averaged, comparable to what.

A protocol is a tuple of parts, each one split of one data set with its columns and its way of averaging.
Changing any of these means a new version. Shares (bad-n, D1) are 0..1.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Averaging = Literal["images", "pixels", "datasets", "weighted"]

AVERAGING: Mapping[Averaging, str] = {
    "images": "mean over images",
    "pixels": "all pixels of all images pooled",
    "datasets": "mean over the images of each data set, then over data sets",
    "weighted": "mean over images with the benchmark's weights",
}

MASKS: Mapping[str, str] = {
    "all": "pixels with truth",
    "noc": "pixels with truth that both cameras see",
    "occ": "pixels with truth that only the left camera sees",
    "edges": "pixels with truth within 5 px of a jump of truth by more than 1 px",
    "textureless": "pixels with truth whose squared horizontal gradient, mean of 3x3, is below 4 (of 255²)",
    "background": "pixels with truth outside the foreground",
}
"""What the masks mean; any other name is a region of the data set (foreground, a class of material)."""

SYNTHETIC = "synthetic"
"""The data set that is rendered, not read: its splits are distributions."""

SYNTHETIC_SEED = 977_000_003
SYNTHETIC_PAIRS = 200
"""Seed and number of the rendered pairs that predictors are measured on; train with any other seed."""


@dataclass(frozen=True)
class Column:
    """One number of the table: a metric under a mask, where `above` < truth < `below` (pixels)."""

    metric: str
    mask: str = "all"
    above: float = -math.inf
    below: float = math.inf

    @property
    def name(self) -> str:
        limit = "" if math.isinf(self.below) else f"<{self.below:g}"
        return f"{self.metric} {self.mask}{limit}"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One split of one data set. pairs: how many the benchmark has, None where that is open;
    scale: images and truth are reduced by it first; subset: this many pairs, drawn as RAFT-Stereo does;
    weights: of images by name, 1 where not named; contains: splits of other data sets that its images
    come from, for the check of leaks."""

    dataset: str
    split: str
    columns: tuple[Column, ...]
    averaging: Averaging
    pairs: int | None = None
    scale: float = 1.0
    subset: int | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    contains: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.dataset}/{self.split}"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """comparable: the published column that its figures may stand beside, and what still differs.

    The first column of each part sorts the report, worst first.
    """

    name: str
    version: int
    parts: tuple[Part, ...]
    comparable: str

    @property
    def label(self) -> str:
        return f"{self.name}/{self.version}"


def _columns(
    metrics: str, mask: str = "all", *, above: float = -math.inf, below: float = math.inf
) -> tuple[Column, ...]:
    return tuple(Column(metric, mask, above, below) for metric in metrics.split())


_CONFIDENCE = _columns("ause auroc-3 ece-3")
_MIDDLEBURY_WEIGHTS = dict[str, float](PianoL=0.5, Playroom=0.5, Playtable=0.5, Shelves=0.5, Vintage=0.5)
_SCENEFLOW = (*_columns("epe bad-1 bad-3 d1", below=192.0), *_columns("epe bad-1 bad-3 d1"))
_BOOSTER = (
    *_columns("bad-2 bad-4 bad-6 bad-8 epe rms"),
    *(Column(metric, f"class-{kind}") for kind in range(4) for metric in ("bad-2", "epe")),
)


def _sceneflow(name: str, render: str, *, subset: int | None, comparable: str) -> Protocol:
    pairs = subset or 4370
    part = Part(
        dataset="sceneflow",
        split=f"test-{render}",
        columns=_SCENEFLOW,
        averaging="images",
        pairs=pairs,
        subset=subset,
    )
    return Protocol(name=name, version=1, parts=(part,), comparable=comparable)


def _booster(name: str, scale: float, comparable: str) -> Protocol:
    part = Part(
        dataset="booster", split="train", columns=_BOOSTER, averaging="images", pairs=228, scale=scale
    )
    return Protocol(name=name, version=1, parts=(part,), comparable=comparable)


def _middlebury(resolution: str) -> Part:
    return Part(
        dataset="middlebury-v3",
        split=f"training{resolution}",
        columns=(*_columns("bad-2 bad-1 bad-4 epe rms a50 a90 a95 a99", "noc"), *_columns("bad-2 epe")),
        averaging="weighted",
        pairs=15,
        weights=_MIDDLEBURY_WEIGHTS,
        contains=("middlebury2014",),
    )


_KITTI2012 = Part(
    dataset="kitti2012",
    split="train",
    columns=(*_columns("bad-3 epe", "noc"), *_columns("bad-3 epe bad-2 bad-4 d1 density")),
    averaging="images",
    pairs=194,
)
_KITTI2015 = Part(
    dataset="kitti2015",
    split="train",
    columns=(
        *_columns("d1"),
        Column("d1", "background"),
        Column("d1", "foreground"),
        *_columns("d1", "noc"),
        *_columns("epe bad-3 see density"),
    ),
    averaging="pixels",
    pairs=200,
)
_ETH3D = Part(
    dataset="eth3d",
    split="train",
    columns=(*_columns("bad-1 bad-2 bad-4 epe rms", "noc"), *_columns("bad-1 epe")),
    averaging="images",
    pairs=27,
)

_PROTOCOLS = (
    Protocol(
        name="open",
        version=1,
        parts=(
            Part(
                dataset="open",
                split="truth",
                columns=(
                    *_columns("epe bad-1 bad-2 bad-3 d1 rms a95 density"),
                    Column("epe", "noc"),
                    *_columns("see edge-epe"),
                    *_CONFIDENCE,
                ),
                averaging="datasets",
                pairs=12,
                contains=(
                    *("middlebury2001", "middlebury2003", "middlebury2005", "middlebury2006"),
                    *("middlebury2014", "middlebury-v3", "eth3d/train", "kitti2012/train", "kitti2015/train"),
                ),
            ),
        ),
        comparable="the recorded StereoSGBM baseline of the open scenes (all pixels with truth)",
    ),
    Protocol(
        name="kitti2012",
        version=1,
        parts=(_KITTI2012,),
        comparable="KITTI 2012's Out-Noc, Out-All (bad-3) and Avg, here on its training set; the server "
        "fills unanswered pixels first, here they count as wrong",
    ),
    Protocol(
        name="kitti2015",
        version=1,
        parts=(_KITTI2015,),
        comparable="KITTI 2015's D1-all, D1-bg, D1-fg over all pixels, here on its training set; the server "
        "fills unanswered pixels first, here they count as wrong; see: borders of its objects as in "
        "SMD-Nets, pooled here, mean over images there",
    ),
    Protocol(
        name="middlebury-v3",
        version=1,
        parts=(_middlebury("H"),),
        comparable="Middlebury v3's training table at half resolution against half-size truth (the site "
        "measures at full size), bad-2 noc and all, official weights",
    ),
    Protocol(
        name="middlebury-v3-f",
        version=1,
        parts=(_middlebury("F"),),
        comparable="Middlebury v3's training table, bad-2 noc and all, official weights, for full-size input",
    ),
    Protocol(
        name="middlebury-v3-q",
        version=1,
        parts=(_middlebury("Q"),),
        comparable="zero-shot tables at quarter resolution against quarter-size truth",
    ),
    Protocol(
        name="eth3d",
        version=1,
        parts=(_ETH3D,),
        comparable="ETH3D two-view's bad-1 (noc), here on its training set",
    ),
    _sceneflow(
        "sceneflow",
        "final",
        subset=None,
        comparable="EPE <192 on the final pass's full test set (PSMNet and after, mean over images; PSMNet "
        "itself used the clean pass and means of batches)",
    ),
    _sceneflow(
        "sceneflow-clean",
        "clean",
        subset=None,
        comparable="EPE <192 on the clean pass's full test set",
    ),
    _sceneflow(
        "sceneflow-400",
        "final",
        subset=400,
        comparable="EPE and bad-1 <192 of RAFT-Stereo's 400 test frames (IGEV and many since)",
    ),
    _booster(
        "booster", 1.0, "Booster's training table at full resolution, balanced split, by material class"
    ),
    _booster("booster-q", 0.25, "zero-shot tables of Booster at quarter resolution (quarter-size truth)"),
    Protocol(
        name="unrealstereo4k",
        version=1,
        parts=(
            Part(
                dataset="unrealstereo4k",
                split="test",
                columns=_columns("epe bad-1 bad-2 bad-3 see edge-epe", above=0.0, below=256.0),
                averaging="images",
                pairs=200,
                scale=0.25,
            ),
        ),
        comparable="SMD-Nets' EPE, SEE and bad-n at 960x540 (quarter-size truth, nearest); empty images are "
        "left out here, 0 there",
    ),
    Protocol(
        name="scared",
        version=2,
        parts=(
            Part(
                dataset="scared",
                split="keyframes-test",
                columns=_columns("epe bad-1 bad-2 bad-3 d1 mae-mm rmse-mm abs-rel delta-1"),
                averaging="images",
                pairs=10,
            ),
        ),
        comparable="EPE and bad-3 on the rectified keyframes of test sets 8 and 9; papers that use the "
        "interpolated video frames are not comparable",
    ),
    Protocol(
        name="zero-shot",
        version=1,
        parts=(_KITTI2012, _KITTI2015, _middlebury("H"), _ETH3D),
        comparable="the four columns of zero-shot tables: KITTI 2012 and 2015 D1 all, Middlebury H bad-2 "
        "noc, ETH3D bad-1 noc; RAFT-Stereo's own script counts occluded pixels in the last two and drops "
        "the 5 % rule of D1 (bad-3 here)",
    ),
)


def list_protocols() -> list[str]:
    """Names of all protocols."""
    return [protocol.name for protocol in _PROTOCOLS]


def protocol(name: str) -> Protocol:
    """The protocol of that name; ValueError with the nearest where there is none."""
    for known in _PROTOCOLS:
        if known.name == name:
            return known
    near = difflib.get_close_matches(name, list_protocols(), n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(list_protocols())}"
    raise ValueError(f"no protocol is called {name!r}: {hint}")


def dataset_protocol(dataset: str, split: str) -> Protocol:
    """The protocol for a data set by itself: the usual figures over all pixels, mean over images."""
    columns = (
        *_columns("epe rms bad-0.5 bad-1 bad-2 bad-3 bad-4 d1 a50 a90 a95 a99 density"),
        *_columns("epe bad-2", "noc"),
        *_columns("see edge-epe"),
        *_CONFIDENCE,
    )
    rendered = dataset == SYNTHETIC
    part = Part(
        dataset=dataset,
        split=split,
        columns=columns,
        averaging="images",
        contains=(f"{SYNTHETIC}/{split} seed {SYNTHETIC_SEED}",) if rendered else (),
    )
    return Protocol(
        name=f"{dataset}:{split}",
        version=1,
        parts=(part,),
        comparable="no published column: pixels with truth, mean over images",
    )


def protocol_of(label: str) -> Protocol:
    """The protocol that a label (`open/1`, `sintel:final/1`) names; ValueError where its version is gone."""
    name, _, version = label.rpartition("/")
    dataset, colon, split = name.partition(":")
    found = dataset_protocol(dataset, split) if colon else protocol(name)
    if str(found.version) != version:
        raise ValueError(f"{label} was measured by another version of {name}: here it is {found.label}")
    return found
