from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stereopsis.evaluation.mixtures import mixture_pictures, write_mixture_pictures
from stereopsis.io.images import read_image
from stereopsis.models.registry import create
from stereopsis.models.smd import SMDNet
from stereopsis.prediction.network import NetworkPredictor
from stereopsis.structures import MixtureOutput, StereoPair


def output(representation: str) -> MixtureOutput:
    torch.manual_seed(0)
    model = create("smd-stereodepth", representation=representation, max_disparity=128, width=4, head=(16, 8))
    assert isinstance(model, SMDNet)
    predicted = NetworkPredictor(model)(StereoPair(*torch.rand(2, 3, 30, 40)))
    assert isinstance(predicted, MixtureOutput)
    return predicted


@pytest.mark.parametrize(
    ("representation", "names"),
    [
        ("standard", {"pred_disp"}),
        ("unimodal", {"pred_disp", "mu0", "sigma0"}),
        ("bimodal", {"pred_disp", "mu0", "sigma0", "mu1", "sigma1", "pi0", "pi1"}),
    ],
)
def test_every_representation_shows_what_it_has(representation, names):
    pictures = mixture_pictures(output(representation))
    assert {named.name for named in pictures} == names
    assert all(named.picture.shape == (30, 40, 3) for named in pictures)


def test_uncertainty_and_error_are_there_when_asked_for(tmp_path: Path):
    predicted = output("bimodal")
    pictures = mixture_pictures(predicted, truth=predicted.disparity + 50, entropy=True)
    files = write_mixture_pictures(tmp_path, pictures)
    assert {"uncertainty.png", "error.png"} < set(files)
    wrong = next(named.picture for named in pictures if named.name == "error")
    red, blue = wrong[..., 0].astype(int), wrong[..., 2].astype(int)
    assert (red > blue).all()
    stored = read_image(tmp_path / "pi0.png")
    assert predicted.pi is not None
    assert abs(int(stored[10, 10, 0]) - float(predicted.pi[10, 10]) * 255) <= 1
