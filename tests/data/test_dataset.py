"""Opening pairs: what unusual files become, and what wrong ones say."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fakes.datasets import kitti2015, scenes
from fakes.tiny import tiny, write_hdf5, write_image, write_npy, write_text
from stereopsis.data.augment import mirror
from stereopsis.data.dataset import StereoDataset
from stereopsis.data.decoding import read_raw_view, read_truth
from stereopsis.data.files import MapFile, MaskFile, PairFiles
from stereopsis.data.sources.registry import list_pairs


def _pair(root: Path) -> PairFiles:
    scenes(root)
    return list_pairs("scenes", root=root)[0]


def test_open_scenes_have_the_recorded_truth(shared_data: Path) -> None:
    dataset = StereoDataset(list_pairs("open", "truth", root=shared_data / "real"))
    found = {sample.info[0].name: sample for sample in dataset}
    assert len(found) == 12
    venus = found["middlebury2001_venus"]
    assert venus.pair.size == (383, 434)
    assert int(venus.valid.sum()) == 166222
    kitti = found["kitti2012_000070"]
    assert kitti.disparity.max().item() == pytest.approx(147.02, abs=0.01)
    assert kitti.info[0].calibration is not None
    assert kitti.info[0].calibration.focal == pytest.approx(718.856)
    assert len(list_pairs("open", "all", root=shared_data / "real")) == 15


def test_corrupt_image_is_named(tmp_path: Path) -> None:
    files = _pair(tmp_path)
    files.right.write_bytes(files.right.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"right\.png"):
        StereoDataset([files])[0]


def test_truth_of_another_size_is_named(tmp_path: Path) -> None:
    files = _pair(tmp_path)
    write_npy(tmp_path / "small.npy", np.ones((3, 4), np.float32))
    with pytest.raises(ValueError, match=r"small\.npy is 4x3, left\.png is 16x12"):
        StereoDataset([replace(files, disparity=MapFile(tmp_path / "small.npy", "npy"))])[0]


def test_unknown_masks_take_pixels_out(tmp_path: Path) -> None:
    files = _pair(tmp_path)
    mask = np.zeros((12, 16), np.uint8)
    mask[:, :5] = 255
    write_image(tmp_path / "bad.png", mask)
    sample = StereoDataset([replace(files, unknown=(MaskFile(tmp_path / "bad.png"),))])[0]
    assert not bool(sample.valid[:, :5].any())
    assert bool(sample.valid[:, 5:].any())
    assert float(sample.disparity[:, :5].abs().max()) == 0


def test_what_is_unknown_on_the_right_is_unknown_in_the_mirror(tmp_path: Path) -> None:
    (expected,) = kitti2015(tmp_path)[:1]
    (files,) = list_pairs("kitti2015", expected.split, root=tmp_path)
    mirrored = mirror(StereoDataset([files])[0])
    assert expected.known_right is not None
    assert torch.equal(mirrored.valid, torch.from_numpy(expected.known_right[:, ::-1].copy()))


def test_pairs_that_share_their_centre_are_cropped(tmp_path: Path) -> None:
    pytest.importorskip("OpenEXR")
    from stereopsis.io.exr import write_exr

    scene = tiny(0, dense=True, size=(14, 18))
    write_image(tmp_path / "a/b/007L.png", scene.left)
    write_image(tmp_path / "a/b/007R.png", scene.right[1:13, 1:17])
    maps = tmp_path / "a/processed/rectified/disp_info_LR"
    maps.mkdir(parents=True)
    for side, values in (("L", scene.disparity), ("R", scene.disparity_right)):
        write_exr(maps / f"007{side}.exr", {"Y": values.astype(np.float32)})
    (files,) = list_pairs("keystonedepth", root=tmp_path)
    sample = StereoDataset([files])[0]
    assert sample.pair.size == (12, 16)
    assert torch.equal(sample.disparity, torch.from_numpy(scene.disparity[1:13, 1:17].astype(np.float32)))
    assert torch.equal(
        sample.pair.right[0] * 255, torch.from_numpy(scene.right[1:13, 1:17, 0].copy()).float()
    )


def test_raw_views_are_blue_first_or_gray(tmp_path: Path) -> None:
    image = tiny(0).left
    (tmp_path / "a.raw").write_bytes(image[..., ::-1].tobytes())
    assert np.array_equal(read_raw_view(tmp_path / "a.raw", size=(12, 16)), image)
    (tmp_path / "b.raw").write_bytes(image[..., 0].tobytes())
    assert np.array_equal(read_raw_view(tmp_path / "b.raw", size=(12, 16)), image[..., 0])
    with pytest.raises(ValueError, match="truncated"):
        read_raw_view(tmp_path / "b.raw", size=(12, 17))


def test_a_damaged_dsp5_is_named(tmp_path: Path) -> None:
    write_text(tmp_path / "d.dsp5", "no HDF5")
    with pytest.raises(ValueError, match=r"d\.dsp5"):
        read_truth(MapFile(tmp_path / "d.dsp5", "dsp5"), None)
    write_hdf5(tmp_path / "e.dsp5", flow=np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"e\.dsp5 holds no disparity"):
        read_truth(MapFile(tmp_path / "e.dsp5", "dsp5"), None)


def test_spring_without_h5py_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "d.dsp5", "stands for HDF5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ValueError, match=r"stereopsis\[hdf5\]"):
        read_truth(MapFile(tmp_path / "d.dsp5", "dsp5"), None)


def test_depth_without_calibration_is_refused(tmp_path: Path) -> None:
    write_npy(tmp_path / "d.npy", np.ones((2, 2), np.float32))
    with pytest.raises(ValueError, match="calibration"):
        read_truth(MapFile(tmp_path / "d.npy", "depth-npy"), None)


def test_coloured_mask_is_refused(tmp_path: Path) -> None:
    files = _pair(tmp_path)
    assert cv2.imwrite(str(tmp_path / "m.png"), tiny(3).left)
    with pytest.raises(ValueError, match="one channel"):
        StereoDataset([replace(files, unknown=(MaskFile(tmp_path / "m.png"),))])[0]


def test_mask_of_another_size_is_named(tmp_path: Path) -> None:
    (expected,) = kitti2015(tmp_path)
    (files,) = list_pairs("kitti2015", expected.split, root=tmp_path)
    assert files.instances is not None
    write_image(files.instances, np.ones((3, 4), np.uint8))
    with pytest.raises(ValueError, match=r"000007_10\.png is 4x3, its image is 16x12"):
        StereoDataset([files]).annotations(0)
