"""Whatever is wrong on a command line gives one sentence, exit code 2, and no file."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from torch._inductor.exc import InductorError

from stereopsis.cli.main import main
from stereopsis.io.arrays import write_npy
from stereopsis.io.images import write_image


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a good pair, its calibrations, and everything that may be wrong."""
    generator = np.random.default_rng(0)
    image = generator.integers(0, 255, (48, 64, 3)).astype(np.uint8)
    for name in ("left.png", "right.png"):
        write_image(tmp_path / name, image)
    write_image(tmp_path / "small.png", image[:20])
    (tmp_path / "empty.png").touch()
    (tmp_path / "cut.png").write_bytes((tmp_path / "left.png").read_bytes()[:600])
    (tmp_path / "text.png").write_text("this is no image\n" * 20)
    (tmp_path / "huge.png").write_bytes(_png_header(200_000, 200_000))
    write_npy(tmp_path / "nan.npy", np.full((48, 64, 3), np.nan, np.float32))
    write_npy(tmp_path / "floats.npy", image.astype(np.float32))
    (tmp_path / "nothing").mkdir()
    (tmp_path / "no.mp4").write_bytes(b"no video at all" * 50)
    (tmp_path / "K.txt").write_text("500 0 32 0 500 24 0 0 1\n")
    (tmp_path / "nonsense.txt").write_text("lorem ipsum\n")
    (tmp_path / "negative.json").write_text('{"focal": -5, "cx": 1, "cy": 1, "baseline": 0.1}')
    (tmp_path / "other.json").write_text(
        '{"focal": 500, "cx": 9, "cy": 9, "baseline": 0.1, "baseline_unit": "m", "width": 9, "height": 9}'
    )
    (tmp_path / "corrupt.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{broken")
    (tmp_path / "corrupt.onnx").write_bytes(b"no model" * 10)
    (tmp_path / "corrupt.pth").write_bytes(b"no checkpoint" * 10)
    (tmp_path / "file").write_text("not a folder")
    return tmp_path


def _png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


PAIR = ("predict", "left.png", "right.png")
BAD = {
    "a missing left image": ("predict", "absent.png", "right.png", "absent.png"),
    "a missing right image": ("predict", "left.png", "absent.png", "absent.png"),
    "an empty image": ("predict", "empty.png", "right.png", "empty.png"),
    "a truncated image": ("predict", "left.png", "cut.png", "cut.png"),
    "text named .png": ("predict", "text.png", "right.png", "text.png"),
    "an absurd header": ("predict", "huge.png", "right.png", "huge.png"),
    "sizes that differ": ("predict", "left.png", "small.png", "64x20"),
    "NaN in an image": ("predict", "nan.npy", "right.png", "NaN"),
    "one image": ("predict", "left.png", "left.png is one image"),
    "three images": ("predict", "left.png", "right.png", "small.png", "a glob in quotes"),
    "an image in 0..255 as floats": ("predict", "floats.npy", "right.png", "rescale floats"),
    "one image for the doctor": ("doctor", "left.png", "left.png is one image"),
    "empty names for the doctor": ("doctor", "", "", "inputs is empty"),
    "a missing image for the doctor": ("doctor", "left.png", "absent.png", "absent.png"),
    "NaN for the doctor": ("doctor", "nan.npy", "right.png", "NaN"),
    "sizes that differ for the doctor": ("doctor", "left.png", "small.png", "64x20"),
    "a video that is none, for the doctor": ("doctor", "no.mp4", "no.mp4"),
    "a doctor's pictures into a file": ("doctor", "left.png", "right.png", "-o", "file", "file is a file"),
    "a missing calibration for the doctor": (
        "doctor", "left.png", "right.png", "--calibration", "absent.txt", "absent.txt",
    ),
    "one image to rectify": ("rectify", "left.png", "left.png is one image"),
    "superresolution of a resized pair": (*PAIR, "--superresolution", "2", "--scale", "0.5", "leave out"),
    "empty names": ("predict", "", "", "inputs is empty"),
    "an empty name of one image": ("predict", "--mono", "", "--weights", "w.pth", "inputs is empty"),
    "nothing to train": ("train", "say what to train"),
    "nothing to predict": ("predict", "Missing argument"),
    "an empty folder": ("predict", "nothing", "no stereo pair"),
    "a folder that is not there": ("predict", "nowhere/", "nowhere"),
    "a glob without matches": ("predict", "none*", "none*"),
    "a video that is none": ("predict", "no.mp4", "no.mp4"),
    "normals without a calibration": (*PAIR, "--normals", "give --calibration, or leave out --normals"),
    "a far end without a calibration": (*PAIR, "--far", "5", "--near", "1", "leave out --near, --far"),
    "a missing calibration": (*PAIR, "--calibration", "absent.txt", "absent.txt"),
    "a calibration without baseline": (*PAIR, "--calibration", "K.txt", "K.txt"),
    "a calibration of nonsense": (*PAIR, "--calibration", "nonsense.txt", "nonsense.txt"),
    "a negative focal length": (*PAIR, "--calibration", "negative.json", "focal"),
    "a calibration of another size": (*PAIR, "--calibration", "other.json", "9x9"),
    "a negative range": (*PAIR, "--max-disparity", "-5", "--max-disparity"),
    "an empty range": (*PAIR, "--max-disparity", "0", "--max-disparity"),
    "a range upside down": (*PAIR, "--min-disparity", "50", "--max-disparity", "20", "it is 20"),
    "an absurd range": (*PAIR, "--max-disparity", "1000000000", "--max-disparity"),
    "an absurd start": (*PAIR, "--min-disparity", "-1000000000", "absurd"),
    "a range in words": (*PAIR, "--max-disparity", "many", "--max-disparity"),
    "a scale of zero": (*PAIR, "--scale", "0", "scale"),
    "a scale that is no number": (*PAIR, "--scale", "nan", "scale"),
    "memory in words": (*PAIR, "--max-memory", "lots", "2G or 800M"),
    "too little memory": (*PAIR, "--max-memory", "1M", "too little"),
    "an output that is a file": (*PAIR, "--output", "file", "file is a file"),
    "an output below a file": (*PAIR, "--output", "file/out", "file is a file"),
    "an output that cannot be made": (*PAIR, "--output", "/proc/stereopsis/out", "/proc/stereopsis"),
    "an unknown model": (*PAIR, "--model", "raft-sterio", "raft-stereo"),
    "a network without weights": (*PAIR, "--model", "stereonet", "--weights"),
    "weights that are not there": (*PAIR, "--model", "stereonet", "--weights", "absent.pth", "absent.pth"),
    "weights for a matcher": (*PAIR, "--model", "sgbm", "--weights", "corrupt.pth", "no weights"),
    "corrupt safetensors": (*PAIR, "--weights", "corrupt.safetensors", "corrupt.safetensors"),
    "a corrupt checkpoint": (*PAIR, "--weights", "corrupt.pth", "corrupt.pth"),
    "a corrupt ONNX file": (*PAIR, "--model", "corrupt.onnx", "corrupt.onnx"),
    "iterations of a matcher": (*PAIR, "--iterations", "8", "iterations"),
    "a start for a matcher": (*PAIR, "--start", "coarse", "start"),
    "a start for a network without iterations": (
        *PAIR, "--model", "fast", "--start", "sgbm", "takes no disparity to start from",
    ),
    "a start from frames that are not followed": (*PAIR, "--start", "previous", "--both", "leave out"),
    "an early stop of a network without iterations": (
        *PAIR, "--model", "fast", "--stop-below", "0.1", "stop_below",
    ),
    "an early stop below zero": (*PAIR, "--stop-below", "-1", "stop-below"),
    "no iterations": (*PAIR, "--iterations", "0", "iterations"),
    "a device for a matcher": (*PAIR, "--device", "tpu", "device"),
    "an unknown option": (*PAIR, "--nonsense", "--nonsense"),
    "an unknown verb": ("predikt", "predikt"),
    "rectifying without calibration": ("rectify", "left.png", "right.png", "--calibration"),
    "rectifying by a rectified pair's file": (
        "rectify", "left.png", "right.png", "--calibration", "other.json", "other.json",
    ),
    "rectifying to no size": (
        "rectify", "left.png", "right.png", "--calibration", "x.xml", "--size", "big", "x.xml",
    ),
    "a model's page that is not there": ("models", "psmnett", "psmnet"),
    "a demo into a file": ("demo", "--output", "file", "file is a file"),
    "rendering into a file": ("render", "--output", "file", "file is a file"),
    "rendering at an absurd size": ("render", "--output", "new", "--size", "999999x999999", "200 megapixels"),
    "labels into a file": ("label", "pairs", "--output", "file", "file is a file"),
    "training into a file": ("train", "experiment=overfit", "output=file", "file is a file"),
    "distilling into a file": ("distil", "student=fast", "labels=x", "output=file", "file is a file"),
    "exporting into no folder": ("export", "fast", "--output", "absent/fast.onnx", "absent does not exist"),
    "exporting under another suffix": ("export", "fast", "--output", "fast.txt", "written as .onnx"),
    "figures of an export into no folder": ("export", "fast", "--json", "absent/x.json", "absent does not"),
    "an evaluation's JSON into no folder": (
        "evaluate", "sgbm", "folder", "--json", "absent/x.json", "the folder absent does not exist",
    ),
    "a report into a folder": ("evaluate", "sgbm", "folder", "--report", "nothing", "nothing is a folder"),
    "a bench's JSON into no folder": ("bench", "--json", "absent/x.json", "absent does not exist"),
    "exports of a bench into a file": ("bench", "--exports", "file", "file is a file"),
    "calibrated weights into no folder": (
        "calibrate", "corrupt.safetensors", "--output", "absent/x.safetensors", "absent does not exist",
    ),
    "calibrated weights of another suffix": (
        "calibrate", "corrupt.safetensors", "--output", "x.pth", "written as .safetensors",
    ),
    "a contact sheet into no folder": (
        "datasets", "check", "folder", "--sheet", "absent/x.png", "absent does not exist",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(
    case: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    *arguments, said = BAD[case]
    if sys.platform != "linux" and "/proc" in said:
        pytest.skip("only Linux has /proc")
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    code = main(arguments)
    out, err = capsys.readouterr()
    assert code == 2, err
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith("error: ")
    assert said in err
    assert "Traceback" not in err
    assert sorted(place.rglob("*")) == before


def test_a_full_disk_leaves_no_half_file(place: Path) -> None:
    """A limit on the size of files stands in for the disk: the first file passes, the second does not."""
    resource = pytest.importorskip("resource")

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (12_350, 12_350))

    done = _program(place, ["predict", "left.png", "right.png", "--calibration", "fits.json"], limited)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "error: " in done.stderr
    assert "depth.npy could not be written" in done.stderr
    written = sorted(path.name for path in (place / "out").iterdir())
    assert "depth.npy" not in written
    assert "disparity.pfm" in written
    assert not [name for name in written if ".part" in name]
    assert len(np.fromfile(place / "out" / "disparity.pfm", np.uint8)) > 48 * 64 * 4


def _program(
    folder: Path, arguments: list[str], prepare: Callable[[], None]
) -> subprocess.CompletedProcess[str]:
    (folder / "fits.json").write_text(
        '{"focal": 500, "cx": 32, "cy": 24, "baseline": 0.1, "baseline_unit": "m", "width": 64, "height": 48}'
    )
    return subprocess.run(
        [sys.executable, "-m", "stereopsis", *arguments, "--min-confidence", "0"],
        cwd=folder,
        capture_output=True,
        text=True,
        preexec_fn=prepare,
        timeout=240,
        check=False,
    )


def test_ctrl_c_ends_with_130_and_no_traceback(place: Path) -> None:
    """The program waits for a left image that never comes; then it is interrupted."""
    pipe = place / "pipe.png"
    os.mkfifo(pipe)
    program = subprocess.Popen(
        [sys.executable, "-m", "stereopsis", "predict", str(pipe), "right.png"],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_heed_interrupts,
    )
    _wait_for_reader(pipe)
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=240)
    assert program.returncode == 130
    assert "Traceback" not in err
    assert out == ""
    assert not (place / "out").exists()


def _heed_interrupts() -> None:
    """Even where these tests run in a shell's background, which ignores Ctrl-C and hands that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _wait_for_reader(pipe: Path) -> None:
    for _ in range(2400):
        try:
            descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            time.sleep(0.1)
            continue
        time.sleep(0.2)
        _held.append(descriptor)
        return
    raise AssertionError("the program never opened the image")


_held: list[int] = []
"""The writing end stays open, so that the reader goes on waiting."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        cv2.error("OpenCV(5.0.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 9 bytes"),
    ],
)
def test_lack_of_memory_is_said(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(**_: object) -> None:
        raise error

    monkeypatch.setattr("stereopsis.cli.main.application", lambda: failing)
    assert main(["models"]) == 2
    assert "not enough memory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "end"),
    [
        (
            InductorError(RuntimeError("C++ compile error\n" + "warning: overflow\n" * 9999), None),
            2,
            "overflow ...)\n",
        ),
        (InductorError(RuntimeError("No working C++ compiler found"), None), 2, "C++ compiler found)\n"),
        (RuntimeError("word " * 9999), 1, "please report it)\n"),
        (
            RuntimeError(),
            1,
            "error: RuntimeError (a fault of the program: STEREOPSIS_TRACEBACK=1 shows where, ",
        ),
    ],
)
def test_what_a_library_says_is_cut_to_a_sentence(
    error: Exception, code: int, end: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(**_: object) -> None:
        raise error

    monkeypatch.setattr("stereopsis.cli.main.application", lambda: failing)
    assert main(["models"]) == code
    said = capsys.readouterr().err
    assert end in said
    assert len(said) < 600
    assert ("C++ compiler (g++), or do without compile" in said) == (code == 2)


def test_a_traceback_is_shown_on_request(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("STEREOPSIS_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError):
        main(["predict", "absent.png", "right.png"])
