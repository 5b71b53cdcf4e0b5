"""A file is there whole or not at all, whatever goes wrong while it is written."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stereopsis.io.arrays import write_npy, write_npz
from stereopsis.io.atomic import writing
from stereopsis.io.calibration import write_calibration
from stereopsis.io.disparity import write_disparity
from stereopsis.io.images import write_image
from stereopsis.io.points import write_ply
from stereopsis.structures import Calibration

_NOISE = np.random.default_rng(0).random((200, 200)).astype(np.float32)

WRITERS: dict[str, Callable[[Path], None]] = {
    "a.png": lambda path: write_image(path, (_NOISE * 255).astype(np.uint8)),
    "a.npy": lambda path: write_npy(path, _NOISE),
    "a.npz": lambda path: write_npz(path, {"a": _NOISE}),
    "a.pfm": lambda path: write_disparity(path, _NOISE),
    "a.ply": lambda path: write_ply(path, _NOISE[:, :3].repeat(50, axis=0)),
    "a.json": lambda path: write_calibration(path, Calibration(focal=1.0, baseline=1.0)),
}


@pytest.fixture
def full_disk():
    """No file may grow beyond some bytes: the writer gets an OSError after a part was written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, name: str, full_disk: None) -> None:
    (tmp_path / name).write_bytes(b"old")
    with pytest.raises(OSError, match="could not be written") as caught:
        WRITERS[name](tmp_path / name)
    assert name in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"old"


def test_a_full_device_is_said() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full on this system")
    with pytest.raises(OSError, match="/dev/full could not be written"):
        write_npy("/dev/full", _NOISE)
    assert Path("/dev/full").is_char_device()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, RuntimeError])
def test_any_exception_removes_the_temporary_file(tmp_path: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with writing(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", WRITERS)
def test_targets_that_cannot_be_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"-")
    (tmp_path / "folder" / name).mkdir(parents=True)
    for target, said in (
        (tmp_path / "folder" / name, "is a folder: name a file"),
        (tmp_path / "none" / name, "does not exist: create it"),
        (tmp_path / "file" / name, "is a file: name a folder"),
    ):
        with pytest.raises(ValueError, match=said):
            WRITERS[name](target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match=r"a\.npy could not be written"):
        write_npy(tmp_path / "a.npy", _NOISE)
    tmp_path.chmod(0o700)
