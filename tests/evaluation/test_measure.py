"""One image's numbers: masks against loops, histograms and curves by hand, depth through the calibration."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from fakes.datasets import WRITERS
from fakes.predictors import Offset
from stereopsis.data.dataset import Annotations
from stereopsis.evaluation.measure import (
    CURVE_STEPS,
    HISTOGRAM,
    Masks,
    curves,
    measure,
    poolable,
    textureless,
)
from stereopsis.evaluation.protocols import Column, protocol
from stereopsis.evaluation.run import evaluate
from stereopsis.structures import Calibration, SceneInfo, StereoOutput, StereoPair, StereoSample


def _sample(seed: int, *, calibration: Calibration | None = None) -> StereoSample:
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(3, 10, 14, generator=generator)
    image[:, :, :7] = 0.5 + 0.01 * image[:, :, :7]
    truth = (torch.rand(10, 14, generator=generator) * 4).round() * 3
    return StereoSample(
        StereoPair(image, image),
        truth,
        torch.rand(10, 14, generator=generator) < 0.8,
        occluded=torch.rand(10, 14, generator=generator) < 0.2,
        info=(SceneInfo("s", "d", calibration),),
    )


def test_textureless_equals_a_loop_over_windows() -> None:
    for seed in range(3):
        sample = _sample(seed)
        weights = 0.299, 0.587, 0.114
        gray = sum(w * c for w, c in zip(weights, sample.pair.left.double() * 255, strict=True))
        squares = [
            [float(gray[y, x + 1] - gray[y, x]) ** 2 if x + 1 < 14 else 0.0 for x in range(14)]
            for y in range(10)
        ]
        found = textureless(sample)
        for y in range(10):
            for x in range(14):
                window = [
                    squares[j][i]
                    for j in range(max(0, y - 1), min(10, y + 2))
                    for i in range(max(0, x - 1), min(14, x + 2))
                ]
                assert bool(found[y, x]) == (sum(window) / len(window) < 4), (y, x)
        assert 0 < int(found.sum()) < found.numel()


def test_masks_are_parts_of_what_is_known() -> None:
    sample = _sample(0)
    regions = {"foreground": sample.disparity > 6, "class-2": sample.disparity == 3}
    masks = Masks(sample, Annotations(regions))
    assert sample.occluded is not None
    expected = {
        "all": sample.valid,
        "noc": sample.valid & ~sample.occluded,
        "occ": sample.valid & sample.occluded,
        "foreground": sample.valid & (sample.disparity > 6),
        "background": sample.valid & (sample.disparity <= 6),
        "class-2": sample.valid & (sample.disparity == 3),
        "textureless": sample.valid & textureless(sample),
    }
    for name, mask in expected.items():
        found = masks.named(name)
        assert found is not None
        assert torch.equal(found, mask), name
    edges = masks.named("edges")
    assert edges is not None
    assert bool((edges <= sample.valid).all())


def test_masks_that_the_data_lacks_give_nan() -> None:
    bare = StereoSample(
        StereoPair(torch.rand(3, 4, 5), torch.rand(3, 4, 5)), torch.ones(4, 5), torch.ones(4, 5) > 0
    )
    columns = [Column("epe", mask) for mask in ("noc", "occ", "background", "foreground", "class-1")]
    figures = measure(StereoOutput(torch.ones(4, 5)), bare, Annotations(), columns)
    assert all(math.isnan(figure.value) and figure.pixels == 0 for figure in figures)


def test_depth_goes_through_the_calibration() -> None:
    sample = _sample(1, calibration=Calibration(focal=100.0, baseline=0.5, doffs=2.0))
    output = StereoOutput(sample.disparity + 1)
    columns = [Column("abs-rel"), Column("rmse"), Column("delta-1")]
    ratio, root, close = (figure.value for figure in measure(output, sample, Annotations(), columns))
    truth = 50 / (sample.disparity[sample.valid].double() + 2)
    depth = 50 / (sample.disparity[sample.valid].double() + 3)
    assert ratio == pytest.approx(float(((depth - truth).abs() / truth).mean()), rel=1e-5)
    assert root == pytest.approx(float((depth - truth).square().mean().sqrt()), rel=1e-5)
    assert close == pytest.approx(float((truth / depth < 1.25).double().mean()), rel=1e-5)
    (without,) = measure(output, _sample(1), Annotations(), columns[:1])
    assert math.isnan(without.value)


def test_depth_errors_are_millimetres() -> None:
    """Of 100 px and 4 mm, 8, 5 and 4 px are 50, 80 and 100 mm, and 10, 4 and 4 px are 40, 100 and 100."""
    calibration = Calibration(focal=100.0, baseline=0.004)
    truth = torch.tensor([[8.0, 5.0, 4.0, 2.0, 0.0]])
    sample = StereoSample(
        StereoPair(torch.rand(3, 1, 5), torch.rand(3, 1, 5)),
        truth,
        torch.tensor([[True, True, True, False, True]]),  # of 0 px the depth is infinite: left out
        info=(SceneInfo(calibration=calibration),),
    )
    output = StereoOutput(torch.tensor([[10.0, 4.0, 4.0, 90.0, 1.0]]))
    mean, root = measure(output, sample, Annotations(), [Column("mae-mm"), Column("rmse-mm")])
    assert mean.value == pytest.approx((10 + 20 + 0) / 3, rel=1e-6)
    assert root.value == pytest.approx(math.sqrt((100 + 400 + 0) / 3), rel=1e-6)
    assert mean.pixels == root.pixels == 3


def test_histogram_counts_every_pixel_once() -> None:
    errors = torch.tensor([[0.1, 0.3, 0.7, 1.5, 2.5, 3.5, 5.0, 10.0, 20.0, 50.0, math.nan, 1.0]])
    truth = torch.full((1, 12), 100.0)
    sample = StereoSample(
        StereoPair(torch.rand(3, 1, 12), torch.rand(3, 1, 12)), truth, torch.ones(1, 12, dtype=torch.bool)
    )
    sample.valid[0, 11] = False
    found = curves(StereoOutput(truth + errors), sample)
    assert found.histogram == (1, 1, 1, 1, 1, 1, 1, 1, 1, 2)
    assert len(found.histogram) == len(HISTOGRAM) - 1
    assert found.by_confidence == ()
    assert found.by_error[0] == pytest.approx(float(errors[0, :10].mean()), rel=1e-4)
    assert len(found.by_error) == CURVE_STEPS


def test_unknown_confidence_is_the_least() -> None:
    sample = _sample(2)
    confidence = torch.rand(10, 14, generator=torch.Generator().manual_seed(3))
    holes = torch.rand(10, 14, generator=torch.Generator().manual_seed(4)) < 0.3
    disparity = sample.disparity + torch.rand(10, 14, generator=torch.Generator().manual_seed(5)) * 5
    columns = [Column("ause"), Column("auroc-3"), Column("ece-3")]
    nan, zero = (
        measure(StereoOutput(disparity, confidence.masked_fill(holes, fill)), sample, Annotations(), columns)
        for fill in (math.nan, 0.0)
    )
    assert nan == zero
    assert not any(math.isnan(figure.value) for figure in nan)


def test_only_means_over_pixels_are_pooled() -> None:
    assert all(poolable(metric) for metric in ("epe", "d1", "bad-2", "density", "see", "mae-mm", "delta-1"))
    assert not any(
        poolable(metric) for metric in ("rms", "rmse", "rmse-mm", "a90", "ause", "auroc-3", "ece-3")
    )


def test_unknown_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="no metric 'nonsense'"):
        measure(StereoOutput(torch.ones(10, 14)), _sample(0), Annotations(), [Column("nonsense")])


def test_booster_reports_each_class_of_material(tmp_path: Path) -> None:
    (expected,) = WRITERS["booster"](tmp_path)
    found = evaluate(Offset(20.0), protocol("booster"), name="n", roots={"booster": tmp_path})
    error = np.abs(expected.disparity - 20)
    for kind in range(4):
        mask = expected.known & expected.regions[f"class-{kind}"]
        assert found.value(f"epe class-{kind}") == pytest.approx(error[mask].mean())
        assert found.value(f"bad-2 class-{kind}") == pytest.approx((error[mask] > 2).mean())


def test_zero_shot_measures_four_benchmarks_in_one_run(tmp_path: Path) -> None:
    for name in ("kitti2012", "kitti2015", "middlebury-v3", "eth3d"):
        WRITERS[name](tmp_path / name)
    (tmp_path / "middlebury-v3/MiddEval3/trainingQ").rename(tmp_path / "middlebury-v3/MiddEval3/trainingH")
    roots = {path.name: path for path in tmp_path.iterdir()}
    found = evaluate(Offset(20.0), protocol("zero-shot"), name="n", roots=roots)
    assert found.parts == ("kitti2012/train", "kitti2015/train", "middlebury-v3/trainingH", "eth3d/train")
    assert [row.part for row in found.rows] == [0, 1, 2, 3]
    assert not math.isnan(found.value("bad-2 noc", part=2))
    assert not math.isnan(found.value("bad-1 noc", part=3))
    assert len([note for note in found.notes if "where the protocol has" in note]) == 4
