"""Pictures of disparity, confidence and error: colour maps, ranges, panels. All are uint8 RGB, `[h w 3]`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, UInt8
from torch import Tensor

from stereopsis.structures import StereoPair

Picture = UInt8[np.ndarray, "h w 3"]
AnyPicture = UInt8[np.ndarray, "_ _ 3"]


def image_picture(image: Float[Tensor, "3 h w"]) -> Picture:
    """An image of a pair, [0, 1], as a picture."""
    return _stored(image.permute(1, 2, 0) * 255)


def robust_range(
    values: Float[Tensor, "*b h w"], *, valid: Bool[Tensor, "*b h w"] | None = None
) -> tuple[float, float]:
    """The 1st and 99th percentile of the finite values (thinned beyond a million); (0, 1) without any."""
    known = values.isfinite() if valid is None else values.isfinite() & valid
    kept = values[known].float()
    if kept.numel() == 0:
        return 0.0, 1.0
    kept = kept[:: max(1, math.ceil(kept.numel() / 1_000_000))]
    low, high = torch.quantile(kept, kept.new_tensor([0.01, 0.99])).tolist()
    return low, max(high, low + 1e-6)


def disparity_picture(
    disparity: Float[Tensor, "h w"],
    *,
    limits: tuple[float, float] | None = None,
    valid: Bool[Tensor, "h w"] | None = None,
) -> Picture:
    """Turbo from far (dark blue) to near (dark red); unknown is black.

    limits: disparities of both ends in pixels, to compare pictures; None: `robust_range`.
    """
    low, high = limits or robust_range(disparity, valid=valid)
    known = disparity.isfinite() if valid is None else disparity.isfinite() & valid
    share = torch.where(known, (disparity - low) / (high - low), 0.0).clamp(0, 1)
    picture = TURBO[_stored(share * 255)]
    picture[~known.cpu().numpy()] = 0
    return picture


def confidence_picture(confidence: Float[Tensor, "h w"]) -> Picture:
    """Gray: black at 0, white at 1."""
    return np.repeat(_stored(confidence * 255)[..., None], 3, axis=-1)


def error_picture(
    disparity: Float[Tensor, "h w"], truth: Float[Tensor, "h w"], mask: Bool[Tensor, "h w"]
) -> Picture:
    """KITTI 2015's error colours: blue for right, red for wrong, white at its limit; black outside `mask`.

    The limit is the larger of 3 pixels and 5 % of the truth; colours double the error at each step.
    """
    limit = torch.maximum(truth.new_tensor(3.0), 0.05 * truth.abs())
    share = torch.nan_to_num((disparity - truth).abs() / limit, nan=math.inf)
    step = torch.bucketize(share, share.new_tensor(KITTI_STEPS), right=True)
    picture = KITTI_COLOURS[step.cpu().numpy()]
    picture[~mask.cpu().numpy()] = 0
    return picture


def matches_picture(
    pair: StereoPair,
    left: Float64[np.ndarray, "n 2"],
    right: Float64[np.ndarray, "n 2"],
    *,
    shown: int = 60,
    widest: int = 960,
) -> AnyPicture:
    """Both views side by side, at most `widest` pixels each; lines join `shown` of the matches (x, y).

    Green where the rows differ by at most half a pixel, orange up to two, red beyond. The matches are
    spread over the image, and of no choice: every n-th from top to bottom.
    """
    height, width = pair.size
    scale = min(1.0, widest / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    views = [
        cv2.resize(image_picture(view), size, interpolation=cv2.INTER_AREA)
        for view in (pair.left, pair.right)
    ]
    picture = panel(views)
    offset = picture.shape[1] - size[0]
    order = np.argsort(left[:, 1], kind="stable")
    for index in order[:: max(1, math.ceil(len(order) / shown))]:
        difference = abs(left[index, 1] - right[index, 1])
        colour = (0, 200, 0) if difference <= 0.5 else (255, 150, 0) if difference <= 2 else (230, 0, 0)
        start, end = left[index] * scale, right[index] * scale + (offset, 0)
        first, last = ((round(float(x)), round(float(y))) for x, y in (start, end))
        cv2.line(picture, first, last, colour, 1, cv2.LINE_AA)
        for point in (first, last):
            cv2.circle(picture, point, 3, colour, 1, cv2.LINE_AA)
    return picture


def panel(pictures: Sequence[AnyPicture], *, columns: int = 2, gap: int = 4) -> AnyPicture:
    """Pictures side by side, row by row, on white; each cell is as large as the largest picture."""
    if not pictures:
        raise ValueError("a panel needs at least one picture")
    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    height = max(picture.shape[0] for picture in pictures)
    width = max(picture.shape[1] for picture in pictures)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return canvas


def titled(picture: AnyPicture, title: str) -> AnyPicture:
    """The picture under a line of text."""
    line = np.full((22, picture.shape[1], 3), 255, np.uint8)
    cv2.putText(line, title, (3, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([line, picture])


def _stored(values: Tensor) -> np.ndarray:
    return values.detach().round().clamp(0, 255).to(torch.uint8).cpu().numpy()


KITTI_STEPS = (0.0625, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Limits between the colours, in shares of the limit of an outlier."""

KITTI_COLOURS = np.array(
    [
        (49, 54, 149),
        (69, 117, 180),
        (116, 173, 209),
        (171, 217, 233),
        (224, 243, 248),
        (254, 224, 144),
        (253, 174, 97),
        (244, 109, 67),
        (215, 48, 39),
        (165, 0, 38),
    ],
    np.uint8,
)

# Turbo, A. Mikhailov 2019 (Google, Apache-2.0): 256 colours, RGB.
TURBO = np.frombuffer(
    bytes.fromhex(
        "30123b32154333184a341b51351e5836215f37246638276d392a733a2d793b2f803c32863d358b3e38913f3b973f3e9c"
        "4040a24143a74146ac4249b1424bb5434eba4451bf4454c34456c74559cb455ccf455ed34661d64664da4666dd4669e0"
        "466be3476ee64771e94773eb4776ee4778f0477bf2467df44680f64682f84685fa4687fb458afc458cfd448ffe4391fe"
        "4294ff4196ff4099ff3e9bfe3d9efe3ba0fd3aa3fc38a5fb37a8fa35abf833adf731aff52fb2f42eb4f22cb7f02ab9ee"
        "28bceb27bee925c0e723c3e422c5e220c7df1fc9dd1ecbda1ccdd81bd0d51ad2d21ad4d019d5cd18d7ca18d9c818dbc5"
        "18ddc218dec018e0bd19e2bb19e3b91ae4b61ce6b41de7b21fe9af20eaac22ebaa25eca727eea42aefa12cf09e2ff19b"
        "32f29835f39438f4913cf58e3ff68a43f78746f8844af8804ef97d52fa7a55fa7659fb735dfc6f61fc6c65fd6969fd66"
        "6dfe6271fe5f75fe5c79fe597dff5680ff5384ff5188ff4e8bff4b8fff4992ff4796fe4499fe429cfe409ffd3fa1fd3d"
        "a4fc3ca7fc3aa9fb39acfb38affa37b1f936b4f836b7f735b9f635bcf534bef434c1f334c3f134c6f034c8ef34cbed34"
        "cdec34d0ea34d2e935d4e735d7e535d9e436dbe236dde037dfdf37e1dd37e3db38e5d938e7d739e9d539ebd339ecd13a"
        "eecf3aefcd3af1cb3af2c93af4c73af5c53af6c33af7c13af8be39f9bc39faba39fbb838fbb637fcb336fcb136fdae35"
        "fdac34fea933fea732fea431fea130fe9e2ffe9b2dfe992cfe962bfe932afe9029fd8d27fd8a26fc8725fc8423fb8122"
        "fb7e21fa7b1ff9781ef9751df8721cf76f1af66c19f56918f46617f36315f26014f15d13f05b12ef5811ed5510ec530f"
        "eb500eea4e0de84b0ce7490ce5470be4450ae2430ae14109df3f08dd3d08dc3b07da3907d83706d63506d43305d23105"
        "d02f05ce2d04cc2b04ca2a04c82803c52603c32503c12302be2102bc2002b91e02b71d02b41b01b21a01af1801ac1701"
        "a91601a71401a41301a112019e10019b0f01980e01950d01920b018e0a018b09028808028507028106027e05027a0403"
    ),
    np.uint8,
).reshape(256, 3)
