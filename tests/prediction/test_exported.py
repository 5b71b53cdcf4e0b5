"""Exported files as predictors: values, padding, batches, and one sentence for everything that is wrong."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fakes.exports import fake_model, write_export
from stereopsis.confidence import agreement
from stereopsis.models.base import Padding
from stereopsis.prediction import loading
from stereopsis.prediction.exported import ExportedPredictor
from stereopsis.prediction.header import ExportHeader, check_seal
from stereopsis.prediction.loading import load, predict
from stereopsis.structures import StereoPair

_HEADER = ExportHeader(network="fast", padding=Padding(multiple=(8, 16)), opset=20, version="0.1.0")
_SUFFIXES = pytest.mark.parametrize("suffix", [".onnx", ".xml"])


def _pair(*leading: int, size: tuple[int, int] = (11, 21)) -> StereoPair:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.rand(*leading, 3, *size, generator=generator) for _ in range(2))
    return StereoPair(left, right)


def _expected(pair: StereoPair) -> torch.Tensor:
    return (pair.left - pair.right).mean(-3)


@_SUFFIXES
@pytest.mark.parametrize("leading", [(), (3,), (2, 2)])
def test_a_file_of_any_size_is_a_predictor(suffix: str, leading: tuple[int, ...], tmp_path: Path) -> None:
    predictor = load(write_export(tmp_path / f"fake{suffix}", _HEADER))
    pair = _pair(*leading)
    output = predictor(pair)
    torch.testing.assert_close(output.disparity, _expected(pair))
    torch.testing.assert_close(output.confidence, pair.left[..., 0, :, :])
    assert isinstance(predictor, ExportedPredictor)
    assert predictor.header == _HEADER


@_SUFFIXES
def test_bytes_go_in_with_channels_last(suffix: str, tmp_path: Path) -> None:
    header = ExportHeader(network="fast", images="uint8", padding=_HEADER.padding)
    predictor = load(write_export(tmp_path / f"fake{suffix}", header))
    stored = (_pair().map(lambda image: (image * 255).round())).map(lambda image: image / 255)
    torch.testing.assert_close(predictor(stored).disparity, _expected(stored) * 255)


@_SUFFIXES
def test_a_fixed_batch_is_filled_up(suffix: str, tmp_path: Path) -> None:
    header = ExportHeader(network="fast", batch=2, padding=_HEADER.padding)
    pair = _pair(3)
    output = load(write_export(tmp_path / f"fake{suffix}", header))(pair)
    torch.testing.assert_close(output.disparity, _expected(pair))


@_SUFFIXES
def test_without_own_confidence_the_views_are_compared(suffix: str, tmp_path: Path) -> None:
    pair = _pair(size=(16, 32))
    predictor = load(write_export(tmp_path / f"fake{suffix}", _HEADER, confident=False), both=True)
    output = predictor(pair)
    right = (pair.right - pair.left).mean(0)
    assert output.right_disparity is not None
    torch.testing.assert_close(output.right_disparity, right)
    torch.testing.assert_close(output.confidence, agreement(_expected(pair), right))
    assert output.occluded is not None


def test_one_call_predicts_with_a_file(tmp_path: Path) -> None:
    pair = _pair()
    output = predict(pair.left, pair.right, model=write_export(tmp_path / "fake.onnx", _HEADER))
    torch.testing.assert_close(output.disparity, _expected(pair))


def test_a_file_of_one_size_refuses_others(tmp_path: Path) -> None:
    predictor = load(write_export(tmp_path / "fake.onnx", ExportHeader(network="fast", size=(16, 32))))
    assert predictor(_pair(size=(16, 32))).disparity.shape == (16, 32)
    with pytest.raises(ValueError, match="was exported for 32x16, this pair is 21x11"):
        predictor(_pair())


def test_a_size_that_the_graph_cannot_take_is_named(tmp_path: Path) -> None:
    """A file that claims any size but was frozen at one."""
    frozen = fake_model(dataclasses.replace(_HEADER, size=(16, 32)))
    path = write_export(tmp_path / "fake.onnx", _HEADER, model=frozen)
    with pytest.raises(ValueError, match="export the network for that size"):
        load(path)(_pair(size=(24, 32)))


@_SUFFIXES
def test_a_flipped_byte_is_noticed_wherever_it_is(suffix: str, tmp_path: Path) -> None:
    path = write_export(tmp_path / f"fake{suffix}", _HEADER)
    whole = path.read_bytes()
    for position in range(0, len(whole), 31):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(ValueError, match=r"damaged|does not say"):
            check_seal(path)
    path.write_bytes(whole[:-20])
    with pytest.raises(ValueError, match="damaged"):
        load(path)


def test_a_flipped_weight_beside_the_xml_is_noticed(tmp_path: Path) -> None:
    path = write_export(tmp_path / "fake.xml", _HEADER)
    weights = path.with_suffix(".bin")
    data = bytearray(weights.read_bytes())
    data[0] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ValueError, match=r"fake\.bin is damaged"):
        load(path)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"fake\.xml needs it beside itself"):
        load(path)


@pytest.mark.parametrize(("opset", "ir_version"), [(99, 10), (20, 99)])
def test_a_newer_opset_is_named(opset: int, ir_version: int, tmp_path: Path) -> None:
    newer = fake_model(_HEADER, opset=opset, ir_version=ir_version)
    path = write_export(tmp_path / "fake.onnx", _HEADER, model=newer)
    with pytest.raises(ValueError, match=r"99.*update onnxruntime"):
        load(path)


@_SUFFIXES
def test_a_newer_format_is_named(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {**json.loads(_HEADER.to_json()), "format": 2, "version": "9.0"}
    monkeypatch.setattr(ExportHeader, "to_json", lambda _: json.dumps(facts))
    with pytest.raises(ValueError, match=r"format 2, this version reads 1: .* 9\.0"):
        load(write_export(tmp_path / f"fake{suffix}", _HEADER))


@_SUFFIXES
def test_a_file_of_another_program_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"foreign{suffix}"
    path.write_bytes(b"anything that is not ours")
    with pytest.raises(ValueError, match="carries no metadata of stereopsis"):
        load(path)


@pytest.mark.parametrize(
    ("suffix", "module", "extra"), [(".onnx", "onnxruntime", "export"), (".xml", "openvino", "openvino")]
)
def test_a_missing_runtime_names_the_extra(
    suffix: str, module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_export(tmp_path / f"fake{suffix}", _HEADER)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=rf"{module}.*pip install 'stereopsis\[{extra}\]'"):
        load(path)


def test_options_that_export_has_fixed_are_refused(tmp_path: Path) -> None:
    path = write_export(tmp_path / "fake.onnx", _HEADER)
    with pytest.raises(ValueError, match="iterations cannot be chosen"):
        load(path, iterations=4)
    with pytest.raises(ValueError, match="holds its own weights"):
        load(path, weights="other.safetensors")
    with pytest.raises(ValueError, match="ONNX Runtime computes as the file says"):
        load(path, precision="bfloat16")
    with pytest.raises(ValueError, match="cannot run on tpu"):
        load(path, device="tpu")
    with pytest.raises(ValueError, match="threads must be at least 1"):
        load(path, threads=0)


def test_openvino_takes_one_size_after_another(tmp_path: Path) -> None:
    predictor = load(write_export(tmp_path / "fake.xml", _HEADER))
    for height in (8, 20, 30, 40, 50, 60, 8):
        pair = _pair(size=(height, 21))
        torch.testing.assert_close(predictor(pair).disparity, _expected(pair))


_TWO_COME_AND_GO = """
import os, signal, sys
import torch
from stereopsis import StereoPair, load

# A process that was started in the background ignores SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)
pair = StereoPair(torch.rand(3, 11, 21), torch.rand(3, 11, 21))
first = load(sys.argv[1])
first(pair)
second = load(sys.argv[1])
second(pair)
del first
del second
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("heard")
"""


def test_ctrl_c_is_heard_after_two_openvino_files_came_and_went(tmp_path: Path) -> None:
    path = write_export(tmp_path / "fake.xml", _HEADER)
    command = [sys.executable, "-c", _TWO_COME_AND_GO, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr


def test_openvino_computes_in_float32_unless_told(tmp_path: Path) -> None:
    path = write_export(tmp_path / "fake.xml", _HEADER)
    runtimes = [load(path), load(path, precision="bfloat16")]
    assert [getattr(predictor, "runtime", "").rpartition(" ")[2] for predictor in runtimes] == [
        "float32",
        "bfloat16",
    ]


def test_a_shipped_export_that_was_found_equal_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loading, "_WEIGHTS", tmp_path)
    equal = dataclasses.replace(_HEADER, parity={"fp32": {"close": 1.0}})
    write_export(tmp_path / "fast.onnx", equal)
    write_export(tmp_path / "fast.xml", equal)
    with caplog.at_level("INFO", logger="stereopsis"):
        chosen = [load("fast"), load("fast", runtime="onnx", device="cpu", both=True)]
    assert [getattr(p, "path", Path()).suffix for p in chosen] == [".xml", ".onnx"]
    assert "fast runs by OpenVINO" in caplog.text
    with pytest.raises(ValueError, match="no weights for fast come with the package"):
        load("fast", runtime="torch")
    with pytest.raises(ValueError, match="no weights for fast come with the package"):
        load("fast", max_disparity=256)
    monkeypatch.setattr(loading, "installed", lambda suffix: suffix == ".onnx")
    assert getattr(load("fast"), "path", Path()).suffix == ".onnx"
    assert "fast runs quicker by openvino: pip install 'stereopsis[openvino]'" in caplog.text


@pytest.mark.parametrize(("able", "proven"), [(True, True), (True, False), (False, True)])
def test_a_shipped_export_computes_in_bfloat16_where_that_was_proven_and_the_processor_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, able: bool, proven: bool
) -> None:
    monkeypatch.setattr(loading, "_WEIGHTS", tmp_path)
    monkeypatch.setattr(loading, "bfloat16_supported", lambda: able)
    figures = {"fp32": {"close": 1.0}} | ({"bf16": {"close": 0.9}} if proven else {})
    write_export(tmp_path / "fast.xml", dataclasses.replace(_HEADER, parity=figures))
    expected = "bfloat16" if able and proven else "float32"
    assert getattr(load("fast"), "runtime", "").endswith(expected)
    assert getattr(load("fast", precision="float32"), "runtime", "").endswith("float32")


@pytest.mark.parametrize(("bfloat16", "proven"), [(False, True), (False, False), (True, True)])
def test_a_shipped_export_computes_in_eight_bits_where_that_was_proven_and_bfloat16_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, bfloat16: bool, proven: bool
) -> None:
    monkeypatch.setattr(loading, "_WEIGHTS", tmp_path)
    monkeypatch.setattr(loading, "bfloat16_supported", lambda: bfloat16)
    whole = {"fp32": {"close": 1.0}, "bf16": {"close": 0.9}}
    write_export(tmp_path / "fast.xml", dataclasses.replace(_HEADER, parity=whole))
    small = {"int8": {"close": 0.1}} if proven else {}
    eight = dataclasses.replace(_HEADER, precision="int8", parity=small)
    write_export(tmp_path / "fast-int8.xml", eight)
    expected = "fast-int8.xml" if proven and not bfloat16 else "fast.xml"
    assert getattr(load("fast"), "path", Path()).name == expected
    assert getattr(load("fast", precision="float32"), "path", Path()).name == "fast.xml"


def test_a_shipped_export_without_proof_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_WEIGHTS", tmp_path)
    write_export(tmp_path / "fast.onnx", _HEADER)
    with pytest.raises(ValueError, match="no weights for fast come with the package"):
        load("fast")
    with pytest.raises(ValueError, match="no onnx export of fast"):
        load("fast", runtime="onnx")
    with pytest.raises(ValueError, match="runtime must be auto, torch, openvino or onnx"):
        load("fast", runtime="tensorrt")
