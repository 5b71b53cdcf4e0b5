from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from stereopsis.io.pfm import pfm_in_bands, read_pfm
from stereopsis.models.registry import create
from stereopsis.models.smd import SMDNet
from stereopsis.prediction import superresolution
from stereopsis.prediction.network import NetworkPredictor
from stereopsis.prediction.superresolution import bands, enlarged_size, superresolved, write_superresolved
from stereopsis.structures import MixtureOutput, StereoOutput, StereoPair


@pytest.fixture(scope="module")
def output() -> MixtureOutput:
    torch.manual_seed(0)
    model = create("smd-stereodepth", max_disparity=128, width=4, head=(16, 8))
    assert isinstance(model, SMDNet)
    images = torch.rand(2, 3, 50, 70, generator=torch.Generator().manual_seed(0))
    predicted = NetworkPredictor(model)(StereoPair(*images))
    assert isinstance(predicted, MixtureOutput)
    return predicted


def test_a_factor_of_one_is_the_output_itself(output):
    torch.testing.assert_close(superresolved(output, 1).disparity, output.disparity, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("factor", "size"), [(2, (100, 140)), (2.5, (125, 175)), (0.5, (25, 35))])
def test_the_grid_and_its_disparities_grow_with_the_factor(output, factor, size):
    enlarged = superresolved(output, factor)
    assert enlarged.disparity.shape == size
    assert enlarged.scale == factor
    assert enlarged.confidence is not None
    y, x = size[0] // 2, size[1] // 2
    there = output.query(torch.tensor([[float(x), float(y)]]), scale=factor)
    torch.testing.assert_close(enlarged.disparity[y, x], there.disparity[0], rtol=0, atol=1e-3)


def test_bands_written_one_by_one_are_the_whole(output, tmp_path, monkeypatch):
    monkeypatch.setattr(superresolution, "_BAND", 1000)
    assert len(list(bands(output, 3.3))) > 30
    size = write_superresolved(tmp_path / "disparity.pfm", output, 3.3)
    assert size == enlarged_size((50, 70), 3.3) == (165, 231)
    np.testing.assert_allclose(
        read_pfm(tmp_path / "disparity.pfm"), superresolved(output, 3.3).disparity.numpy(), rtol=0, atol=1e-3
    )


def test_memory_does_not_grow_with_the_factor(output, tmp_path: Path, monkeypatch):
    """The largest tensor alive while writing, in numbers, for 0.1 and for 8 megapixels."""
    largest: dict[float, int] = {}
    real = torch.nn.functional.linear

    for factor in (5, 48):
        sizes: list[int] = []
        monkeypatch.setattr(
            torch.nn.functional,
            "linear",
            lambda x, w, b=None, sizes=sizes: (sizes.append(x.numel()), real(x, w, b))[1],
        )
        monkeypatch.setattr(superresolution, "_LARGEST", 64.0)
        written: list[int] = []
        for _, band in bands(output, factor):
            written.append(band.disparity.numel())
            if len(written) == 3:
                break
        largest[factor] = max(max(sizes), max(written))
    assert largest[48] <= largest[5] * 2.2
    assert largest[48] < 2**20


def test_only_networks_with_a_field_can_be_enlarged(output):
    with pytest.raises(ValueError, match="needs a network that can be asked at any position"):
        superresolved(StereoOutput(output.disparity), 2)


@pytest.mark.parametrize("factor", [0, -1, 33])
def test_factors_outside_the_published_range_are_refused(output, factor):
    with pytest.raises(ValueError, match="at most 32"):
        superresolved(output, factor)


def test_a_banded_pfm_is_whole_whatever_the_order(tmp_path):
    values = np.arange(35, dtype=np.float32).reshape(7, 5)
    with pfm_in_bands(tmp_path / "map.pfm", 7, 5) as write:
        for first, last in ((4, 7), (0, 1), (1, 4)):
            write(first, values[first:last])
    assert np.array_equal(read_pfm(tmp_path / "map.pfm"), values)
