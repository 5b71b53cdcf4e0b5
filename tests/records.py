"""Comparing records of tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor

from stereopsis.structures import TensorRecord


def records_equal(first: TensorRecord, second: TensorRecord) -> bool:
    """True where two records hold equal tensors, field by field (`==` would compare tensors elementwise)."""

    def tensors(value: Any) -> Iterable[Tensor]:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, TensorRecord):
            for f in dataclasses.fields(cast(Any, value)):
                yield from tensors(getattr(value, f.name))
        elif isinstance(value, tuple):
            for item in value:
                yield from tensors(item)

    ours, theirs = list(tensors(first)), list(tensors(second))
    return len(ours) == len(theirs) and all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
