"""Who can be measured: folders of disparities in each form, weights that say what they were trained on."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from stereopsis.evaluation.contestants import DisparityFolder, contestant
from stereopsis.io.disparity import write_disparity
from stereopsis.io.weights import WeightsHeader, write_weights
from stereopsis.structures import StereoPair


def _pair() -> StereoPair:
    return StereoPair(torch.zeros(3, 4, 6), torch.zeros(3, 4, 6))


@pytest.mark.parametrize(
    "path", ["a.pfm", "a.npy", "a.npz", "a.png", "a/disparity.pfm", "a/disp0.pfm", "a/anything.pfm"]
)
def test_folder_of_disparities_in_each_form(path: str, tmp_path: Path) -> None:
    (tmp_path / path).parent.mkdir(exist_ok=True)
    values = np.full((4, 6), 3.5, np.float32)
    values[0, 0] = np.inf
    write_disparity(tmp_path / path, values)
    output = DisparityFolder(tmp_path).for_scene("a")(_pair())
    assert output.disparity[1, 1].item() == 3.5
    assert output.disparity[0, 0].item() == float("inf")
    assert output.confidence is None


def test_missing_and_misshapen_disparities_are_named(tmp_path: Path) -> None:
    folder = DisparityFolder(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"b\.pfm was expected"):
        folder.for_scene("b")
    write_disparity(tmp_path / "b.pfm", np.ones((2, 2), np.float32))
    with pytest.raises(ValueError, match="2x2, its image 6x4"):
        folder.for_scene("b")(_pair())


def test_options_where_there_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither weights nor options"):
        contestant(str(tmp_path), weights=tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="neither weights nor options"):
        contestant("sgbm-oracle", max_disparity=64)


def test_oracle_without_its_record_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEREOPSIS_DATA", raising=False)
    with pytest.raises(ValueError, match="--record"):
        contestant("sgbm-oracle")


def test_weights_tell_what_they_were_trained_on(tmp_path: Path) -> None:
    from stereopsis.models.registry import create

    model = create("stereonet")
    path = tmp_path / "w.safetensors"
    header = WeightsHeader(
        network="stereonet", training={"splits": ["sceneflow/train-final", "kitti2015/train"]}
    )
    write_weights(path, model.state_dict(), header)
    found = contestant("stereonet", weights=path)
    assert found.trained_on == ("sceneflow/train-final", "kitti2015/train")
    assert found.name == f"stereonet {path}"
    assert found.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert contestant("sgbm", max_disparity=64).name == "sgbm max_disparity=64"
