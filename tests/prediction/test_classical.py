"""SGBM on a made pair with exact truth, its options, and the recorded figures on the open scenes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fakes.planes import Plane, planes_sample
from records import records_equal
from stereopsis.io.disparity import read_disparity
from stereopsis.prediction.classical import SGBM, Filled, RecordedSGBM, fill_background
from stereopsis.structures import StereoPair, StereoSample


@pytest.fixture(scope="module")
def garden() -> StereoSample:
    return planes_sample()


def shares(disparity: torch.Tensor, truth: np.ndarray, known: np.ndarray) -> dict[str, float]:
    """The figures of a recorded baseline, from its definition."""
    error = np.abs(disparity.numpy() - truth)[known].astype(np.float64)
    outlier = (error > 3) & (error > 0.05 * truth[known])
    bad = {f"bad_{t}": round(float((error > t).mean()), 5) for t in (1, 2, 3)}
    return {"epe": round(float(error.mean()), 4), **bad, "d1": round(float(outlier.mean()), 5)}


def open_scene(folder: Path) -> tuple[StereoPair, np.ndarray, np.ndarray]:
    scene = json.loads((folder / "scene.json").read_text())
    truth, known = read_disparity(
        folder / scene["disparity_left"]["file"], scene["disparity_left"]["encoding"]
    )
    return StereoPair.open(folder / scene["left"], folder / scene["right"]), truth, known


def test_it_matches_a_made_pair_to_a_fraction_of_a_pixel(garden: StereoSample) -> None:
    output = SGBM()(garden.pair)
    assert garden.occluded is not None
    assert output.right_disparity is not None
    assert garden.disparity_right is not None
    error = (output.disparity - garden.disparity).abs()
    assert float(error[~garden.occluded].median()) < 0.15
    assert float((error > 1).float().mean()) < 0.04
    right_error = (output.right_disparity - garden.disparity_right).abs()
    assert float((right_error > 1).float().mean()) < 0.04


def test_occlusion_and_confidence_point_at_what_is_wrong(garden: StereoSample) -> None:
    output = SGBM()(garden.pair)
    assert garden.occluded is not None
    assert output.occluded is not None
    assert output.confidence is not None
    both = (output.occluded & garden.occluded).sum()
    assert float(both / garden.occluded.sum()) > 0.7
    assert float(both / output.occluded.sum()) > 0.7
    assert float(output.confidence.min()) >= 0
    assert float(output.confidence.max()) <= 1
    wrong = (output.disparity - garden.disparity).abs() > 2
    assert float(output.confidence[wrong].mean()) < 0.5 < 0.8 < float(output.confidence[~wrong].mean())


def test_the_first_columns_are_matched() -> None:
    sample = planes_sample((Plane(20.0, seed=5),), size=(64, 160))
    output = SGBM()(sample.pair)
    confident = output.confidence
    assert confident is not None
    assert float((confident[:, 24:60] >= 0.5).float().mean()) > 0.95


@pytest.mark.parametrize("mode", ["3way", "sgbm", "hh"])
def test_each_mode_answers_everywhere(mode: str, garden: StereoSample) -> None:
    output = SGBM(mode=mode)(garden.pair)
    assert output.disparity.isfinite().all()
    assert float(((output.disparity - garden.disparity).abs() > 1).float().mean()) < 0.05


def test_without_filling_unknown_is_infinite_and_not_trusted(garden: StereoSample) -> None:
    output = SGBM(fill=None)(garden.pair)
    unknown = output.disparity.isinf()
    assert output.confidence is not None
    assert 0.02 < float(unknown.float().mean()) < 0.3
    assert (output.confidence[unknown] == 0).all()
    known_error = (output.disparity - garden.disparity).abs()[~unknown]
    assert float((known_error > 1).float().mean()) < 0.01


def test_filling_afterwards_is_filling_at_once(garden: StereoSample) -> None:
    at_once, afterwards = SGBM()(garden.pair), Filled(SGBM(fill=None))(garden.pair)
    assert torch.equal(afterwards.disparity, at_once.disparity)
    assert at_once.confidence is not None
    assert afterwards.confidence is not None
    assert torch.equal(afterwards.confidence, at_once.confidence)
    batch = Filled(SGBM(fill=None))(garden.pair.map(lambda image: image[None]))
    assert torch.equal(batch.disparity[0], at_once.disparity)


def test_left_view_only_gives_no_right_disparity(garden: StereoSample) -> None:
    output = SGBM(left_right=None)(garden.pair)
    assert output.right_disparity is None
    assert float(((output.disparity - garden.disparity).abs() > 1).float().mean()) < 0.12


def test_a_batch_is_its_pairs(garden: StereoSample) -> None:
    other = planes_sample(seed=1).pair
    batch = StereoPair(
        torch.stack([garden.pair.left, other.left])[:, None],
        torch.stack([garden.pair.right, other.right])[:, None],
    )
    output = SGBM()(batch)
    assert output.disparity.shape == (2, 1, 240, 320)
    single = SGBM()(other)
    assert records_equal(output.map(lambda tensor: tensor[1, 0]), single)


def test_negative_disparities_are_found(garden: StereoSample) -> None:
    left, right = garden.pair.left[..., :, :-30], garden.pair.right[..., :, :-30]
    converged = StereoPair(
        left, torch.cat([right[..., :1].expand(3, 240, 30), right], -1)[..., : left.shape[-1]]
    )
    output = SGBM(min_disparity=-32, max_disparity=32)(converged)
    error = (output.disparity - (garden.disparity[:, :-30] - 30)).abs()
    assert float((error > 1).float().mean()) < 0.06


def test_the_range_follows_the_width() -> None:
    assert [SGBM().disparities(width) for width in (1, 64, 434, 741, 1242, 2464)] == [
        16,
        16,
        112,
        192,
        320,
        624,
    ]
    assert SGBM(max_disparity=100).disparities(640) == 112
    assert SGBM(min_disparity=-20, max_disparity=12).disparities(640) == 32


def test_a_range_beyond_the_width_is_cut_and_said(garden: StereoSample) -> None:
    narrow = garden.pair.map(lambda image: image[..., :70])
    with pytest.warns(UserWarning, match="max_disparity 256 is cut to the image's width, 70"):
        output = SGBM(max_disparity=256)(narrow)
    assert output.disparity.shape == (240, 70)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (3, 3), (5, 17)])
def test_tiny_images_are_answered(size: tuple[int, int]) -> None:
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    output = SGBM()(StereoPair(image, image))
    assert output.disparity.shape == size
    assert output.disparity.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_disparity": -5}, "above min_disparity"),
        ({"max_disparity": 0}, "above min_disparity"),
        ({"max_disparity": 10**9}, "at most"),
        ({"min_disparity": -(10**9), "max_disparity": 3}, "no pair has"),
        ({"block_size": 4}, "odd"),
    ],
)
def test_nonsense_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SGBM(), **options)


def test_fill_takes_the_background() -> None:
    disparity = np.array([[9, 1, 0, 0, 3, 0], [0, 0, 0, 0, 0, 0], [5, 5, 5, 5, 5, 5]], np.float32)
    known = disparity > 0
    filled, distance = fill_background(disparity, known)
    assert filled.tolist() == [[9, 1, 1, 1, 3, 3], [9, 1, 1, 1, 3, 3], [5] * 6]
    assert distance[0].tolist() == [0, 0, 1, 1, 0, 1]
    assert np.isinf(distance[1]).all()
    nothing, _ = fill_background(disparity, np.zeros_like(known))
    assert not nothing.any()


def test_the_recorded_baseline_is_reproduced_to_the_printed_digit(shared_data: Path) -> None:
    record = shared_data / "sgbm_baseline.json"
    scenes = json.loads(record.read_text())["scenes"]
    assert len(scenes) == 12
    for name, figures in scenes.items():
        pair, truth, known = open_scene(shared_data / "real" / name)
        output = RecordedSGBM.of_scene(name, record)(pair)
        assert output.confidence is not None
        answered = output.confidence.numpy()
        measured = {
            **shares(output.disparity, truth, known),
            "density_before_fill": round(float(answered[known].mean()), 4),
            "density_before_fill_all_pixels": round(float(answered.mean()), 4),
            "num_disparities": RecordedSGBM.of_scene(name, record).num_disparities,
            "gt_pixels": int(known.sum()),
        }
        assert measured == {key: figures[key] for key in measured}, name


def test_plain_sgbm_beats_the_recorded_one_on_average(shared_data: Path) -> None:
    record = json.loads((shared_data / "sgbm_baseline.json").read_text())
    rows = []
    for name in record["scenes"]:
        pair, truth, known = open_scene(shared_data / "real" / name)
        rows.append(shares(SGBM()(pair).disparity, truth, known))
    mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    assert mean["epe"] < 1.55
    assert mean["bad_1"] < 0.19
    assert mean["bad_2"] < 0.115
    assert mean["bad_3"] < 0.09
    assert all(mean[key] < record["average_over_scenes"][key] for key in mean)


def test_a_record_names_its_scenes(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    record.write_text('{"scenes": {"teddy": {"num_disparities": 64}}}')
    assert RecordedSGBM.of_scene("teddy", record).num_disparities == 64
    with pytest.raises(ValueError, match="no scene 'cones': it has teddy"):
        RecordedSGBM.of_scene("cones", record)
    record.write_text("[]")
    with pytest.raises(ValueError, match="not a recorded baseline"):
        RecordedSGBM.of_scene("teddy", record)
    with pytest.raises(ValueError, match="multiple of 16"):
        RecordedSGBM(num_disparities=70)
