"""The same (seed, index, size) is the same pair, in any number of workers."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

from stereopsis.structures import StereoSample
from stereopsis.synthesis import DISTRIBUTIONS, SyntheticStream

SIZE = (48, 64)


def test_a_pair_is_a_function_of_seed_and_index():
    stream = SyntheticStream(3, "sanity", size=SIZE)
    first, again = stream[5], SyntheticStream(3, "sanity", size=SIZE)[5]
    assert torch.equal(first.pair.left, again.pair.left)
    assert torch.equal(first.disparity, again.disparity)
    assert first.info[0].name == "sanity-3-000005"
    assert not torch.equal(first.disparity, stream[6].disparity)
    assert not torch.equal(first.disparity, SyntheticStream(4, "sanity", size=SIZE)[5].disparity)


@pytest.fixture(scope="module")
def alone():
    """Four general pairs rendered in this process."""
    stream = SyntheticStream(7, "general", size=SIZE, length=4)
    return stream, [stream[index] for index in range(4)]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [1, 4])
def test_workers_do_not_change_a_byte(workers, alone):
    stream, expected = alone
    loader = DataLoader(stream, batch_size=1, num_workers=workers, collate_fn=StereoSample.stack)
    batches = list(loader)
    assert len(batches) == 4
    for batch, sample in zip(batches, expected, strict=True):
        assert torch.equal(batch.pair.left[0], sample.pair.left)
        assert torch.equal(batch.pair.right[0], sample.pair.right)
        assert torch.equal(batch.disparity[0], sample.disparity)


def test_a_sharded_stream_deals_every_index_once():
    stream = SyntheticStream(1, "sanity", size=SIZE, length=7)
    loader = DataLoader(stream.sharded(start=2), batch_size=None, num_workers=2)
    names = sorted(sample.info[0].name for sample in loader)
    assert names == [f"sanity-1-{index:06d}" for index in range(2, 7)]


@pytest.mark.parametrize("kind", sorted(DISTRIBUTIONS))
def test_every_distribution_gives_pairs_with_their_calibration(kind):
    sample = SyntheticStream(0, kind, size=SIZE)[0]
    assert sample.pair.size == SIZE
    assert sample.pair.left.min() >= 0
    assert sample.pair.left.max() <= 1
    calibration = sample.info[0].calibration
    assert calibration is not None
    assert calibration.size == SIZE
    assert sample.valid.float().mean() > 0.5


def test_truth_may_be_finer_than_the_images():
    stream = SyntheticStream(2, "sanity", size=SIZE, truth_size=(192, 256))
    rendering = stream.rendering(0)
    assert rendering.left.disparity.shape == (192, 256)
    assert rendering.sample.disparity.shape == SIZE
    # A coarse pixel's centre lies between four fine ones: on planes their mean is its disparity.
    pooled = torch.nn.functional.avg_pool2d(rendering.left.disparity[None], 4)[0] / 4
    gap = (pooled - rendering.sample.disparity).abs()
    assert gap.median() < 1e-4


def test_an_unknown_distribution_is_named_with_those_there_are():
    with pytest.raises(ValueError, match="general"):
        SyntheticStream(0, "marsian")


def test_truth_of_another_shape_and_pairs_beyond_the_end_are_refused():
    with pytest.raises(ValueError, match="64x64 has another shape"):
        SyntheticStream(0, "sanity", size=SIZE, truth_size=(64, 64))
    with pytest.raises(IndexError):
        SyntheticStream(0, "sanity", size=SIZE, length=3)[3]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
def test_devices_agree_on_the_truth():
    for index in range(5):
        ours, theirs = (
            SyntheticStream(5, "general", size=(240, 320), device=device).rendering(index)
            for device in ("cpu", "cuda")
        )
        close = (ours.left.disparity - theirs.left.disparity.cpu()).abs() < 1e-2
        assert close.float().mean() > 0.999
        gap = (ours.sample.pair.left - theirs.sample.pair.left.cpu()).abs()
        assert gap.mean() < 2 / 255
