"""Weights come back bit-exact with their meaning; damaged and foreign files are told apart."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stereopsis.io.weights import WeightsHeader, read_weights, write_weights

HEADER = WeightsHeader(
    network="stereonet",
    config={"max_disparity": 192, "widths": (16, 32), "name": None, "nested": [[1, 2], [3]]},
    licence="Apache-2.0",
    provenance="trained from scratch",
    metrics={"open": {"bad-2": 12.5}},
    training={"steps": 1000},
)


def write(path: Path, header: WeightsHeader = HEADER) -> Path:
    write_weights(path, {"w": torch.arange(6.0).view(2, 3), "n": torch.tensor(3)}, header)
    return path


def test_tensors_and_header_come_back(tmp_path: Path) -> None:
    state, header = read_weights(write(tmp_path / "a.safetensors"))
    assert torch.equal(state["w"], torch.arange(6.0).view(2, 3))
    assert state["n"].dtype == torch.int64
    assert header == WeightsHeader(
        network="stereonet",
        config={"max_disparity": 192, "widths": (16, 32), "name": None, "nested": ((1, 2), (3,))},
        licence="Apache-2.0",
        provenance="trained from scratch",
        metrics={"open": {"bad-2": 12.5}},
        training={"steps": 1000},
    )


def test_tensors_that_share_memory_or_are_strided_are_written(tmp_path: Path) -> None:
    base = torch.arange(6.0)
    state = {"a": base, "b": base, "view": base[2:4], "transposed": base.view(2, 3).T}
    write_weights(tmp_path / "a.safetensors", state, HEADER)
    found, _ = read_weights(tmp_path / "a.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_a_file_of_another_program_has_no_header(tmp_path: Path) -> None:
    for name, metadata in (("bare", None), ("other", {"format": "pt"})):
        path = tmp_path / f"{name}.safetensors"
        save_file({"w": torch.ones(2)}, path, metadata=metadata)
        state, header = read_weights(path)
        assert header is None
        assert torch.equal(state["w"], torch.ones(2))


def test_only_plain_finite_values_are_written(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for header in (
        WeightsHeader(network="a", config={"x": torch.ones(1)}),
        WeightsHeader(network="a", metrics={"x": math.nan}),
    ):
        with pytest.raises(ValueError, match="plain finite values"):
            write(path, header)
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        write(tmp_path / "missing" / "a.safetensors")
    with pytest.raises(ValueError, match=r"\.safetensors"):
        write(tmp_path / "a.pth")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(ValueError, match="folder"):
        write(tmp_path / "folder.safetensors")


@pytest.mark.parametrize(
    "content",
    [
        b"\0" * 4,
        b"\xff" * 8,
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 100) + b"{}",
        struct.pack("<Q", 8) + b"not json",
        struct.pack("<Q", 50_000) + b"[" * 50_000,
        b"PK\x03\x04 a zip file of some kind",
    ],
)
def test_damaged_files_are_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.safetensors is not a whole safetensors file"):
        read_weights(path)


def test_truncation_anywhere_is_one_sentence(tmp_path: Path) -> None:
    data = write(tmp_path / "a.safetensors").read_bytes()
    path = tmp_path / "cut.safetensors"
    for length in range(1, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"cut\.safetensors"):
            read_weights(path)


def test_tensors_that_reach_outside_the_file_are_refused(tmp_path: Path) -> None:
    entry = {"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    text = json.dumps(entry).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 64)
    with pytest.raises(ValueError, match=r"a\.safetensors"):
        read_weights(path)


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[1]",
        "{}",
        '{"format": 99, "network": "a"}',
        '{"format": 1}',
        '{"format": 1, "network": 3}',
        '{"format": 1, "network": "a", "config": [1]}',
        '{"format": 1, "network": "a", "licence": {}}',
        "[" * 5000,
    ],
)
def test_a_header_of_nonsense_is_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.ones(2)}, path, metadata={"stereopsis": text})
    with pytest.raises(ValueError, match=r"a\.safetensors: the header"):
        read_weights(path)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"b\.safetensors"):
        read_weights(tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="folder"):
        read_weights(tmp_path)
