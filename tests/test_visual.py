"""Colour maps at their published values, ranges, error colours and panels."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from stereopsis.visual import (
    TURBO,
    confidence_picture,
    disparity_picture,
    error_picture,
    image_picture,
    panel,
    robust_range,
    titled,
)


def test_turbo_is_the_published_map() -> None:
    ramp = np.arange(256, dtype=np.uint8)[:, None]
    published = cv2.applyColorMap(ramp, cv2.COLORMAP_TURBO)[:, 0, ::-1]
    assert np.array_equal(TURBO, published)


def test_disparity_between_limits_and_unknown_in_black() -> None:
    disparity = torch.tensor([[0.0, 10.0, 25.5, 51.0, 99.0, math.inf, math.nan]])
    picture = disparity_picture(disparity, limits=(0.0, 51.0))
    assert np.array_equal(picture[0, :5], TURBO[[0, 50, 128, 255, 255]])
    assert not picture[0, 5:].any()
    masked = disparity_picture(disparity, limits=(0.0, 51.0), valid=disparity > 5)
    assert not masked[0, 0].any()


def test_the_robust_range_leaves_outliers_and_unknown_out() -> None:
    disparity = torch.linspace(10, 20, 1000).reshape(10, 100)
    disparity[0, 0], disparity[0, 1] = 1e6, math.inf
    low, high = robust_range(disparity)
    assert low == pytest.approx(10.1, abs=0.05)
    assert high == pytest.approx(19.9, abs=0.05)
    assert robust_range(torch.full((2, 2), math.nan)) == (0.0, 1.0)
    assert disparity_picture(torch.full((2, 2), 5.0)).shape == (2, 2, 3)


def test_the_error_colours_are_kittis() -> None:
    truth = torch.full((1, 6), 20.0)
    error = torch.tensor([[0.0, 1.0, 2.9, 3.1, 100.0, math.nan]])
    mask = torch.ones(1, 6, dtype=torch.bool)
    picture = error_picture(truth + error, truth, mask)
    assert picture[0].tolist() == [
        [49, 54, 149],
        [171, 217, 233],
        [224, 243, 248],
        [254, 224, 144],
        [165, 0, 38],
        [165, 0, 38],
    ]
    far = error_picture(torch.tensor([[104.0]]), torch.tensor([[100.0]]), mask[:, :1])
    assert far[0, 0].tolist() == [224, 243, 248]
    assert not error_picture(truth, truth, ~mask).any()


def test_images_and_confidence_are_rounded() -> None:
    assert image_picture(torch.full((3, 2, 2), 0.5)).tolist() == [[[128] * 3] * 2] * 2
    assert confidence_picture(torch.tensor([[0.0, 0.2, 1.0]]))[0, :, 0].tolist() == [0, 51, 255]


def test_a_panel_places_pictures_in_rows() -> None:
    red, blue = np.zeros((4, 6, 3), np.uint8), np.zeros((5, 3, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    board = panel([red, blue, red], columns=2, gap=2)
    assert board.shape == (12, 14, 3)
    assert np.array_equal(board[:4, :6], red)
    assert np.array_equal(board[:5, 8:11], blue)
    assert np.array_equal(board[7:11, :6], red)
    assert (board[5, 0] == 255).all()
    with pytest.raises(ValueError, match="at least one picture"):
        panel([])


def test_a_title_stands_above() -> None:
    picture = titled(np.zeros((10, 80, 3), np.uint8), "left")
    assert picture.shape == (32, 80, 3)
    assert 0 < (picture[:22] < 128).mean() < 0.5
