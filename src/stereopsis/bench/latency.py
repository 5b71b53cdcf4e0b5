"""Interleaved runs: every contender once, then all again, so that what slows the machine slows them alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from stereopsis.bench.contender import Contender
from stereopsis.bench.throughput import textured_pair


@dataclass(frozen=True, kw_only=True)
class Row:
    """Measured of one contender; times in seconds, memory in bytes.

    seconds, cpu_seconds: of each run, wall clock and processor; peak_bytes: resident, while running;
    imported_bytes: before the predictor was loaded; device_bytes: on an accelerator. parameters and
    multiply_adds are None where they cannot be counted. error: why there is nothing else.
    """

    contender: Contender
    runtime: str = ""
    seconds: tuple[float, ...] = ()
    cpu_seconds: tuple[float, ...] = ()
    load_seconds: float = 0.0
    peak_bytes: int = 0
    imported_bytes: int = 0
    device_bytes: int = 0
    parameters: int | None = None
    multiply_adds: int | None = None
    error: str = ""

    def quantile(self, share: float) -> float:
        """Of the wall-clock times, in seconds."""
        return float(np.quantile(self.seconds, share))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """size: (height, width); warmups and runs: of each contender; slow_above: seconds from which a
    contender makes one warm-up and `slow_runs` only."""

    size: tuple[int, int] = (480, 640)
    threads: int = 2
    warmups: int = 2
    runs: int = 10
    slow_above: float = 2.0
    slow_runs: int = 2


def measure(
    contenders: Sequence[Contender], plan: Plan, *, observe: Callable[[str], None] = lambda _: None
) -> list[Row]:
    """Every contender in a fresh process; a contender that fails gives a row that says why."""
    racers: list[Racer] = []
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "pair.npy"
        pair = textured_pair(plan.size)
        np.save(images, torch.stack([pair.left, pair.right]).numpy())
        try:
            for contender in contenders:
                observe(f"loading {contender.name} ({contender.runtime})")
                racers.append(Racer(contender, plan, images))
            return race(racers, plan, observe)
        finally:
            for racer in racers:
                racer.stop()


def race(racers: Sequence[Racer], plan: Plan, observe: Callable[[str], None]) -> list[Row]:
    """Warm-ups, then runs, everyone in turn; a slow one sits out most of them."""
    for k in range(plan.warmups):
        observe(f"warm-up {k + 1} of {plan.warmups}")
        for racer in racers:
            if k == 0 or not racer.slow:
                racer.warm_up()
    for k in range(plan.runs):
        observe(f"run {k + 1} of {plan.runs}")
        for racer in racers:
            if k < plan.slow_runs or not racer.slow:
                racer.run()
    return [racer.finish() for racer in racers]


@dataclass
class Racer:
    """A contender's process, and what it has answered so far."""

    contender: Contender
    plan: Plan
    images: Path
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    slow: bool = False

    def __post_init__(self) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "stereopsis.bench.worker",
                self.contender.to_json(),
                str(self.images),
                str(self.plan.threads),
            ],
            # Threads that spin while they wait take what others need: on a busy machine all rows suffer.
            env={**os.environ, "OMP_NUM_THREADS": str(self.plan.threads), "OMP_WAIT_POLICY": "PASSIVE"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.facts.update(self._answer())

    def warm_up(self) -> None:
        answer = self._told("run")
        self.slow = answer.get("seconds", 0.0) > self.plan.slow_above

    def run(self) -> None:
        answer = self._told("run")
        if "seconds" in answer:
            self.seconds.append(answer["seconds"])
            self.cpu_seconds.append(answer["cpu_seconds"])

    def finish(self) -> Row:
        self.facts.update(self._told("end"))
        self.facts.setdefault("error", "" if self.seconds else "no run was finished")
        return Row(
            contender=self.contender,
            seconds=tuple(self.seconds),
            cpu_seconds=tuple(self.cpu_seconds),
            **self.facts,
        )

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _told(self, order: str) -> dict[str, Any]:
        if "error" in self.facts:
            return {}
        assert self._process.stdin is not None
        try:
            print(order, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            self.facts["error"] = self._death()
            return {}
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        stream: IO[str] | None = self._process.stdout
        assert stream is not None
        line = stream.readline()
        facts = json.loads(line) if line else {"error": self._death()}
        if "error" in facts:
            self.facts["error"] = facts["error"]
        return facts

    def _death(self) -> str:
        code = self._process.wait()
        return f"its process ended with {code}" + (" (out of memory?)" if code == -9 else "")
