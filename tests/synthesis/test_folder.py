"""A rendered folder reads back as what was rendered, is continued after a stop, and never half there."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from stereopsis.cli.render import render as render_command
from stereopsis.data.sources.scenes import rendered_splits, scene_files
from stereopsis.io.disparity import read_disparity
from stereopsis.io.images import read_image
from stereopsis.io.scene import read_scene
from stereopsis.synthesis import folder as folders
from stereopsis.synthesis.folder import Order, render_folder


@pytest.fixture
def order(tmp_path: Path) -> Order:
    return Order(output=tmp_path / "out", distribution="sanity", count=3, seed=7, size=(48, 64))


def test_a_scene_reads_back_bit_for_bit(order):
    names = list(render_folder(order))
    assert names == ["sanity-7-000000", "sanity-7-000001", "sanity-7-000002"]
    rendering = order.stream().rendering(1)
    scene = read_scene(order.output / names[1])
    pixels = read_image(scene.left).astype(np.float32) / 255
    assert np.abs(pixels - rendering.sample.pair.left.permute(1, 2, 0).numpy()).max() < 1e-6
    assert scene.disparity is not None
    assert scene.disparity_right is not None
    disparity, valid = read_disparity(scene.disparity.path, scene.disparity.encoding)
    assert np.array_equal(disparity, rendering.left.disparity.numpy())
    assert np.array_equal(valid, rendering.left.valid.numpy())
    right, _ = read_disparity(scene.disparity_right.path, scene.disparity_right.encoding)
    assert np.array_equal(right, rendering.right.disparity.numpy())
    assert scene.calibration == rendering.sample.info[0].calibration
    assert scene.occlusion is not None
    mask = read_image(scene.occlusion.path)
    assert np.array_equal(mask == scene.occlusion.occluded[0], rendering.left.occluded.numpy())


def test_a_folder_says_which_seeds_it_holds(order):
    list(render_folder(order))
    list(render_folder(dataclasses.replace(order, seed=8, count=1)))
    assert read_scene(order.output / "sanity-8-000000").rendered == ("sanity", 8)
    assert rendered_splits(order.output) == {"synthetic/sanity seed 7", "synthetic/sanity seed 8"}


def test_the_data_room_lists_it(order):
    list(render_folder(order))
    files = scene_files(order.output / "sanity-7-000002" / "scene.json")
    assert files is not None
    assert files.disparity_right is not None
    assert files.dataset == "synthetic-sanity"


def test_a_killed_process_is_said_in_one_sentence(order, monkeypatch):
    class Killed(ProcessPoolExecutor):
        def submit(self, *_):
            future = Future()
            future.set_exception(BrokenProcessPool("terminated abruptly"))
            return future

    monkeypatch.setattr(folders, "ProcessPoolExecutor", Killed)
    with pytest.raises(OSError, match="fewer --workers"):
        list(render_folder(order, workers=2))


def test_a_stopped_run_leaves_no_half_scene_and_is_continued(order, monkeypatch):
    written = folders.write_scene

    def dies_at_the_second(folder, rendering, order, index):
        written(folder, rendering, order, index)
        if index == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(folders, "write_scene", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        list(render_folder(order))
    assert sorted(path.name for path in order.output.iterdir()) == ["sanity-7-000000"]
    before = (order.output / "sanity-7-000000" / "scene.json").stat().st_mtime_ns
    # What a killed process leaves behind is cleared away.
    (order.output / ".sanity-7-000001.dead.part").mkdir()
    os.utime(order.output / ".sanity-7-000001.dead.part", (0, 0))
    monkeypatch.setattr(folders, "write_scene", written)
    assert len(list(render_folder(order))) == 3
    assert (order.output / "sanity-7-000000" / "scene.json").stat().st_mtime_ns == before
    assert len(list(order.output.iterdir())) == 3


def test_two_runs_into_one_folder_do_not_disturb_each_other(order, monkeypatch):
    written = folders.write_scene

    def overtaken(folder, rendering, order, index):
        monkeypatch.setattr(folders, "write_scene", written)
        list(render_folder(order))  # another run finishes everything meanwhile
        written(folder, rendering, order, index)

    monkeypatch.setattr(folders, "write_scene", overtaken)
    assert list(render_folder(order)) == [order.name(index) for index in range(3)]
    assert sorted(path.name for path in order.output.iterdir()) == [order.name(index) for index in range(3)]


def test_another_size_in_the_same_folder_is_refused(order):
    list(render_folder(order))
    other = Order(output=order.output, distribution="sanity", count=1, seed=7, size=(32, 64))
    with pytest.raises(ValueError, match="64x48 where 64x32"):
        list(render_folder(other))


def test_photographs_become_textures(tmp_path):
    from stereopsis.io.images import write_image

    stripes = np.zeros((90, 120, 3), np.uint8)
    stripes[:, ::2, 0] = 255
    (tmp_path / "photos").mkdir()
    write_image(tmp_path / "photos" / "stripes.png", stripes)
    order = Order(output=tmp_path, distribution="sanity", size=(48, 64), photographs=tmp_path / "photos")
    scenes = [order.stream().scene(index) for index in range(6)]
    patterns = [tile.pattern for scene in scenes for tile in scene.tiles]
    assert patterns.count("photo") > len(patterns) / 3
    tile = next(tile for scene in scenes for tile in scene.tiles if tile.pattern == "photo").draw()
    assert tile[..., 1].max() == 0
    assert tile[..., 0].max() > 0.3
    assert np.array_equal(tile, tile[::-1])
    assert torch.isfinite(order.stream()[0].pair.left).all()


def test_the_command_renders_in_processes_and_says_what_is_wrong(tmp_path):
    app = typer.Typer()
    app.command()(render_command)
    runner = CliRunner()
    arguments = ["--distribution", "sanity", "--count", "2", "--size", "64x48", "--output", str(tmp_path)]
    result = runner.invoke(app, [*arguments, "--workers", "2"])
    assert result.exit_code == 0, result.output
    scene = json.loads((tmp_path / "sanity-0-000001" / "scene.json").read_text())
    assert (scene["width"], scene["height"]) == (64, 48)
    assert scene["rendered"] == {"distribution": "sanity", "seed": 0, "index": 1}
    wrong = runner.invoke(app, ["--size", "640", "--output", str(tmp_path)])
    assert isinstance(wrong.exception, ValueError)
    assert "WIDTHxHEIGHT" in str(wrong.exception)


@pytest.mark.slow
def test_workers_end_with_a_killed_parent(tmp_path):
    command = [sys.executable, "-m", "stereopsis", "render", "--distribution", "sanity", "--count", "100000"]
    arguments = ["--size", "64x48", "--workers", "2", "--output", str(tmp_path)]
    process = subprocess.Popen([*command, *arguments], start_new_session=True)
    while not list(tmp_path.glob("sanity-*/scene.json")):
        assert process.poll() is None
        time.sleep(0.1)
    process.kill()
    process.wait()
    time.sleep(3)
    before = len(list(tmp_path.glob("sanity-*/scene.json")))
    time.sleep(3)
    assert len(list(tmp_path.glob("sanity-*/scene.json"))) == before
    left = [p for p in Path("/proc").glob("[0-9]*/stat") if _session(p) == process.pid]
    assert left == []


def _session(stat: Path) -> int:
    """The session of a process that is more than a remnant; 0 where it is gone."""
    try:
        state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
    except OSError:
        return 0
    return 0 if state == "Z" else int(session)
