"""Real files of the open scenes, put into their data sets' official layouts: the same truth both ways."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stereopsis.data.dataset import StereoDataset
from stereopsis.data.sources.registry import list_pairs
from stereopsis.structures import StereoSample

LAYOUTS: dict[str, tuple[str, str, dict[str, str]]] = {
    "kitti2012_000070": (
        "kitti2012",
        "train",
        {
            "left.png": "training/colored_0/000070_10.png",
            "right.png": "training/colored_1/000070_10.png",
            "disp_left.png": "training/disp_occ/000070_10.png",
            "disp_left_noc.png": "training/disp_noc/000070_10.png",
            "calib.txt": "training/calib/000070.txt",
        },
    ),
    "kitti2015_000046": (
        "kitti2015",
        "train",
        {
            "left.png": "training/image_2/000046_10.png",
            "right.png": "training/image_3/000046_10.png",
            "disp_left.png": "training/disp_occ_0/000046_10.png",
        },
    ),
    "middlebury2003_teddy": (
        "middlebury2003",
        "quarter",
        {
            "left.png": "teddy/im2.png",
            "right.png": "teddy/im6.png",
            "disp_left.png": "teddy/disp2.png",
            "disp_right.png": "teddy/disp6.png",
        },
    ),
    "middlebury2005_moebius": (
        "middlebury2005",
        "third",
        {
            "left.png": "ThirdSize/Moebius/view1.png",
            "right.png": "ThirdSize/Moebius/view5.png",
            "disp_left.png": "ThirdSize/Moebius/disp1.png",
            "disp_right.png": "ThirdSize/Moebius/disp5.png",
        },
    ),
    "middlebury2006_aloe": (
        "middlebury2006",
        "third",
        {
            "left.png": "ThirdSize/Aloe/view1.png",
            "right.png": "ThirdSize/Aloe/view5.png",
            "disp_left.png": "ThirdSize/Aloe/disp1.png",
            "disp_right.png": "ThirdSize/Aloe/disp5.png",
        },
    ),
    "middlebury2014_motorcycle_q": (
        "middlebury-v3",
        "trainingQ",
        {
            "left.png": "trainingQ/Motorcycle/im0.png",
            "right.png": "trainingQ/Motorcycle/im1.png",
            "disp_left.pfm": "trainingQ/Motorcycle/disp0GT.pfm",
            "disp_right.pfm": "trainingQ/Motorcycle/disp1GT.pfm",
            "occlusion_left.png": "trainingQ/Motorcycle/mask0nocc.png",
            "calib.txt": "trainingQ/Motorcycle/calib.txt",
        },
    ),
    "eth3d_playground_1l": (
        "eth3d",
        "train",
        {
            "left.png": "two_view_training/playground_1l/im0.png",
            "right.png": "two_view_training/playground_1l/im1.png",
            "disp_left.pfm": "two_view_training_gt/playground_1l/disp0GT.pfm",
            "calib.txt": "two_view_training/playground_1l/calib.txt",
        },
    ),
    "sceneflow_flyingthings3d_a0032_0006": (
        "sceneflow",
        "flyingthings-clean",
        {
            "left.png": "frames_cleanpass/TRAIN/A/0032/left/0006.png",
            "right.png": "frames_cleanpass/TRAIN/A/0032/right/0006.png",
            "disp_left.pfm": "disparity/TRAIN/A/0032/left/0006.pfm",
            "disp_right.pfm": "disparity/TRAIN/A/0032/right/0006.pfm",
        },
    ),
}


@pytest.fixture(params=sorted(LAYOUTS))
def both(
    request: pytest.FixtureRequest, shared_data: Path, tmp_path: Path
) -> tuple[StereoSample, StereoSample]:
    """The scene through its `scene.json`, and through its data set's own layout."""
    dataset, split, files = LAYOUTS[request.param]
    for name, place in files.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).symlink_to(shared_data / "real" / request.param / name)
    scenes = list_pairs("open", root=shared_data / "real")
    scene = next(files for files in scenes if files.name == request.param)
    return StereoDataset([scene])[0], StereoDataset(list_pairs(dataset, split, root=tmp_path))[0]


def test_official_layout_gives_the_same_sample(both: tuple[StereoSample, StereoSample]) -> None:
    scene, official = both
    for first, second in (
        (scene.pair.left, official.pair.left),
        (scene.pair.right, official.pair.right),
        (scene.disparity, official.disparity),
        (scene.valid, official.valid),
        (scene.disparity_right, official.disparity_right),
    ):
        assert (first is None) == (second is None)
        assert first is None or second is None or torch.equal(first, second)
    if scene.occluded is not None and official.occluded is not None:
        assert torch.equal(scene.occluded, official.occluded)
    calibrations = scene.info[0].calibration, official.info[0].calibration
    if calibrations[0] is not None and calibrations[1] is not None:
        for name in ("focal", "baseline", "doffs"):
            first, second = (getattr(calibration, name) for calibration in calibrations)
            assert first == pytest.approx(second, rel=1e-4, abs=1e-6), name


def test_kitti2012_tells_occluded_pixels_from_its_two_truths(shared_data: Path, tmp_path: Path) -> None:
    _, _, files = LAYOUTS["kitti2012_000070"]
    for name, place in files.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).symlink_to(shared_data / "real/kitti2012_000070" / name)
    sample = StereoDataset(list_pairs("kitti2012", root=tmp_path))[0]
    assert sample.occluded is not None
    share = float(sample.occluded.sum() / sample.valid.sum())
    assert 0.005 < share < 0.2
    assert sample.info[0].calibration is not None
    assert sample.info[0].calibration.baseline == pytest.approx(0.5323, abs=1e-3)
