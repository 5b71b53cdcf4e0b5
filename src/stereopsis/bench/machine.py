"""The machine that figures belong to."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import torch

_PACKAGES = ("torch", "onnxruntime", "openvino", "opencv-python-headless", "numpy")
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """load_average: over 1, 5 and 15 minutes when described; above the number of cores, others were busy."""

    time: str
    processor: str
    cores: int
    features: tuple[str, ...]
    memory_bytes: int
    accelerator: str
    system: str
    python: str
    packages: dict[str, str]
    load_average: tuple[float, ...]

    @property
    def loaded(self) -> bool:
        """Whether others kept more than half a core busy when this was taken."""
        return bool(self.load_average) and self.load_average[0] > 0.5


def describe_machine() -> Machine:
    name, flags = _processor()
    return Machine(
        time=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        processor=name,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        features=tuple(flag for flag in _FLAGS if flag in flags),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        accelerator=torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        packages={name: version for name in _PACKAGES if (version := _version(name))},
        load_average=tuple(round(load, 2) for load in os.getloadavg()),
    )


def _processor() -> tuple[str, set[str]]:
    """Its name and its features, as far as the system tells."""
    facts = Path("/proc/cpuinfo")
    if not facts.exists():
        return platform.processor() or platform.machine(), set()
    fields: dict[str, str] = {}
    for line in facts.read_text().splitlines():
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    return fields.get("model name", platform.machine()), set(fields.get("flags", "").split())


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
