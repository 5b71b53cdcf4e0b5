"""A network as a function from tensors to tensors: what exporters and compilers trace."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.confidence import confidence_of
from stereopsis.models.base import StereoModel


class TensorGraph(nn.Module):
    """Disparity, and confidence where one pass tells it: `(disparity, confidence)` or `(disparity,)`."""

    def __init__(self, model: StereoModel[Any, Any]) -> None:
        super().__init__()
        self.model = model

    def forward(self, left: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, ...]:
        output = self.model(left, right)
        confidence = confidence_of(output)
        return (output.disparity,) if confidence is None else (output.disparity, confidence)
