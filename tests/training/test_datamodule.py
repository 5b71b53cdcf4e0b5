"""What a training reads of its sources: no more than its losses and its augmentation use."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from stereopsis.io.disparity import write_disparity
from stereopsis.io.images import write_image
from stereopsis.structures import StereoSample
from stereopsis.training.config import read_settings
from stereopsis.training.datamodule import Data


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """One scene with the truth of both views and a mask of occlusion."""
    folder = tmp_path / "scenes" / "plane"
    folder.mkdir(parents=True)
    texture = np.random.default_rng(0).integers(0, 255, (48, 80, 3), dtype=np.uint8)
    write_image(folder / "left.png", texture[:, :64])
    write_image(folder / "right.png", texture[:, 4:68])
    for side in ("left", "right"):
        write_disparity(folder / f"{side}.npz", np.full((48, 64), 4, np.float32))
    write_image(folder / "occluded.png", np.full((48, 64), 255, np.uint8))
    scene = {
        "left": "left.png",
        "right": "right.png",
        "disparity_left": {"file": "left.npz", "encoding": "npz"},
        "disparity_right": {"file": "right.npz", "encoding": "npz"},
        "occlusion_mask": {"file": "occluded.png", "visible": [255], "occluded": [128], "unknown": [0]},
    }
    (folder / "scene.json").write_text(json.dumps(scene))
    return folder.parent


@pytest.mark.parametrize(
    ("override", "known"),
    [
        ("loss=smooth_l1", False),
        ("loss=adaptive_robust", True),
        ("data.augment.flip=0.5", True),
        ("augment: {flip: 0.5}", True),
    ],
)
def test_the_right_views_truth_is_read_where_something_uses_it(
    scenes: Path, override: str, known: bool
) -> None:
    own, common = ([override], []) if override.startswith("augment") else ([], [override])
    source = f"{{{', '.join(['name: scenes', 'split: truth', f'root: {scenes}', *own])}}}"
    settings = read_settings(
        [*common, f"data.sources=[{source}]", "data.validation=[]", "data.workers=0", "data.crop=[32,48]"]
    )
    if not known:
        (scenes / "plane" / "right.npz").unlink()
    (scenes / "plane" / "occluded.png").unlink()
    data = Data(settings, first_step=0, rank=0, processes=1)
    batch = next(iter(data.train_dataloader()))
    assert batch.disparity_right is not None
    assert bool(torch.isfinite(batch.disparity_right).all()) == known
    assert bool((batch.disparity[batch.valid] == 4).all())
    assert bool(batch.valid.any())


def test_occlusion_is_told_to_the_loss_that_asks_where_every_source_knows_it(scenes: Path) -> None:
    source = f"{{name: scenes, split: truth, root: {scenes}}}"
    untold = f"{{name: scenes, split: truth, root: {scenes.parent / 'untold'}}}"
    shutil.copytree(scenes, scenes.parent / "untold")
    scene = scenes.parent / "untold" / "plane" / "scene.json"
    record = json.loads(scene.read_text())
    del record["occlusion_mask"]
    scene.write_text(json.dumps(record))

    def batch(loss: str, *sources: str) -> StereoSample:
        settings = read_settings(
            [
                f"loss={loss}",
                f"data.sources=[{','.join(sources)}]",
                "data.validation=[]",
                "data.workers=0",
                "data.crop=[32,48]",
            ]
        )
        return next(iter(Data(settings, first_step=0, rank=0, processes=1).train_dataloader()))

    write_image(scenes / "plane" / "occluded.png", np.full((48, 64), 128, np.uint8))
    told = batch("matching", source).occluded
    assert told is not None
    assert bool(told.all())
    assert batch("smooth_l1", source).occluded is None
    assert batch("matching", source, untold).occluded is None


def test_occluded_pixels_can_be_left_out_of_every_loss_in_both_views(scenes: Path) -> None:
    """Eight columns of the left view are hidden; four of the right view have no match."""
    mask = np.full((48, 64), 255, np.uint8)
    mask[:, :8] = 128
    write_image(scenes / "plane" / "occluded.png", mask)

    def batch(occluded: str) -> StereoSample:
        source = f"{{name: scenes, split: truth, root: {scenes}}}"
        overrides = [
            "loss=adaptive_robust",
            f"data.sources=[{source}]",
            "data.validation=[]",
            "data.workers=0",
            "data.crop=null",
            "data.augment={scale: [0, 0], stretch: 0, flip: 0, vertical_flip: 0, vertical_jitter: 0}",
            f"data.occluded={occluded}",
        ]
        return next(
            iter(Data(read_settings(overrides), first_step=0, rank=0, processes=1).train_dataloader())
        )

    kept, left_out = batch("true"), batch("false")
    assert bool(kept.valid.all())
    assert not left_out.valid[..., :8].any()
    assert bool(left_out.valid[..., 8:].all())
    assert left_out.disparity_right is not None
    assert bool(left_out.disparity_right[..., :60].isfinite().all())
    assert not left_out.disparity_right[..., 60:].isfinite().any()


def test_leaving_occluded_pixels_out_is_refused_where_a_source_does_not_tell_them(scenes: Path) -> None:
    scene = scenes / "plane" / "scene.json"
    record = json.loads(scene.read_text())
    del record["occlusion_mask"]
    scene.write_text(json.dumps(record))
    source = f"{{name: scenes, split: truth, root: {scenes}}}"
    settings = read_settings(
        [f"data.sources=[{source}]", "data.validation=[]", "data.workers=0", "data.occluded=false"]
    )
    with pytest.raises(ValueError, match=r"scenes does not say which they are: leave that source out"):
        Data(settings, first_step=0, rank=0, processes=1).train_dataloader()
