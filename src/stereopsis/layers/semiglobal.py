"""OpenCV's semi-global matching of one view, so that no column of the image stays unmatched.

H. Hirschmüller, "Stereo processing by semiglobal matching and mutual information", TPAMI 2008, in
OpenCV's form (Birchfield-Tomasi costs over blocks).
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

Mode = Literal["3way", "sgbm", "hh"]

_MODES = {
    "3way": cv2.STEREO_SGBM_MODE_SGBM_3WAY,
    "sgbm": cv2.STEREO_SGBM_MODE_SGBM,
    "hh": cv2.STEREO_SGBM_MODE_HH,
}


def semiglobal_matching(
    left: UInt8[np.ndarray, "h w 3"],
    right: UInt8[np.ndarray, "h w 3"],
    *,
    count: int,
    first: int = 0,
    mode: Mode = "3way",
    block_size: int = 5,
    p1: int | None = None,
    p2: int | None = None,
    uniqueness: int = 0,
    prefilter_cap: int = 31,
    speckle_size: int = 100,
    speckle_range: int = 1,
) -> tuple[Float32[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """The left view's disparity from `first` to `first + count` pixels, and where OpenCV gave one.

    count: a multiple of 16. p1, p2: None takes 4 and 64 times 3 block_size². Images grow at the sides by
    repetition, so that every column can be matched over the whole range.
    """
    before, after = max(first + count, 0), max(-first, 0)
    grown = [cv2.copyMakeBorder(view, 0, 0, before, after, cv2.BORDER_REPLICATE) for view in (left, right)]
    area = 3 * block_size**2
    matcher = cv2.StereoSGBM.create(
        minDisparity=first,
        numDisparities=count,
        blockSize=block_size,
        P1=4 * area if p1 is None else p1,
        P2=64 * area if p2 is None else p2,
        preFilterCap=prefilter_cap,
        uniquenessRatio=uniqueness,
        speckleWindowSize=speckle_size,
        speckleRange=speckle_range,
        mode=_MODES[mode],
    )
    raw = matcher.compute(*grown)[:, before : before + left.shape[1]]
    return (raw / np.float32(16)).astype(np.float32), raw >= 16 * first
