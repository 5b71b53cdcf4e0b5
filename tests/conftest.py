"""Shape checks over the whole package while tests run, one thread each, and where the shared material is."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import warnings

import pytest
import torch
from jaxtyping import install_import_hook

if os.environ.get("STEREOPSIS_SHAPE_CHECKS", "1") != "0":  # torch.compile cannot trace through them
    install_import_hook("stereopsis", "beartype.beartype")

torch.set_num_threads(1)
warnings.filterwarnings("ignore", category=DeprecationWarning, module="openvino")

_root = Path(__file__).resolve().parents[1]


def _folder(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable, _root.parent / "shared" / default))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder that holds `real/`, the open stereo scenes."""
    folder = _folder("STEREOPSIS_DATA", "data")
    if not (folder / "real").is_dir():
        pytest.skip("the open stereo scenes are not here: set STEREOPSIS_DATA to the folder that holds real/")
    return folder


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of the published networks' specs and fixtures."""
    folder = _folder("STEREOPSIS_REFERENCE", "reference")
    if not folder.is_dir():
        pytest.skip("the published networks' fixtures are not here: set STEREOPSIS_REFERENCE to their folder")
    return folder
