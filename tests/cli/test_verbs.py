"""What the verbs write and say, on pairs that are made here."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import trimesh

from fakes.planes import planes_sample
from stereopsis.cli._outputs import write_outputs
from stereopsis.cli.main import application, main
from stereopsis.cli.predict import parse_memory
from stereopsis.io.calibration import read_calibration, write_calibration
from stereopsis.io.disparity import read_disparity
from stereopsis.io.images import read_image, write_image
from stereopsis.io.video import write_video
from stereopsis.io.weights import WeightsHeader, write_weights
from stereopsis.models.registry import create, entry
from stereopsis.prediction.loading import load, shipped_weights
from stereopsis.prediction.memory import bytes_per_pixel, resident_bytes
from stereopsis.structures import Calibration, StereoOutput, StereoPair
from stereopsis.visual import image_picture

CALIBRATION = Calibration(focal=300.0, baseline=0.12, cx=160.0, cy=120.0, doffs=4.0, size=(240, 320))


@pytest.fixture(scope="module")
def garden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`left.png`, `right.png`, `truth.npy` and `calibration.json` of the made scene."""
    folder = tmp_path_factory.mktemp("garden")
    sample = planes_sample()
    write_image(folder / "left.png", image_picture(sample.pair.left))
    write_image(folder / "right.png", image_picture(sample.pair.right))
    np.save(folder / "truth.npy", sample.disparity.numpy())
    write_calibration(folder / "calibration.json", CALIBRATION)
    return folder


def predicted(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict:
    assert main(["predict", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_an_exported_file_is_not_sent_to_a_gpu_that_its_runtime_may_not_know(
    garden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    exported = shipped_weights("fast").with_suffix(".xml")
    images = garden / "left.png", garden / "right.png"
    said = predicted(capsys, *images, "--model", exported, "--output", tmp_path / "out")
    assert "OpenVINO" in said["runtime"]


def test_a_network_that_gives_no_disparity_is_warned_of(
    garden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = create("stereonet", **entry("stereonet").tiny)
    state = {name: tensor * math.nan for name, tensor in model.state_dict().items()}
    weights = tmp_path / "nan.safetensors"
    write_weights(weights, state, WeightsHeader(network="stereonet", config=dataclasses.asdict(model.config)))
    images = [str(garden / "left.png"), str(garden / "right.png")]
    assert main(["predict", *images, "--weights", str(weights), "--output", str(tmp_path / "out")]) == 0
    assert "warning: no pixel of left has a disparity" in capsys.readouterr().err


def test_a_pair_gives_every_file_and_one_line(
    garden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [str(garden / "left.png"), str(garden / "right.png")]
    calibration = str(garden / "calibration.json")
    out = tmp_path / "out"
    assert main(["predict", *images, "--calibration", calibration, "--output", str(out), "--both"]) == 0
    said, err = capsys.readouterr()
    assert err == ""
    assert said.count("\n") == 1
    assert "320x240 with sgbm-refined (OpenVINO 20" in said
    names = {path.name for path in out.iterdir()}
    plain = {"disparity.pfm", "disparity.png", "confidence.png"}
    metric = {"depth.npy", "depth_deviation.npy", "depth.png", "cloud.ply"}
    assert names == plain | metric | {"disparity_right.pfm", "disparity_right.png", "occluded.png"}
    disparity, valid = read_disparity(out / "disparity.pfm")
    assert valid.all()
    assert (np.abs(disparity - np.load(garden / "truth.npy")) > 1).mean() < 0.04
    assert read_image(out / "disparity.png").shape == (240, 320, 3)
    assert set(np.unique(read_image(out / "occluded.png"))) == {0, 255}


def test_depth_is_metres_and_millimetres_and_the_cloud_opens(
    garden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = predicted(
        capsys, garden / "left.png", garden / "right.png",
        "--calibration", garden / "calibration.json", "--output", tmp_path,
    )  # fmt: skip
    disparity, _ = read_disparity(tmp_path / "disparity.pfm")
    depth = np.load(tmp_path / "depth.npy")
    np.testing.assert_allclose(depth, 300 * 0.12 / (disparity + 4), rtol=1e-6)
    stored = read_image(tmp_path / "depth.png")
    assert stored.dtype == np.uint16
    np.testing.assert_allclose(stored, depth * 1000, atol=0.51)
    cloud = trimesh.load(tmp_path / "cloud.ply")
    summary = report["pairs"][0]
    assert len(cloud.vertices) == summary["points"] > 50_000
    assert cloud.vertices[:, 2].min() == pytest.approx(36 / 46.5, rel=0.03)
    assert cloud.vertices[:, 2].max() == pytest.approx(36 / 8, rel=0.05)
    assert len(np.unique(cloud.colors[:, :3], axis=0)) > 1000
    assert summary["size"] == "320x240"
    assert summary["files"] == [
        "disparity.pfm", "disparity.png", "confidence.png",
        "depth.npy", "depth_deviation.npy", "depth.png", "cloud.ply",
    ]  # fmt: skip


def test_a_cloud_with_normals_is_read_with_them_and_they_face_the_camera(
    garden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predicted(
        capsys, garden / "left.png", garden / "right.png", "--normals",
        "--calibration", garden / "calibration.json", "--output", tmp_path,
    )  # fmt: skip
    cloud = trimesh.load(tmp_path / "cloud.ply", process=False)
    raw = cloud.metadata["_ply_raw"]["vertex"]["data"]
    facing = np.stack([raw[name] for name in ("nx", "ny", "nz")], -1).reshape(-1, 3)
    np.testing.assert_allclose(np.linalg.norm(facing, axis=1), 1, atol=1e-5)
    assert ((facing * cloud.vertices).sum(1) < 0).all()
    assert len(facing) > 50_000


def test_depth_that_an_earlier_run_left_is_said_to_be_old(
    garden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [str(garden / "left.png"), str(garden / "right.png")]
    out = ["--output", str(tmp_path / "out")]
    assert main(["predict", *images, *out, "--calibration", str(garden / "calibration.json")]) == 0
    assert "earlier run" not in capsys.readouterr().err
    assert main(["predict", *images, *out]) == 0
    assert "depth.npy, depth_deviation.npy, depth.png, cloud.ply of an earlier run" in capsys.readouterr().err


def test_depth_comes_with_the_deviation_that_its_confidence_promises(
    garden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A confidence c promises an error below 1 px with probability c: 1 - exp(-sqrt(2) / sigma) = c."""
    predicted(
        capsys, garden / "left.png", garden / "right.png",
        "--calibration", garden / "calibration.json", "--output", tmp_path,
    )  # fmt: skip
    disparity, _ = read_disparity(tmp_path / "disparity.pfm")
    metres = np.load(tmp_path / "depth_deviation.npy")
    pixels = metres * (disparity + 4) ** 2 / (300 * 0.12)
    promised = 1 - np.exp(-np.sqrt(2) / pixels)
    confidence = read_image(tmp_path / "confidence.png") / 255
    np.testing.assert_allclose(promised, confidence, atol=0.51 / 255)
    assert 0 < np.median(metres) < 0.2


def test_the_deviation_of_infinite_depth_is_infinite_however_sure(tmp_path: Path) -> None:
    disparity, confidence = torch.tensor([[0.0, 4.0, 4.0]]), torch.tensor([[1.0, 0.0, 1.0]])
    output = StereoOutput(disparity, confidence)
    pair = StereoPair(*torch.rand(2, 3, 1, 3, generator=torch.Generator().manual_seed(0)))
    write_outputs(tmp_path, pair, output, calibration=Calibration(focal=300.0, baseline=0.12))
    assert np.load(tmp_path / "depth_deviation.npy").tolist() == [[math.inf, math.inf, 0.0]]


def test_points_obey_their_filters(garden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = (garden / "left.png", garden / "right.png", "--calibration", garden / "calibration.json")
    all_points = predicted(capsys, *pair, "--output", tmp_path / "a")["pairs"][0]["points"]
    near = predicted(capsys, *pair, "--output", tmp_path / "b", "--far", "1.5")["pairs"][0]["points"]
    sure = predicted(capsys, *pair, "--output", tmp_path / "c", "--min-confidence", "0.9")["pairs"][0][
        "points"
    ]
    assert near < all_points
    assert sure < all_points
    assert trimesh.load(tmp_path / "b" / "cloud.ply").vertices[:, 2].max() <= 1.5


def test_depth_beyond_sixteen_bits_is_zero_and_said(
    garden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    far = Calibration(focal=3000.0, baseline=0.5, cx=160.0, cy=120.0, size=(240, 320))
    write_calibration(tmp_path / "far.json", far)
    images = [str(garden / "left.png"), str(garden / "right.png")]
    assert main(["predict", *images, "--calibration", str(tmp_path / "far.json"), "-o", str(tmp_path)]) == 0
    warned = capsys.readouterr().err
    assert warned.startswith("warning: ")
    assert "beyond 65.5 m" in warned
    depth, stored = np.load(tmp_path / "depth.npy"), read_image(tmp_path / "depth.png")
    assert np.array_equal(stored == 0, depth * 1000 > 65535)


def test_a_folder_gives_a_folder_a_pair_and_goes_on_after_a_bad_one(
    garden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "pairs"
    for name in ("a", "b", "c"):
        (pairs / name).mkdir(parents=True)
        for side in ("left.png", "right.png"):
            (pairs / name / side).write_bytes((garden / side).read_bytes())
    (pairs / "b" / "right.png").write_bytes(b"")
    write_calibration(pairs / "c" / "calibration.json", CALIBRATION)
    assert main(["predict", str(pairs), "--output", str(tmp_path / "out")]) == 2
    said, err = capsys.readouterr()
    assert "2 pairs with sgbm" in said
    assert err.count("\n") == 1
    assert "error: b: " in err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "c"]
    assert not (tmp_path / "out" / "a" / "depth.npy").exists()
    assert (tmp_path / "out" / "c" / "depth.npy").exists()


def test_a_glob_finds_pairs(garden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = predicted(capsys, str(garden.parent / "garden*"), "--output", tmp_path)
    assert [pair["size"] for pair in report["pairs"]] == ["320x240"]
    assert (tmp_path / "disparity.pfm").exists()


def test_a_side_by_side_video_gives_frames_and_a_video(
    garden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = np.concatenate([read_image(garden / "left.png"), read_image(garden / "right.png")], axis=1)
    write_video(tmp_path / "both.avi", [frame, frame[::-1].copy()], rate=5.0)
    report = predicted(capsys, tmp_path / "both.avi", "--output", tmp_path / "out")
    assert [pair["name"] for pair in report["pairs"]] == ["frame-000000", "frame-000001"]
    disparity, _ = read_disparity(tmp_path / "out" / "frame-000000" / "disparity.pfm")
    assert (np.abs(disparity - np.load(garden / "truth.npy")) > 1).mean() < 0.06
    video = cv2.VideoCapture(str(tmp_path / "out" / "disparity.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 2


def test_a_smaller_scale_and_another_start_give_the_same_scene(
    garden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = (garden / "left.png", garden / "right.png")
    truth = np.load(garden / "truth.npy")
    for options in (("--scale", "0.5"), ("--min-disparity", "3", "--max-disparity", "64")):
        predicted(capsys, *images, "--output", tmp_path, *options)
        disparity, _ = read_disparity(tmp_path / "disparity.pfm")
        assert (np.abs(disparity - truth) > 2).mean() < 0.06


@pytest.mark.parametrize("model", ["sgbm", "sgbm-refined"])
def test_a_memory_limit_gives_tiles_that_agree_with_the_whole(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = planes_sample(size=(400, 640))
    for side, view in (("left", sample.pair.left), ("right", sample.pair.right)):
        write_image(tmp_path / f"{side}.png", image_picture(view))
    images = (tmp_path / "left.png", tmp_path / "right.png", "--max-disparity", "64", "--model", model)
    predicted(capsys, *images, "--output", tmp_path / "whole")
    windows = 150_000 * bytes_per_pixel(load(model, max_disparity=64), 640)
    limit = int(resident_bytes() + 150 * 400 * 640 + windows) // 2**20
    predicted(capsys, *images, "--output", tmp_path / "tiled", "--max-memory", f"{limit}M")
    whole, _ = read_disparity(tmp_path / "whole" / "disparity.pfm")
    tiled, _ = read_disparity(tmp_path / "tiled" / "disparity.pfm")
    assert not np.array_equal(whole, tiled)
    assert np.median(np.abs(whole - tiled)) < 0.1
    assert (np.abs(whole - tiled) > 1).mean() < 0.01


def test_a_range_beyond_the_width_is_cut_with_a_warning(
    garden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [str(garden / "left.png"), str(garden / "right.png")]
    assert main(["predict", *images, "--max-disparity", "1000", "-o", str(tmp_path)]) == 0
    warned = capsys.readouterr().err
    assert warned == "warning: max_disparity 1000 is cut to the image's width, 320\n"


def test_one_pixel_is_predicted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "dot.png", np.full((1, 1, 3), 9, np.uint8))
    report = predicted(capsys, tmp_path / "dot.png", tmp_path / "dot.png", "--output", tmp_path / "out")
    assert report["pairs"][0]["size"] == "1x1"


@pytest.mark.parametrize(
    ("text", "size"), [("2G", 2 * 2**30), ("800M", 800 * 2**20), ("1.5 GiB", 3 * 2**29), ("4096", 4096)]
)
def test_amounts_of_memory(text: str, size: int) -> None:
    assert parse_memory(text) == size


def test_the_demo_measures_what_it_rendered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--model", "sgbm", "--output", str(out)]) == 0
    said = capsys.readouterr().out
    assert {"panel.png", "cloud.ply", "truth.pfm", "left.png", "right.png"} <= {p.name for p in out.iterdir()}
    truth, known = read_disparity(out / "truth.pfm")
    disparity, _ = read_disparity(out / "disparity.pfm")
    error = np.abs(truth - disparity)[known].astype(np.float64)
    assert f"error: {error.mean():.3f} px over all pixels, {(error > 1).mean():.1%} of them" in said
    assert (error > 1).mean() < 0.2
    depth, calibration = np.load(out / "depth.npy"), read_calibration(out / "calibration.json")
    np.testing.assert_allclose(depth, calibration.depth(disparity), rtol=1e-5)


def test_models_lists_networks_and_matchers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "stereonet", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["stereonet"]["parameters"] > 100_000
    assert rows["stereonet"]["code_licence"]
    assert main(["models", "sgbm"]) == 0
    page = capsys.readouterr().out
    assert page.startswith("sgbm: ")
    assert "Hirschm" in page


def test_every_verb_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    verbs = [command.name for command in application().registered_commands]
    assert {"demo", "predict", "rectify", "models", "import-weights"} <= set(verbs)
    for verb in verbs:
        assert verb is not None
        assert main([verb, "--help"]) == 0
        assert "Example: stereopsis" in " ".join(capsys.readouterr().out.split())


def test_the_program_without_a_verb_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "predict" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "0.1.0\n"


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys, stereopsis\n"
        "assert 'torch' not in sys.modules\n"
        "from stereopsis.cli.main import main\n"
        "main(['--help'])\n"
        "heavy = {'torch', 'cv2', 'numpy', 'lightning', 'hydra', 'onnxruntime', 'openvino'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "predict" in done.stdout


def test_motorcycle_has_a_plausible_extent(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A motorcycle of 2 m in a garage: truth lies between 2.0 and 4.6 m."""
    scene = shared_data / "real" / "middlebury2014_motorcycle_q"
    predicted(
        capsys, scene / "left.png", scene / "right.png", "--calibration", scene / "calib.txt", "-o", tmp_path
    )
    cloud = trimesh.load(tmp_path / "cloud.ply")
    low, high = np.percentile(cloud.vertices, [1, 99], axis=0)
    assert 1.9 < low[2] < 2.3
    assert 3.5 < high[2] < 5.0
    assert 1.5 < high[0] - low[0] < 3.5
    assert 0.8 < high[1] - low[1] < 2.5
