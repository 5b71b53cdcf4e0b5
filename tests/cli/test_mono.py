"""`predict --mono` writes relative depth of each image, and says what it cannot do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from stereopsis.cli.main import main
from stereopsis.io.images import read_image, write_image
from stereopsis.io.weights import WeightsHeader, write_weights
from stereopsis.models.registry import create
from stereopsis.prediction.monocular import load_monocular


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images, and the weights of a tiny monocular network that sees something in them."""
    torch.manual_seed(0)
    model = create("depth-anything-v2-small", encoder="tiny", input_size=56)
    torch.nn.init.constant_(model.get_submodule("head").get_parameter("conv3.bias"), 1.0)
    header = WeightsHeader(network="depth-anything-v2-small", config=dataclasses.asdict(model.config))
    write_weights(tmp_path / "mono.safetensors", model.state_dict(), header)
    random = np.random.default_rng(0)
    for name in ("one.png", "two.png"):
        write_image(tmp_path / name, random.integers(0, 255, (40, 50, 3), dtype=np.uint8))
    return tmp_path


def predict(folder: Path, *images: str, options: tuple[str, ...] = ()) -> int:
    paths = [str(folder / image) for image in images]
    weights = () if "--weights" in options else ("--weights", str(folder / "mono.safetensors"))
    return main(["predict", "--mono", *paths, *weights, "--output", str(folder / "out"), *options])


def test_one_image_gives_an_array_and_a_picture(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(folder, "one.png") == 0
    depth = np.load(folder / "out" / "inverse_depth.npy")
    assert depth.shape == (40, 50)
    assert depth.dtype == np.float32
    image = torch.from_numpy(read_image(folder / "one.png")).movedim(-1, 0).float() / 255
    expected = load_monocular(folder / "mono.safetensors")(image).inverse_depth
    assert np.array_equal(depth, expected.numpy())
    assert read_image(folder / "out" / "inverse_depth.png").shape == (40, 50, 3)
    assert str(folder / "out" / "inverse_depth.npy") in capsys.readouterr().out


def test_several_images_get_a_folder_each(folder: Path) -> None:
    assert predict(folder, "one.png", "two.png") == 0
    assert (folder / "out" / "one" / "inverse_depth.npy").exists()
    assert (folder / "out" / "two" / "inverse_depth.png").exists()


def test_a_batch_is_its_images(folder: Path) -> None:
    predictor = load_monocular("depth-anything-v2-small", weights=folder / "mono.safetensors")
    images = torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(0))
    together = predictor(images).inverse_depth
    assert torch.allclose(together[1], predictor(images[1]).inverse_depth, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--model", "stereonet"), "needs a pair"),
        (("--max-disparity", "64"), "no disparity: leave out --max-disparity"),
        (("--json", "--both", "--far", "inf"), "leave out --far, --both, --json"),
    ],
)
def test_what_does_not_fit_one_image_is_a_sentence(
    folder: Path, options: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(folder, "one.png", options=options) == 2
    assert sentence in capsys.readouterr().err


def test_an_image_too_long_to_be_seen_whole_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(folder / "long.png", np.zeros((3, 200, 3), np.uint8))
    assert predict(folder, "long.png") == 2
    assert "200x3 is too long" in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_images_of_one_name_would_overwrite_each_other(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(folder, "one.png", "one.png") == 2
    assert "overwrite each other" in capsys.readouterr().err


def test_weights_of_a_stereo_network_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = create("stereonet", max_disparity=64)
    header = WeightsHeader(network="stereonet", config=dataclasses.asdict(model.config))
    write_weights(folder / "stereo.safetensors", model.state_dict(), header)
    weights = ("--weights", str(folder / "stereo.safetensors"))
    assert predict(folder, "one.png", options=weights) == 2
    assert "needs a pair" in capsys.readouterr().err


def test_without_weights_it_says_which_to_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--mono", str(folder / "one.png")]) == 2
    assert "--weights" in capsys.readouterr().err
