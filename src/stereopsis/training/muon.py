"""Muon (Jordan et al. 2024): momentum whose matrices are made orthogonal before they are a step.

Every direction of a layer's weights then learns at the same speed, however seldom it is needed. A
convolution's weights are a matrix of its outputs by everything else; biases, norms and layers of one
output are AdamW's. (torch.optim.Muon takes parameters of two dimensions only.)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adamw import adamw

_QUINTIC = (3.4445, -4.7750, 2.0315)
"""Jordan's, whose five steps bring singular values into about 0.7 to 1.2."""


class Muon(Optimizer):
    """Steps are as large as AdamW's at the same `lr` (Liu et al. 2025): 0.2 root mean square."""

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float,
        *,
        momentum: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; a closure gives the loss, as Lightning's does, and it is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            learning = [p for p in group["params"] if p.grad is not None]
            self._adamw([p for p in learning if not _is_matrix(p)], group)
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in filter(_is_matrix, learning):
                by_shape[parameter.shape].append(parameter)
            for alike in by_shape.values():
                self._orthogonal(alike, group)
        return loss

    def _orthogonal(self, alike: list[Tensor], group: dict[str, Any]) -> None:
        """One step of parameters of one shape, whose directions are made orthogonal together."""
        directions = []
        for parameter in alike:
            state, gradient = self.state[parameter], parameter.grad
            assert gradient is not None
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            momentum = state["momentum"].lerp_(gradient, 1 - group["momentum"])
            directions.append(torch.lerp(gradient, momentum, group["momentum"]).flatten(1))
        updates = orthogonalise(torch.stack(directions))
        rate = group["lr"] * 0.2 * max(updates.shape[-2:]) ** 0.5
        for parameter, update in zip(alike, updates, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.sub_(update.reshape(parameter.shape), alpha=rate)

    def _adamw(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        if not parameters:
            return
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros(())
                state["first"] = torch.zeros_like(parameter)
                state["second"] = torch.zeros_like(parameter)
        states = [self.state[parameter] for parameter in parameters]
        adamw(
            parameters,
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [state["first"] for state in states],
            [state["second"] for state in states],
            [],
            [state["step"] for state in states],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.ndim > 1 and len(parameter) > 1 and parameter[0].numel() > 1


def orthogonalise(matrices: Float[Tensor, "n r c"]) -> Float[Tensor, "n r c"]:
    """Matrices with the same singular vectors, and singular values near 1, by Newton-Schulz in bfloat16."""
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = (matrices if wide else matrices.mT).bfloat16()
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    a, b, c = _QUINTIC
    for _ in range(5):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return (x if wide else x.mT).to(matrices.dtype)
