"""Every data set on a tiny fake in its official layout: pixels, truth, masks and geometry by value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fakes.datasets import WRITERS, Expected
from stereopsis.data.dataset import StereoDataset
from stereopsis.data.sources.registry import dataset_entry, list_datasets, list_pairs, locate
from stereopsis.structures import StereoSample


def _check_maps(sample: StereoSample, expected: Expected) -> None:
    tolerance = expected.step / 2 + 1e-4
    assert torch.equal(sample.valid, torch.from_numpy(expected.known))
    truth = np.where(expected.known, expected.disparity, 0)
    assert np.abs(sample.disparity.numpy() - truth).max() <= tolerance
    if expected.disparity_right is None:
        assert sample.disparity_right is None
    else:
        assert sample.disparity_right is not None
        right = sample.disparity_right.numpy()
        known = np.ones(right.shape, bool) if expected.known_right is None else expected.known_right
        assert np.array_equal(np.isfinite(right), known)
        assert np.abs(right - expected.disparity_right)[known].max() <= tolerance
    if expected.occluded is None:
        assert sample.occluded is None
    else:
        assert sample.occluded is not None
        assert torch.equal(sample.occluded, torch.from_numpy(expected.occluded & expected.known))


def _check_geometry(sample: StereoSample, expected: Expected) -> None:
    calibration = sample.info[0].calibration
    if expected.focal is None:
        assert calibration is None
        return
    assert calibration is not None
    found = calibration.focal, calibration.baseline, calibration.doffs
    assert found == pytest.approx((expected.focal, expected.baseline, expected.doffs), rel=1e-6)


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_data_set_opens_as_it_was_written(name: str, tmp_path: Path) -> None:
    for expected in WRITERS[name](tmp_path):
        pairs = list_pairs(name, expected.split, root=tmp_path)
        assert [files.name for files in pairs] == [expected.name], expected.split
        dataset = StereoDataset(pairs)
        sample = dataset[0]
        for view, image in ((sample.pair.left, expected.left), (sample.pair.right, expected.right)):
            assert torch.equal(view, torch.from_numpy(image.copy()).movedim(-1, 0).float() / 255)
        _check_maps(sample, expected)
        _check_geometry(sample, expected)
        regions = dataset.annotations(0).regions
        assert regions.keys() == expected.regions.keys()
        for region, mask in expected.regions.items():
            assert torch.equal(regions[region], torch.from_numpy(mask)), region


def test_every_data_set_has_a_whole_card_and_refuses_unknown_splits(tmp_path: Path) -> None:
    for name in list_datasets():
        card = dataset_entry(name).card
        assert all((card.title, card.splits, card.pairs, card.image, card.disk, card.licence, card.link)), (
            name
        )
        with pytest.raises((ValueError, FileNotFoundError)):
            dataset_entry(name).list_pairs(tmp_path, "no-such-split")


def test_kitti2015_gives_its_objects_for_edges(tmp_path: Path) -> None:
    WRITERS["kitti2015"](tmp_path)
    instances = StereoDataset(list_pairs("kitti2015", "train", root=tmp_path)).annotations(0).instances
    assert instances is not None
    assert set(instances.unique().tolist()) == {0.0, 1.0, 2.0}


def test_test_splits_without_truth_have_no_valid_pixel(tmp_path: Path) -> None:
    WRITERS["kitti2015"](tmp_path)
    (tmp_path / "training").rename(tmp_path / "testing")
    for folder in ("disp_occ_0", "disp_noc_0", "disp_occ_1", "obj_map"):
        for path in (tmp_path / "testing" / folder).iterdir():
            path.unlink()
    sample = StereoDataset(list_pairs("kitti2015", "test", root=tmp_path))[0]
    assert not bool(sample.valid.any())


def test_folder_is_found_below_the_variable_and_missing_ones_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEREOPSIS_DATA", str(tmp_path))
    (tmp_path / "real").mkdir()
    assert locate("open") == tmp_path / "real"
    with pytest.raises(FileNotFoundError, match="kitti2015"):
        locate("kitti2015")
    monkeypatch.delenv("STEREOPSIS_DATA")
    with pytest.raises(ValueError, match="--root"):
        locate("open")
    with pytest.raises(ValueError, match="kitti2015"):
        locate("kiti2015")


def test_an_empty_folder_says_which_splits_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train, test"):
        list_pairs("eth3d", "train", root=tmp_path)
