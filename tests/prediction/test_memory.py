"""Estimates of memory, and wrapping as a user's choices ask."""

from __future__ import annotations

import pytest
import torch

from stereopsis.prediction.classical import SGBM, Filled
from stereopsis.prediction.composition import Wrapping
from stereopsis.prediction.memory import (
    bytes_per_pixel,
    peak_resident_bytes,
    peak_tensor_bytes,
    resident_bytes,
    window_pixels,
)
from stereopsis.prediction.mirrored import Mirrored
from stereopsis.prediction.rescaled import Rescaled
from stereopsis.prediction.shifted import Shifted
from stereopsis.prediction.tiled import Tiled
from stereopsis.structures import StereoOutput, StereoPair


def volume_predictor(pair: StereoPair) -> StereoOutput:
    """Holds a volume of eight bytes a pixel and column."""
    width = pair.left.shape[-1]
    volume = torch.zeros(*pair.left.shape[-2:], 2 * width)
    return StereoOutput(volume[..., 0].clone(), torch.ones(pair.left.shape[-2:]))


def test_tensors_alive_at_once_are_counted() -> None:
    def work() -> torch.Tensor:
        first = torch.zeros(1000)
        second = first + 1
        view = second[:10]
        del first
        return torch.zeros(500) * view[0]

    assert peak_tensor_bytes(work) in range(8000, 8100)


def test_estimates_follow_the_width_where_volumes_do() -> None:
    narrow, wide = bytes_per_pixel(volume_predictor, 512), bytes_per_pixel(volume_predictor, 2048)
    assert wide / narrow == pytest.approx(4, rel=0.05)
    assert narrow >= 8 * 512
    assert bytes_per_pixel(SGBM(), 4000) == bytes_per_pixel(SGBM(), 400)
    assert bytes_per_pixel(SGBM(mode="hh"), 4000) > 4 * 1000


def test_windows_leave_room_for_what_is_held() -> None:
    limit = resident_bytes() + 400 * 2**20
    pixels = window_pixels(SGBM(), (1000, 1000), limit)
    assert 65536 < pixels * bytes_per_pixel(SGBM(), 1000) < 400 * 2**20
    assert peak_resident_bytes() >= resident_bytes() // 2
    with pytest.raises(ValueError, match="too little for a pair of 1000x1000 with this model: at least"):
        window_pixels(SGBM(), (1000, 1000), 2**20)


def test_choices_become_wrappers() -> None:
    assert Wrapping().around(volume_predictor, (100, 200)) is volume_predictor
    everything = Wrapping(scale=0.5, min_disparity=-8, both=True).around(volume_predictor, (100, 200))
    assert everything == Mirrored(Shifted(Rescaled(volume_predictor, 0.5), -8))
    roomy = Wrapping(max_memory=2**50).around(SGBM(), (1000, 2000))
    assert roomy == SGBM()


def test_tiles_of_sgbm_keep_the_range_of_the_whole_and_fill_last() -> None:
    limit = resident_bytes() + 150 * 4_000_000 + 110 * 500_000
    tiled = Wrapping(max_memory=limit).around(SGBM(), (2000, 2000))
    assert isinstance(tiled, Filled)
    assert isinstance(tiled.predictor, Tiled)
    assert tiled.predictor.predictor == SGBM(max_disparity=512, fill=None)
    assert tiled.predictor.coarse == SGBM()
