"""The check of a data set finds each kind of wrong truth, and none where it is right."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from stereopsis.evaluation.check import AS_GIVEN, check_sample, contact_sheet, verdict
from stereopsis.structures import SceneInfo, StereoPair, StereoSample


def _sample(seed: int) -> StereoSample:
    """A textured plane at 8 px before a wall at 4 px: random patches, exact truth of both views."""
    generator = torch.Generator().manual_seed(seed)
    height, width = 40, 160
    texture = torch.rand(3, height, width + 40, generator=generator)
    near = torch.rand(3, height, width + 40, generator=generator)
    left, right = texture[..., 20 : 20 + width].clone(), texture[..., 24 : 24 + width].clone()
    truth, other = torch.full((height, width), 4.0), torch.full((height, width), 4.0)
    left[..., 60:110], right[..., 52:102] = near[..., 60:110], near[..., 60:110]
    truth[:, 60:110], other[:, 52:102] = 8.0, 8.0
    return StereoSample(
        StereoPair(left, right),
        truth,
        torch.ones(height, width, dtype=torch.bool),
        disparity_right=other,
        info=(SceneInfo(f"plane {seed}"),),
    )


def _samples() -> list[StereoSample]:
    return [_sample(seed) for seed in range(3)]


def test_true_truth_has_no_fault() -> None:
    checks = [check_sample(sample) for sample in _samples()]
    assert verdict(checks).faults == ()
    assert checks[0].differences[AS_GIVEN] < 0.2 * checks[0].differences["no disparity"]
    assert (checks[0].smallest, checks[0].largest, checks[0].density) == (4.0, 8.0, 1.0)


def _exchanged(sample: StereoSample) -> StereoSample:
    return dataclasses.replace(
        sample, pair=StereoPair(sample.pair.right, sample.pair.left), disparity_right=None
    )


def _scaled(sample: StereoSample, scale: float) -> StereoSample:
    return dataclasses.replace(sample, disparity=sample.disparity * scale, disparity_right=None)


def _mirrored(sample: StereoSample) -> StereoSample:
    flipped = sample.map(lambda tensor: tensor.flip(-1))
    return dataclasses.replace(flipped, disparity_right=None)


@pytest.mark.parametrize(
    ("change", "best"),
    [
        (lambda s: _scaled(s, 4.0), "the truth divided by 4"),
        (lambda s: _scaled(s, 0.5), "the truth times 2"),
        (_exchanged, "the images exchanged"),
        (_mirrored, "the other sign"),
        (
            lambda s: dataclasses.replace(s, disparity=s.disparity_right, disparity_right=None),
            "the truth on the right view",
        ),
        (
            lambda s: dataclasses.replace(s, disparity=s.disparity - 2, disparity_right=None),
            "+2 px added to the truth",
        ),
    ],
)
def test_wrong_truth_is_told_apart(change, best: str) -> None:
    found = verdict([check_sample(change(sample)) for sample in _samples()])
    assert found.best == best
    assert best in found.faults[0]


def test_unrelated_truth_is_hardly_better_than_none() -> None:
    def shuffled(sample: StereoSample) -> StereoSample:
        generator = torch.Generator().manual_seed(9)
        random = torch.randint(0, 30, sample.disparity.shape, generator=generator).float()
        return dataclasses.replace(sample, disparity=random, disparity_right=None)

    (fault,) = verdict([check_sample(shuffled(sample)) for sample in _samples()]).faults
    assert "hardly better than no disparity" in fault


def test_right_truth_given_on_the_left_view_is_found() -> None:
    samples = [dataclasses.replace(sample, disparity_right=sample.disparity) for sample in _samples()]
    assert verdict([check_sample(sample) for sample in samples]).faults == ()
    mirrored = [
        dataclasses.replace(
            sample, pair=sample.pair.map(lambda view: view.flip(-1)), disparity_right=sample.disparity
        )
        for sample in _samples()
    ]
    faults = verdict([check_sample(sample) for sample in mirrored]).faults
    assert any("right view's truth" in fault for fault in faults)


def test_sample_without_truth_is_refused() -> None:
    sample = dataclasses.replace(_sample(0), valid=torch.zeros(40, 160, dtype=torch.bool))
    with pytest.raises(ValueError, match="no truth"):
        check_sample(sample)


def test_contact_sheet_shows_every_sample() -> None:
    sheet = contact_sheet(_samples(), width=80)
    assert sheet.shape == (3 * (22 + 20), 4 * 80 + 3 * 4, 3)
    assert sheet.std() > 10
