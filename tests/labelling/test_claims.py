"""A claim has one holder; the dead lose theirs, the living keep them."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from stereopsis.labelling import claims as module
from stereopsis.labelling.claims import Claims
from stereopsis.labelling.engine import SharedFolder


def test_one_of_many_gets_it_and_then_it_is_free(tmp_path: Path) -> None:
    winners: list[int] = []
    together = threading.Barrier(8)
    held = threading.Barrier(8)

    def compete(number: int) -> None:
        claims = Claims(tmp_path, expiry=60.0)
        together.wait()
        with claims.taken("a/b") as mine:
            if mine:
                winners.append(number)
            held.wait()

    threads = [threading.Thread(target=compete, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1
    assert list(tmp_path.iterdir()) == []
    with Claims(tmp_path, expiry=60.0).taken("a/b") as mine:
        assert mine


def _foreign(folder: Path, name: str, number: int, **facts: object) -> Path:
    path = folder / f"{module._stem(name)}.{number}"
    path.write_text(json.dumps({"name": name, "host": "elsewhere", "process": 1, **facts}))
    return path


def test_a_silent_claim_from_elsewhere_expires_by_our_own_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    path = _foreign(tmp_path, "a", 0)
    os.utime(path, (1, 1))  # an hour of another clock means nothing
    claims = Claims(tmp_path, expiry=10.0)

    def is_mine() -> bool:
        with claims.taken("a") as mine:
            return mine

    assert not is_mine()
    now[0] += 9
    assert not is_mine()
    os.utime(path, (2, 2))  # a sign of life
    now[0] += 9
    assert not is_mine()
    now[0] += 9
    assert not is_mine()
    now[0] += 2
    with claims.taken("a") as mine:
        assert mine
        assert sorted(found.suffix for found in tmp_path.iterdir()) == [".0", ".1"]
    assert list(tmp_path.iterdir()) == []


def test_the_death_of_a_process_of_this_machine_is_seen_at_once(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    _foreign(tmp_path, "a", 0, host=module._host(), process=child)
    with Claims(tmp_path, expiry=1000.0).taken("a") as mine:
        assert mine
    _foreign(tmp_path, "a", 0, host=module._host(), process=os.getpid())
    with Claims(tmp_path, expiry=1000.0).taken("a") as mine:
        assert not mine


def test_a_claim_that_was_never_written_whole_expires_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    (tmp_path / f"{module._stem('a')}.0").write_text("{")
    claims = Claims(tmp_path, expiry=10.0)
    for wait, expected in ((0, False), (9, False), (2, True)):
        now[0] += wait
        with claims.taken("a") as mine:
            assert mine is expected


def test_a_living_holder_gives_signs(tmp_path: Path) -> None:
    with Claims(tmp_path, expiry=0.04).taken("a") as mine:
        assert mine
        (path,) = tmp_path.iterdir()
        first = path.stat().st_mtime_ns
        for _ in range(200):
            threading.Event().wait(0.01)
            if path.stat().st_mtime_ns > first:
                break
        assert path.stat().st_mtime_ns > first


def test_the_engine_waits_for_others_and_takes_over_from_the_dead(tmp_path: Path) -> None:
    done: set[str] = set()
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 2:
            done.add("b")  # somebody else finished it
        if len(naps) == 4:
            child = os.fork()
            if child == 0:
                os._exit(0)
            os.waitpid(child, 0)
            _foreign(tmp_path, "c", 0, host=module._host(), process=child)

    for name in ("b", "c"):
        _foreign(tmp_path, name, 0)
    worked: list[str] = []

    def work(name: str) -> None:
        worked.append(name)
        done.add(name)

    engine = SharedFolder(folder=tmp_path, expiry=1000.0, sleep=sleep)
    found = list(engine.run(["a", "b", "c"], work=work, finished=done.__contains__))
    assert found == ["a", "b", "c"]
    assert worked == ["a", "c"]
    assert naps == [0.5] * 4
    assert not tmp_path.exists()


def test_work_that_fails_gives_its_claim_back(tmp_path: Path) -> None:
    def work(name: str) -> None:
        raise OSError("full")

    engine = SharedFolder(folder=tmp_path / "claims")
    with pytest.raises(OSError, match="full"):
        list(engine.run(["a"], work=work, finished=lambda _: False))
    assert list((tmp_path / "claims").iterdir()) == []


def test_claims_must_expire(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="positive number of seconds"):
        Claims(tmp_path, expiry=0.0)
