"""What is wrong with a pair, before a network is blamed: judged on matched features and the calibration.

Most bad maps come from pairs that are not rectified, whose views are exchanged or converge, and most bad
depths from a calibration in millimetres or of images of another size. Each such fault shows on a few
hundred features that match (Lowe 2004), without any disparity map.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from stereopsis.rectification import Locations, match_features
from stereopsis.structures import Calibration, StereoPair, luma

Values = Float64[np.ndarray, " n"]

FEWEST = 20
"""Features that must agree: of unrelated photographs up to 6 did (39 pairs), of the plainest real pair 81."""
TOLERANCE = 2.0
"""Pixels between a feature's row and where the fit has it."""
LARGEST_ROW_DIFFERENCE = 0.5
"""Pixels, in the median over features: more spoils matching."""
FARTHEST_ROWS = 10.0
"""Pixels, in the median: where rows differ by more, disparities wait until the pair is rectified."""
SEARCHED = 192
"""Pixels of disparity that most networks and SGBM search."""


@dataclass(frozen=True)
class Finding:
    """One thing found and what to do about it; a fault spoils the answer, a hint may."""

    fault: bool
    found: str
    advice: str

    def __str__(self) -> str:
        return f"{self.found}: {self.advice}"


@dataclass(frozen=True)
class Rows:
    """How rows differ, y_left - y_right in pixels, as a plane over the image.

    shift: in its middle; tilt: how much more at the right side than at the left one; stretch: how much
    more at the bottom than at the top; median: of the absolute differences of features.
    """

    shift: float
    tilt: float
    stretch: float
    median: float

    def __str__(self) -> str:
        return (
            f"rows differ by {self.median:.2f} px in the median: {self.shift:+.1f} in the middle, "
            f"{self.tilt:+.1f} from the left side to the right one, {self.stretch:+.1f} from top to bottom"
        )


@dataclass(frozen=True)
class Inspection:
    """What features and calibration say of a pair.

    matched: features found in both views; left, right: (x, y) of those on whose rows the rest agrees; rows:
    None where too few agree; disparities: pixels, 1st, 50th and 99th percentile; brightness, sharpness: the
    right view's around features over the left one's (1: alike); depths: metres, of the 99th, 50th and 1st
    percentile of disparity; field_of_view: degrees, horizontal; findings: faults first.
    """

    size: tuple[int, int]
    matched: int
    left: Locations
    right: Locations
    rows: Rows | None
    disparities: tuple[float, float, float] | None
    brightness: float | None
    sharpness: float | None
    depths: tuple[float, float, float] | None
    field_of_view: float | None
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Whether there is no fault."""
        return not any(finding.fault for finding in self.findings)


def inspect(pair: StereoPair, calibration: Calibration | None = None) -> Inspection:
    """The measures and findings of one pair [3 h w].

    A fault hides what it would spoil: of views that are turned against each other no disparity is judged.
    """
    left, right = match_features(pair)
    rows, agreeing = row_fit(left, right, pair.size)
    matched, left, right = len(left), left[agreeing], right[agreeing]
    findings = [*_of_images(pair), *_of_calibration(calibration, pair.size)]
    brightness = sharpness = spread = depths = None
    if rows is None:
        findings += _of_few(len(left), matched)
    else:
        brightness, sharpness = _likeness(pair, left, right)
        disparities = left[:, 0] - right[:, 0]
        low, middle, high = (float(value) for value in np.percentile(disparities, [1, 50, 99]))
        spread = (low, middle, high)
        findings += _of_places(rows, left, disparities, calibration)
        findings += _of_likeness(brightness, sharpness)
        if calibration is not None:
            near, half, far = (float(d) for d in calibration.depth(np.array([high, middle, low])))
            depths = (near, half, far)
    return Inspection(
        size=pair.size,
        matched=matched,
        left=left,
        right=right,
        rows=rows,
        disparities=spread,
        brightness=brightness,
        sharpness=sharpness,
        depths=depths,
        field_of_view=None if calibration is None else field_of_view(calibration, pair.size[1]),
        findings=tuple(sorted(findings, key=lambda finding: not finding.fault)),
    )


def row_fit(
    left: Locations, right: Locations, size: tuple[int, int]
) -> tuple[Rows | None, Bool[np.ndarray, " n"]]:
    """The plane of row differences on which most features agree within `TOLERANCE`, and which these are.

    A camera that is rolled, pitched, or longer in focus moves rows by such a plane, nearly. Found on
    random triples (Fischler and Bolles 1981), then fitted to all that agree. None with less than `FEWEST`.
    """
    height, width = size
    x, y = left[:, 0] / max(width - 1, 1) - 0.5, left[:, 1] / max(height - 1, 1) - 0.5
    plane = np.stack([np.ones(len(left)), x, y], axis=1)
    difference = left[:, 1] - right[:, 1]
    agreeing, terms = _largest_consensus(plane, difference), np.zeros(3)
    for _ in range(3):
        if agreeing.sum() < FEWEST:
            return None, agreeing
        terms = np.linalg.lstsq(plane[agreeing], difference[agreeing], rcond=None)[0]
        agreeing = np.abs(plane @ terms - difference) < TOLERANCE
    shift, tilt, stretch = (float(term) for term in terms)
    return Rows(shift, tilt, stretch, float(np.median(np.abs(difference[agreeing])))), agreeing


def _largest_consensus(plane: Float64[np.ndarray, "n 3"], difference: Values) -> Bool[np.ndarray, " n"]:
    count = len(plane)
    best = np.zeros(count, bool)
    if count < FEWEST:
        return best
    draws = np.random.default_rng(0)
    for _ in range(500):
        triple = draws.choice(count, 3, replace=False)
        if abs(np.linalg.det(plane[triple])) < 1e-3:  # nearly on one line
            continue
        terms = np.linalg.solve(plane[triple], difference[triple])
        agreeing = np.abs(plane @ terms - difference) < TOLERANCE
        if agreeing.sum() > best.sum():
            best = agreeing
    return best


def field_of_view(calibration: Calibration, width: int) -> float:
    """Degrees that the left image spans horizontally."""
    edges = (calibration.cx + 0.5) / calibration.focal, (width - 0.5 - calibration.cx) / calibration.focal
    return math.degrees(sum(math.atan(edge) for edge in edges))


# Findings


def _of_images(pair: StereoPair) -> list[Finding]:
    found = []
    for name, view in (("left", pair.left), ("right", pair.right)):
        gray = luma(view)
        burnt, black = (
            float(share) for share in ((gray > 0.99).float().mean(), (gray < 0.01).float().mean())
        )
        if burnt > 0.2:
            found.append(
                Finding(False, f"{burnt:.0%} of the {name} view is burnt out", "expose for less time")
            )
        if black > 0.5:
            found.append(Finding(False, f"{black:.0%} of the {name} view is black", "expose for longer"))
    return found


def _of_few(agreeing: int, matched: int) -> list[Finding]:
    found = f"only {agreeing} of {matched} matched features agree on where rows lie"
    advice = "the views show different scenes, or have hardly any texture"
    return [Finding(True, found, advice)]


def _of_places(
    rows: Rows, left: Locations, disparities: Values, calibration: Calibration | None
) -> list[Finding]:
    if np.polyfit(left[:, 0], disparities, 1)[0] > 1:  # what lies left in one view lies right in the other
        return [Finding(True, "one view is mirrored or upside down", "turn it as the other one")]
    findings = []
    if rows.median > LARGEST_ROW_DIFFERENCE:
        advice = "rectify the raw pair, with --refine (stereopsis rectify)"
        findings.append(Finding(True, f"rows differ by {rows.median:.2f} px", advice))
    if rows.median < FARTHEST_ROWS:
        findings += _of_disparities(disparities, calibration)
    return findings


def _of_disparities(disparities: Values, calibration: Calibration | None) -> list[Finding]:
    low, high = (float(value) for value in np.percentile(disparities, [1, 99]))
    lowest = math.floor(low - 4)
    offset = 0.0 if calibration is None else calibration.doffs
    if high < 1 and low > -1:
        advice = "they are of one camera, or all lies too far to measure: give those of two cameras apart"
        return [Finding(True, "no feature has moved between the views", advice)]
    if float((disparities + offset < -1).mean()) > 0.5:
        found = f"left and right look exchanged, with disparities of {low:.0f} to {high:.0f} px"
        advice = f"exchange them, turn both if upside down, or give --min-disparity {lowest} if they converge"
        return [Finding(True, found, advice)]
    findings = []
    if _many(disparities < -1):
        found = f"some disparities are negative, down to {low:.0f} px"
        findings.append(Finding(True, found, f"give --min-disparity {lowest}"))
    if calibration is not None and _many(disparities + offset < -1):
        found = f"with the calibration's doffs of {offset:g} px some features lie beyond infinity"
        findings.append(Finding(True, found, "give the calibration of these images, not of other ones"))
    if high > 0.95 * SEARCHED:
        found = f"disparities reach {high:.0f} px, and most predictors search {SEARCHED}"
        enough = math.ceil(1.25 * high / 64) * 64
        findings.append(Finding(False, found, f"give --max-disparity {enough}, or --scale 0.5"))
    return findings


def _many(odd: Bool[np.ndarray, " n"]) -> bool:
    """More than a few wrong matches."""
    return int(odd.sum()) >= max(5, len(odd) / 100)


def _of_likeness(brightness: float, sharpness: float) -> list[Finding]:
    findings = []
    for ratio, what, advice in (
        (brightness, "bright", "give both cameras the same exposure"),
        (sharpness, "sharp", "focus both cameras alike, and wipe the lenses"),
    ):
        if not 1 / 1.5 < ratio < 1.5:
            view, factor = ("right", ratio) if ratio > 1 else ("left", 1 / ratio)
            findings.append(Finding(False, f"the {view} view is {factor:.1f} times as {what}", advice))
    return findings


def _of_calibration(calibration: Calibration | None, size: tuple[int, int]) -> list[Finding]:
    if calibration is None:
        return []
    height, width = size
    other_size = size_finding(calibration, size)
    if other_size is not None:
        return [other_size]
    findings = []
    view = field_of_view(calibration, width)
    if not 3 < view < 150:
        found = f"by its focal length of {calibration.focal:g} px the view spans {view:.0f} degrees"
        findings.append(Finding(True, found, "give it in pixels of these images, not millimetres"))
    if not (0 <= calibration.cx < width and 0 <= calibration.cy < height):
        found = f"the principal point ({calibration.cx:g}, {calibration.cy:g}) lies outside the image"
        findings.append(Finding(True, found, "give the calibration of these images, not of other ones"))
    if calibration.baseline > 10 or calibration.baseline < 0.002:
        unit = "is it in millimetres?" if calibration.baseline > 10 else "is it in kilometres?"
        found = f"the cameras stand {calibration.baseline:g} m apart"
        findings.append(Finding(True, found, f"{unit} baselines are given in metres"))
    return findings


def size_finding(calibration: Calibration, size: tuple[int, int]) -> Finding | None:
    """The fault of a calibration that states another (height, width); None where it states this or none."""
    if calibration.size is None or calibration.size == size:
        return None
    stated = f"{calibration.size[1]}x{calibration.size[0]}"
    found = f"the calibration is for images of {stated}, these are {size[1]}x{size[0]}"
    return Finding(True, found, "give that of the resized images")


def _likeness(pair: StereoPair, left: Locations, right: Locations) -> tuple[float, float]:
    """Medians over features of the right view's brightness and contrast over the left one's.

    Brightness: mean of 21 x 21 pixels; sharpness: mean squared slope there, over that of brightness.
    """
    (bright_left, slope_left), (bright_right, slope_right) = (
        _surroundings(view, where) for view, where in ((pair.left, left), (pair.right, right))
    )
    brighter = bright_right / bright_left
    sharper = np.sqrt(slope_right / slope_left) / brighter
    return float(np.median(brighter)), float(np.median(sharper))


def _surroundings(view: Float[Tensor, "3 h w"], where: Locations) -> tuple[Values, Values]:
    gray = luma(view)[0].cpu().numpy()
    across, down = cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1)
    column, row = where.round().astype(int).T
    row, column = row.clip(0, gray.shape[0] - 1), column.clip(0, gray.shape[1] - 1)
    maps = (cv2.blur(values, (21, 21))[row, column] for values in (gray, across**2 + down**2))
    bright, slope = (values.astype(np.float64) + 1e-6 for values in maps)
    return bright, slope
