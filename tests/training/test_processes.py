"""Trainings in processes of their own: killed without warning, and two side by side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from stereopsis.io.weights import read_weights

_ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "MASTER_ADDR": "127.0.0.1",
    "NCCL_SOCKET_IFNAME": "lo",
    "GLOO_SOCKET_IFNAME": "lo",
}


def _command(planes: Path, output: Path, *overrides: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "stereopsis",
        "train",
        f"data.sources=[{{name: folder, split: truth, root: {planes}}}]",
        "data.validation=[]",
        "data.batch_size=2",
        "data.workers=0",
        "data.crop=[32,64]",
        "optimizer.lr=1e-3",
        "trainer.accelerator=cpu",
        "trainer.threads=1",
        f"output={output}",
        *overrides,
    ]


_STEREONET = (
    "model.name=stereonet",
    "model.options.downsamplings=2",
    "model.options.refinements=1",
    "model.options.max_disparity=32",
)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_kills_do_not_change_the_weights(planes: Path, tmp_path: Path) -> None:
    settings = (*_STEREONET, "trainer.max_steps=200", "trainer.checkpoint_every=5", "trainer.average=0.99")
    whole = _command(planes, tmp_path / "whole", *settings)
    subprocess.run(whole, env=_ENVIRONMENT, check=True, capture_output=True)
    killed = _command(planes, tmp_path / "killed", *settings)
    rng = np.random.default_rng(0)
    stops = np.sort(rng.choice(np.arange(5, 200), size=10, replace=False))
    checkpoint = tmp_path / "killed/last.ckpt"
    for stop in stops:
        process = subprocess.Popen(killed, env=_ENVIRONMENT, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (checkpoint.exists() and _step(checkpoint) >= stop - 5):
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 0.5))
        assert process.poll() is None, "the run ended before it was killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(killed, env=_ENVIRONMENT, check=True, capture_output=True)
    first, _ = read_weights(tmp_path / "whole/weights.safetensors")
    second, _ = read_weights(tmp_path / "killed/weights.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)


def _step(checkpoint: Path) -> int:
    return int(torch.load(checkpoint, weights_only=True)["global_step"])


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_from_the_doubled_batch(planes: Path, tmp_path: Path) -> None:
    """RAFT-Stereo, whose batch norm is frozen, with every pixel valid: gradients are those of one batch."""
    settings = (
        "model.name=raft-stereo",
        "model.options.iterations=2",
        "model.freeze_batch_norm=true",
        "loss=sequence",
        "optimizer.name=sgd",
        "trainer.max_steps=3",
    )
    one = _command(planes, tmp_path / "one", *settings, "data.batch_size=4")
    two = _command(planes, tmp_path / "two", *settings, "trainer.devices=2", "trainer.strategy=ddp")
    subprocess.run(one, env=_ENVIRONMENT, check=True, capture_output=True)
    subprocess.run(two, env=_ENVIRONMENT, check=True, capture_output=True, timeout=280)
    first, _ = read_weights(tmp_path / "one/weights.safetensors")
    second, _ = read_weights(tmp_path / "two/weights.safetensors")
    largest = max(float((first[name].float() - second[name].float()).abs().max()) for name in first)
    assert largest < 1e-5


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(planes: Path, tmp_path: Path) -> None:
    """As a terminal sends it: to the process and to its loaders' workers."""
    settings = (*_STEREONET, "trainer.max_steps=100000", "trainer.checkpoint_every=1", "data.workers=1")
    process = subprocess.Popen(
        _command(planes, tmp_path / "run", *settings),
        env=_ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    checkpoint = tmp_path / "run/last.ckpt"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and not checkpoint.exists():
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, shown = process.communicate(timeout=120)
    assert process.returncode == 130, shown
    assert "the same command goes on from" in shown
    assert "Traceback" not in shown
    assert checkpoint.exists()
