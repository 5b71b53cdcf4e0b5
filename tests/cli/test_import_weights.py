"""`import-weights` keeps what a published checkpoint predicts, and writes down what it is."""

from __future__ import annotations

import hashlib
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import typer
from jaxtyping import Float
from torch import Tensor, nn
from typer.testing import CliRunner

from stereopsis.cli.import_weights import import_weights
from stereopsis.cli.main import main
from stereopsis.io.weights import read_weights
from stereopsis.models import registry
from stereopsis.models.base import StateDict, StereoModel, rename
from stereopsis.models.registry import Card
from stereopsis.prediction.loading import load_model
from stereopsis.structures import StereoOutput

_app = typer.Typer()
_app.command()(import_weights)


@dataclass(frozen=True)
class ToyConfig:
    gain: float = 1.0


class Toy(StereoModel[ToyConfig, StereoOutput]):
    """A network of one number, published as `scale`."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.factor = nn.Parameter(torch.zeros(1))

    def forward(self, left: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"]) -> StereoOutput:
        return StereoOutput(left[:, 0] * self.factor * self.config.gain)

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> ToyConfig | None:
        return ToyConfig() if "toy_scale" in state else None

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> StateDict:
        return rename(state, [("^toy_scale$", "factor")])


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    card = Card("Toy", "a paper", "owner/toy", "MIT", "CC-BY-4.0")
    entry = registry.Entry("toy", Toy, ToyConfig(), card)
    monkeypatch.setattr(registry, "_all_entries", lambda: {"toy": entry})
    path = tmp_path / "release.ckpt"
    torch.save({"state_dict": {"module.toy_scale": torch.tensor([2.5])}, "epoch": 1}, path)
    return path


def test_tensors_config_licence_and_provenance_are_kept(published: Path, tmp_path: Path) -> None:
    target = tmp_path / "ours.safetensors"
    result = CliRunner().invoke(_app, [str(published), "--output", str(target)])
    assert result.exit_code == 0, result.output
    state, header = read_weights(target)
    assert header is not None
    assert (header.network, header.config, header.licence) == ("toy", {"gain": 1.0}, "CC-BY-4.0")
    assert hashlib.sha256(published.read_bytes()).hexdigest() in header.provenance
    assert torch.equal(state["factor"], torch.tensor([2.5]))
    assert torch.equal(load_model(target).state_dict()["factor"], torch.tensor([2.5]))


def test_tensors_of_no_known_network_are_refused(published: Path, tmp_path: Path) -> None:
    torch.save({"strange.weight": torch.ones(3)}, published)
    result = CliRunner().invoke(_app, [str(published), "--output", str(tmp_path / "a.safetensors")])
    assert isinstance(result.exception, ValueError)
    assert str(published) in str(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == [published.name]


@pytest.mark.parametrize(
    ("target", "said"), [("a.pth", "end"), ("missing/a.safetensors", "does not exist"), ("", "folder")]
)
def test_places_that_cannot_be_written(published: Path, tmp_path: Path, target: str, said: str) -> None:
    result = CliRunner().invoke(_app, [str(published), "--output", str(tmp_path / target)])
    assert isinstance(result.exception, ValueError)
    assert said in str(result.exception)


def test_a_malicious_file_is_one_sentence_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    canary, source = tmp_path / "canary", tmp_path / "evil.pth"
    command = f"touch {canary}".encode()
    with zipfile.ZipFile(source, "w") as archive:
        text = b"X" + struct.pack("<I", len(command)) + command
        archive.writestr("archive/data.pkl", b"\x80\x02cos\nsystem\n" + text + b"\x85R.")
    assert main(["import-weights", str(source), "--output", str(tmp_path / "a.safetensors")]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.splitlines()) == 1
    assert str(source) in told.err
    assert "os.system" in told.err
    assert list(tmp_path.iterdir()) == [source]
