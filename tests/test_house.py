"""The house keeps its plan: who may import whom, what is public, what an import costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import stereopsis

_root = Path(__file__).resolve().parents[1]
_networks = sorted(
    path.stem
    for path in (_root / "src/stereopsis/models").glob("*.py")
    if path.stem not in ("__init__", "base", "registry")
)


def test_imports_point_down(tmp_path: Path) -> None:
    linted = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=_root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize("name", _networks)
def test_no_network_imports_another(name: str) -> None:
    text = (_root / "src/stereopsis/models" / f"{name}.py").read_text()
    others = [other for other in _networks if other != name and f"stereopsis.models.{other} " in text]
    assert not others


def test_public_names_are_these() -> None:
    assert stereopsis.__all__ == [
        "Calibration",
        "FusedOutput",
        "IterativeOutput",
        "MixtureOutput",
        "Predictor",
        "StereoOutput",
        "StereoPair",
        "StereoSample",
        "VolumeOutput",
        "create",
        "list_models",
        "load",
        "predict",
    ]
    for name in stereopsis.__all__:
        assert getattr(stereopsis, name).__name__ == name


def test_import_brings_nothing_heavy() -> None:
    heavy = [
        "torch",
        "lightning",
        "hydra",
        "onnx",
        "onnxruntime",
        "openvino",
        "transformers",
        "cv2",
        "rich",
        "typer",
    ]
    code = f"import sys, stereopsis; print([name for name in {heavy!r} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_source_files_stay_readable() -> None:
    long = {
        str(path.relative_to(_root)): lines
        for path in (_root / "src").rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 500
    }
    assert not long
