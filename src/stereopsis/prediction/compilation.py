"""torch.compile, kept from what it gets wrong on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def compiler_options() -> dict[str, str | int | bool | Callable[..., Any]]:
    """Options of torch.compile under which compiled kernels compute what plain ones do.

    With 512-bit vectors PyTorch 2.13 turns bfloat16 maps around in a way that GCC 12 at -O3 translates
    wrongly (its superword-level vectoriser does): gradients of a network whose maps lie channels last were
    stray memory, at times NaN, while its output was right. With 256-bit vectors it does not.
    """
    return {"cpp.simdlen": 256} if torch.backends.cpu.get_cpu_capability() == "AVX512" else {}
