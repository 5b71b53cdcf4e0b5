"""Every fixture of a published network, through the same `load` and the same call as a user's."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from parity.harness import Case, difference

_reference = Path(
    os.environ.get("STEREOPSIS_REFERENCE", Path(__file__).resolve().parents[3] / "shared" / "reference")
)
_fixtures = sorted([*_reference.glob("*/fixtures/*.npz"), *_reference.glob("*/train/*.npz")])


@pytest.mark.skipif(bool(_fixtures), reason="the published networks' fixtures are here and run below")
def test_fixtures_are_absent() -> None:
    pytest.skip(f"no fixtures of published networks in {_reference.name}: set STEREOPSIS_REFERENCE")


def _case(path: Path) -> object:
    large = path.stem.startswith(("vitb", "vitl"))  # hundreds of millions of weights to draw
    return pytest.param(
        path, id=f"{path.parents[1].name}-{path.stem}", marks=[pytest.mark.slow] if large else []
    )


@pytest.mark.parametrize("path", [_case(path) for path in _fixtures])
def test_published_network(path: Path, tmp_path: Path) -> None:
    case = Case(path)
    if not (Path(__file__).parent / f"{case.network.replace('-', '_')}.py").exists():
        pytest.fail(f"{case.network} has fixtures and no module that runs them")
    if hasattr(case.module, "check") and case.module.check(case):
        return  # metrics and the like, without a checkpoint
    ours = case.module.arrays(case, case.open(tmp_path))
    missing = sorted(case.expected.keys() - ours.keys())
    assert not missing, f"arrays of the fixture that {case.network}.py does not give: {missing}"
    parted = {}
    for name in case.expected:
        largest, allowed = difference(case, name, np.asarray(ours[name]))
        if not largest <= allowed:
            parted[name] = f"{largest:.3g} > {allowed:.3g}"
    assert not parted
