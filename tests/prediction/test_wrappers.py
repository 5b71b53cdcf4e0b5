"""Mirrored, Rescaled and Tiled around a predictor that reads the truth out of the images."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
import torch

from records import records_equal
from stereopsis.prediction.mirrored import Mirrored
from stereopsis.prediction.rescaled import Rescaled, enlarged
from stereopsis.prediction.shifted import Shifted
from stereopsis.prediction.tiled import Tiled
from stereopsis.structures import StereoOutput, StereoPair


def marked_pair(disparity: torch.Tensor) -> StereoPair:
    """Red tells each pixel's true disparity (of 512), green its column (of 4096), blue its row."""
    height, width = disparity.shape
    column = (torch.arange(width) / 4096).expand(height, width)
    row = (torch.arange(height) / 4096)[:, None].expand(height, width)
    image = torch.stack([disparity / 512, column, row])
    return StereoPair(image, image.clone())


@dataclass
class Oracle:
    """Finds a match exactly where it lies in the right image given, from disparity `lowest` on, else -99.

    Remembers the sizes it saw; adds `bias` times the number of calls before, to make seams visible.
    """

    lowest: float = 0.0
    bias: float = 0.0
    confidence: float = 0.9
    seen: list[tuple[int, int]] = field(default_factory=list)
    faults: int = 0

    def __call__(self, pair: StereoPair) -> StereoOutput:
        height, width = pair.size
        scale = float(pair.left[1, 0, 1] - pair.left[1, 0, 0]) * 4096 if width > 1 else 1.0
        position = torch.arange(width)
        right = pair.right[1] * 4096
        wanted = pair.left[1] * 4096 - pair.left[0] * 512
        matched = torch.searchsorted(right.contiguous(), wanted.contiguous()).clamp(1, width - 1)
        before = right.gather(-1, matched - 1)
        step = (right.gather(-1, matched) - before).clamp(min=1e-6)
        found = position - (matched - 1 + (wanted - before) / step)
        outside = (wanted < right[:, :1] - 1e-3) | (wanted > right[:, -1:] + 1e-3)
        visible = wanted >= 0
        wrong = (outside & visible) | (found < self.lowest - 1e-2)
        truth = pair.left[0] * 512 / scale
        self.seen.append((height, width))
        disparity = torch.where(outside & ~visible, truth - self._offset(pair), found)
        disparity = torch.where(wrong, -99.0, disparity) + self.bias * len(self.seen)
        return StereoOutput(disparity, torch.full_like(disparity, self.confidence))

    @staticmethod
    def _offset(pair: StereoPair) -> torch.Tensor:
        """How far left the right window was cut (at its last column, which no border repeats)."""
        return (pair.left[1, 0, -1] - pair.right[1, 0, -1]) * 4096


def scene(height: int = 400, width: int = 1200) -> torch.Tensor:
    """A slanted wall from 20 to 60 pixels with a box of 180 pixels in front of it."""
    disparity = torch.linspace(20, 60, width).expand(height, width).clone()
    disparity[150:300, 500:640] = 180.0
    return disparity


def test_mirrored_gives_the_right_view_of_any_predictor() -> None:
    def shift_of_red(pair: StereoPair) -> StereoOutput:
        return StereoOutput(pair.left[0] * 10)

    generator = torch.Generator().manual_seed(0)
    left, right = torch.rand(2, 3, 4, 8, generator=generator)
    output = Mirrored(shift_of_red)(StereoPair(left, right))
    assert torch.equal(output.disparity, left[0] * 10)
    assert output.right_disparity is not None
    assert torch.equal(output.right_disparity, right[0] * 10)
    assert output.occluded is not None
    assert output.confidence is not None
    assert (output.confidence[output.occluded] <= 0.5).all()


def test_mirrored_keeps_a_right_view_and_a_confidence_that_are_there() -> None:
    disparity, own = torch.full((3, 9), 2.0), torch.full((3, 9), 0.3)
    output = Mirrored(lambda _: StereoOutput(disparity, own, disparity + 5))(
        StereoPair(torch.rand(3, 3, 9), torch.rand(3, 3, 9))
    )
    assert output.right_disparity is not None
    assert torch.equal(output.right_disparity, disparity + 5)
    assert output.confidence is own
    assert output.occluded is not None
    assert output.occluded.all()


@pytest.mark.parametrize("scale", [0.25, 0.5, 1.5])
def test_rescaled_gives_the_pairs_pixels(scale: float) -> None:
    disparity = torch.linspace(10, 30, 120).expand(48, 120)
    output = Rescaled(Oracle(), scale)(marked_pair(disparity))
    assert output.disparity.shape == (48, 120)
    torch.testing.assert_close(output.disparity[:, 24:-8], disparity[:, 24:-8], atol=0.05, rtol=0)


def test_rescaled_does_not_mix_unknown_with_known() -> None:
    def half_known(pair: StereoPair) -> StereoOutput:
        disparity = torch.full(pair.size, 7.0)
        disparity[:, : pair.size[1] // 2] = math.inf
        mask = disparity.isinf()
        return StereoOutput(disparity, (~mask).float(), disparity, mask)

    output = Rescaled(half_known, 0.5)(StereoPair(torch.rand(2, 3, 8, 16), torch.rand(2, 3, 8, 16)))
    assert set(output.disparity.unique().tolist()) == {14.0, math.inf}
    assert output.right_disparity is not None
    assert output.occluded is not None
    assert output.occluded.float().mean() == 0.5


def test_rescaled_to_the_same_size_changes_nothing() -> None:
    pair = marked_pair(scene(40, 60) / 10)
    assert records_equal(Rescaled(Oracle(), 1.0)(pair), Oracle()(pair))
    with pytest.raises(ValueError, match="must lie between"):
        Rescaled(Oracle(), 0.0)


def test_tiled_is_exact_where_every_window_is() -> None:
    """The oracle fails wherever a window lacks the match or asks for a negative disparity."""
    oracle = Oracle()
    tiled = Tiled(oracle, pixels=150_000, overlap=32)
    output = tiled(marked_pair(scene()))
    torch.testing.assert_close(output.disparity, scene(), atol=0.02, rtol=0)
    assert output.confidence is not None
    torch.testing.assert_close(output.confidence, torch.full((400, 1200), 0.9))
    assert len(oracle.seen) > 4
    assert max(height * width for height, width in oracle.seen) <= 150_000


def test_each_window_is_shifted_by_nearly_its_smallest_disparity() -> None:
    disparity = torch.full((300, 1600), 300.0)
    disparity[:, 800:] = 200.0
    windows = Tiled(Oracle(), pixels=200_000, overlap=32).windows(marked_pair(disparity))
    offsets = {window.core_columns[0]: window.offset for window in windows}
    assert min(offsets.values()) >= 180
    assert offsets[0] >= 280
    assert max(offsets.values()) <= 300


def test_windows_blend_without_seams() -> None:
    """Windows that disagree by a pixel are joined by slopes over twice the overlap, never by a step."""
    disparity = torch.full((300, 900), 10.0)
    output = Tiled(Oracle(bias=1.0), pixels=80_000, overlap=40)(marked_pair(disparity))
    across = output.disparity[:, 20:].diff(dim=1).abs().max()
    down = output.disparity.diff(dim=0).abs().max()
    windows = len(Tiled(Oracle(), pixels=80_000, overlap=40).windows(marked_pair(disparity)))
    assert windows > 4
    assert float(across) <= windows / 80 + 1e-4
    assert float(down) <= windows / 80 + 1e-4
    assert float(output.disparity.max() - output.disparity.min()) > 1


@pytest.mark.parametrize("offset", [15, -12])
def test_shifted_finds_disparities_from_its_offset_on(offset: int) -> None:
    disparity = torch.linspace(offset, offset + 30, 120).expand(20, 120)
    inside = slice(30, 100)
    plain = Oracle()(marked_pair(disparity)).disparity[:, inside]
    assert offset > 0 or (plain == -99).any()
    output = Shifted(Oracle(), offset)(marked_pair(disparity))
    torch.testing.assert_close(output.disparity[:, inside], disparity[:, inside], atol=0.02, rtol=0)


def test_windows_that_contradict_each_other_are_not_averaged() -> None:
    """Where windows differ by 50 pixels, every pixel has the disparity of one of them."""

    def coarse(pair: StereoPair) -> StereoOutput:
        return StereoOutput(torch.full(pair.size, 60.0 * pair.size[1] / 900))

    disparity = torch.full((300, 900), 60.0)
    tiled = Tiled(Oracle(bias=50.0), pixels=80_000, overlap=40, coarse=coarse)
    output = tiled(marked_pair(disparity))
    steps = (output.disparity[:, 80:] - 60) / 50
    torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
    assert len(steps.round().unique()) > 3


def test_a_pair_that_fits_goes_through_whole_and_batches_are_taken() -> None:
    oracle = Oracle()
    pair = marked_pair(scene(64, 200) / 4)
    assert torch.equal(Tiled(oracle, pixels=70_000)(pair).disparity, Oracle()(pair).disparity)
    assert oracle.seen == [(64, 200)]
    large = marked_pair(scene())
    batch = StereoPair(large.left[None].repeat(2, 1, 1, 1), large.right[None].repeat(2, 1, 1, 1))
    output = Tiled(Oracle(), pixels=150_000, overlap=32)(batch)
    assert output.disparity.shape == (2, 400, 1200)
    torch.testing.assert_close(output.disparity[1], scene(), atol=0.02, rtol=0)


def test_unknown_disparity_stays_out_of_the_blend() -> None:
    def none_known_at_the_top(pair: StereoPair) -> StereoOutput:
        output = Oracle()(pair)
        unknown = pair.left[2] * 4096 < 100
        assert output.confidence is not None
        return StereoOutput(
            output.disparity.masked_fill(unknown, math.inf), output.confidence.masked_fill(unknown, 0.0)
        )

    output = Tiled(none_known_at_the_top, pixels=150_000, overlap=32)(marked_pair(scene()))
    assert output.disparity[:100].isinf().all()
    assert output.confidence is not None
    assert (output.confidence[:100] == 0).all()
    torch.testing.assert_close(output.disparity[101:], scene()[101:], atol=0.02, rtol=0)


def test_limits_that_no_window_can_keep_are_said() -> None:
    with pytest.raises(ValueError, match="at least 65536 pixels"):
        Tiled(Oracle(), pixels=100)
    wide = torch.linspace(0, 500, 2000).expand(900, 2000)
    with pytest.raises(ValueError, match="too small for this pair"):
        Tiled(Oracle(), pixels=66_000, overlap=200)(marked_pair(wide))


@pytest.mark.parametrize(
    ("size", "expected"),
    [((10, 40), (20, 80)), ((15, 60), (20, 80)), ((20, 80), (20, 80)), ((4, 16), (8, 32))],
)
def test_small_pairs_are_enlarged_at_most_twice(size: tuple[int, int], expected: tuple[int, int]) -> None:
    seen: list[tuple[int, int]] = []

    def constant(pair: StereoPair) -> StereoOutput:
        seen.append(pair.size)
        return StereoOutput(torch.full(pair.size, 4.0), torch.ones(pair.size))

    output = enlarged(constant, StereoPair(torch.rand(3, *size), torch.rand(3, *size)), 1600)
    assert seen == [expected]
    torch.testing.assert_close(output.disparity, torch.full(size, 4.0 * size[1] / expected[1]))
