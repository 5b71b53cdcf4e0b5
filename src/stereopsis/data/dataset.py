"""Pairs on disk as samples: the only class that opens pixels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.data import Dataset

from stereopsis.data.calibrations import read_pair_calibration
from stereopsis.data.decoding import Truth, read_raw_view, read_truth
from stereopsis.data.files import CalibrationFile, MapFile, MaskFile, PairFiles
from stereopsis.data.rectification import read_scared
from stereopsis.io.images import read_image, read_stored
from stereopsis.structures import Calibration, SceneInfo, StereoPair, StereoSample


@dataclass(frozen=True)
class Annotations:
    """What a data set marks beside disparity: named regions, and objects by number (0 is background)."""

    regions: Mapping[str, Bool[Tensor, "h w"]] = field(default_factory=dict)
    instances: Float[Tensor, "h w"] | None = None


class StereoDataset(Dataset[StereoSample]):
    """Samples of the pairs listed, opened one at a time; nothing is kept.

    A pair without truth gives a sample with `valid` False everywhere. Opening raises ValueError or
    OSError with one sentence that names the file. Pairs that are not rectified (SCARED's keyframes) are
    rectified on reading, truth included.
    """

    def __init__(self, files: Sequence[PairFiles]) -> None:
        self.files = list(files)

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[StereoSample]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> StereoSample:
        files = self.files[index]
        pair, truth, truth_right, calibration = _opened(files)
        disparity, valid = _fitting(truth, pair.size, files.disparity, files)
        occluded = _occlusion(files, calibration, valid)
        for mask in files.unknown:
            valid &= ~_read_mask(mask, pair.size)
        right = None
        if truth_right is not None:
            other, known = _fitting(truth_right, pair.size, files.disparity_right, files)
            right = torch.from_numpy(np.where(known, other, np.float32(np.inf)))
        return StereoSample(
            pair,
            torch.from_numpy(np.where(valid, disparity, np.float32(0))),
            torch.from_numpy(valid),
            occluded=None if occluded is None else torch.from_numpy(occluded & valid),
            disparity_right=right,
            weight=_weight(files, pair.size),
            info=(SceneInfo(files.name, files.dataset, calibration),),
        )

    def annotations(self, index: int, *, size: tuple[int, int] | None = None) -> Annotations:
        """Regions and instances of a pair, read apart since few protocols need them.

        size: (height, width) of the sample; where it is not known the left view is read for it.
        """
        files = self.files[index]
        if size is None:
            shape = _read_view(files.left).shape
            size = shape[0], shape[1]
        regions = {region.name: torch.from_numpy(_read_mask(region.mask, size)) for region in files.regions}
        if files.instances is None:
            return Annotations(regions)
        stored = _stored_mask(files.instances, size)
        return Annotations(regions, torch.from_numpy(stored.astype(np.float32)))


def _opened(
    files: PairFiles,
) -> tuple[StereoPair, Truth | None, Truth | None, Calibration | None]:
    """The rectified pair, both truths and the calibration."""
    given = files.calibration
    if isinstance(given, CalibrationFile) and given.form == "scared":
        found = read_scared(files, given.path)
        return found.pair, found.truth, found.truth_right, found.calibration
    calibration = read_pair_calibration(files)
    views = _read_view(files.left), _read_view(files.right)
    truth, truth_right = (
        None if file is None else read_truth(file, calibration)
        for file in (files.disparity, files.disparity_right)
    )
    if files.centre_crop:
        views, truth, truth_right = _centre_cropped(views, truth, truth_right)
    return _pair(views, files), truth, truth_right, calibration


def _read_view(path: Path) -> np.ndarray:
    return read_raw_view(path) if path.suffix == ".raw" else read_image(path)


def _pair(views: tuple[np.ndarray, np.ndarray], files: PairFiles) -> StereoPair:
    try:
        return StereoPair.from_arrays(*views)
    except ValueError as error:
        raise ValueError(f"{files.left} and {files.right}: {error}") from error


def _fitting(truth: Truth | None, size: tuple[int, int], file: MapFile | None, files: PairFiles) -> Truth:
    """The truth where it has the images' size (nothing known where there is none)."""
    if truth is None or file is None:
        return np.zeros(size, np.float32), np.zeros(size, bool)
    if truth[0].shape != size:
        raise ValueError(
            f"{file.path} is {truth[0].shape[1]}x{truth[0].shape[0]}, {files.left.name} is "
            f"{size[1]}x{size[0]}: truth and images must have the same size"
        )
    return truth


def _occlusion(files: PairFiles, calibration: Calibration | None, valid: np.ndarray) -> np.ndarray | None:
    if files.occluded:
        size = valid.shape[0], valid.shape[1]
        return np.any([_read_mask(mask, size) for mask in files.occluded], axis=0)
    if files.nonoccluded is not None:
        visible = read_truth(files.nonoccluded, calibration)
        return valid & ~_fitting(visible, (valid.shape[0], valid.shape[1]), files.nonoccluded, files)[1]
    return None


def _weight(files: PairFiles, size: tuple[int, int]) -> Tensor | None:
    if files.weight is None:
        return None
    return torch.from_numpy(_fitting(read_truth(files.weight, None), size, files.weight, files)[0])


def _read_mask(mask: MaskFile, size: tuple[int, int]) -> np.ndarray:
    chosen = np.isin(_stored_mask(mask.path, size), mask.values)
    return ~chosen if mask.inverted else chosen


def _stored_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    stored = _single_channel(read_stored(path), path)
    if stored.shape != size:
        raise ValueError(
            f"{path} is {stored.shape[1]}x{stored.shape[0]}, its image is {size[1]}x{size[0]}: "
            "masks and images must have the same size"
        )
    return stored


def _single_channel(stored: np.ndarray, path: Path) -> np.ndarray:
    if stored.ndim == 3:
        first = stored[..., 0]
        if not all(np.array_equal(first, stored[..., c]) for c in range(1, min(3, stored.shape[2]))):
            raise ValueError(f"{path} is coloured: a mask of one channel was expected")
        return first
    return stored


def _centre_cropped(
    views: tuple[np.ndarray, np.ndarray], truth: Truth | None, right: Truth | None
) -> tuple[tuple[np.ndarray, np.ndarray], Truth | None, Truth | None]:
    """Everything cut about its centre to the smallest height and width among them."""
    arrays = [*views, *(known[0] for known in (truth, right) if known is not None)]
    height, width = (min(array.shape[axis] for array in arrays) for axis in (0, 1))

    def crop(array: np.ndarray) -> np.ndarray:
        top, left = (array.shape[0] - height) // 2, (array.shape[1] - width) // 2
        return array[top : top + height, left : left + width]

    def crop_truth(known: Truth | None) -> Truth | None:
        return None if known is None else (crop(known[0]), crop(known[1]))

    return (crop(views[0]), crop(views[1])), crop_truth(truth), crop_truth(right)
