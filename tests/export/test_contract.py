"""Every other network of the field as an ONNX file of one size, in its small configuration."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from stereopsis.export.main import prove
from stereopsis.export.onnx import to_onnx
from stereopsis.export.original import random_original
from stereopsis.export.parity import LEAST_CLOSE, measure_parity, rendered_samples
from stereopsis.models.registry import entry
from stereopsis.prediction.network import NetworkPredictor
from stereopsis.structures import StereoSample

_SIZE = (96, 160)
_NETWORKS = (
    "aanet",
    "aanet-plus",
    "bgnet",
    "coex",
    "crestereo",
    "gmstereo",
    "gmstereo-scale1",
    "gmstereo-scale2",
    "smd-hsmnet",
    "smd-stereodepth",
    "sttr",
    "sydenet-small",
)


@pytest.mark.compile
@pytest.mark.parametrize("name", _NETWORKS)
def test_a_file_of_one_size_is_the_original(name: str, tmp_path: Path) -> None:
    original = random_original(name, **entry(name).tiny)
    model = to_onnx(original, size=_SIZE, any_batch=False)
    model.write(tmp_path / "network.onnx")
    samples = [_sample(gray=name.startswith("bgnet"))]
    assert prove(tmp_path / "network.onnx", original, samples)[0].failures == ()


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")  # of leaving oneDNN for a moment
def test_bgnet_plus_differs_from_its_file_as_it_differs_from_itself(tmp_path: Path) -> None:
    """Its refinement takes images up to 255: with random weights float32 keeps no 0.001 px.

    Held to the same network with PyTorch's own convolutions, which add in another order than oneDNN's.
    """
    original = random_original("bgnet-plus", **entry("bgnet-plus").tiny)
    model = to_onnx(original, size=_SIZE, any_batch=False)
    model.write(tmp_path / "network.onnx")
    sample = _sample(gray=True)
    exported = prove(tmp_path / "network.onnx", original, [sample])[0].parity
    predictor = NetworkPredictor(original.model)
    plain = predictor(sample.pair)
    with torch.backends.mkldnn.flags(enabled=False):
        other = predictor(sample.pair)
    itself = measure_parity(lambda _: plain, lambda _: other, [sample], runtime="torch")
    assert itself.close < LEAST_CLOSE
    assert exported.mean < 2 * itself.mean


def _sample(*, gray: bool) -> StereoSample:
    """gray: for BGNet, which rounds the luma to 8 bits: a thousandth of colours is at a tie, no gray is."""
    sample = next(rendered_samples([_SIZE], each=1, seed=0))
    if not gray:
        return sample
    pair = sample.pair.map(lambda image: image[1:2].expand(3, -1, -1).contiguous())
    return dataclasses.replace(sample, pair=pair)
