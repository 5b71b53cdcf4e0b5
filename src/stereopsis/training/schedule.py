"""Optimisers and learning-rate schedules of the published recipes, by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, Literal

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, MultiStepLR, OneCycleLR, StepLR

from stereopsis.training.config import OptimizerSettings
from stereopsis.training.muon import Muon


def build_optimizer(model: nn.Module, settings: OptimizerSettings) -> Optimizer:
    """The optimiser over the parameters that learn; ValueError for an unknown name or prefix."""
    groups = _groups(model, settings)
    rate, decay = settings.lr, settings.weight_decay
    betas = (settings.betas[0], settings.betas[1])
    builders: dict[str, Callable[[], Optimizer]] = {
        "adam": lambda: Adam(groups, rate, betas=betas, eps=settings.eps, weight_decay=decay),
        "adamw": lambda: AdamW(groups, rate, betas=betas, eps=settings.eps, weight_decay=decay),
        "muon": lambda: Muon(
            groups, rate, momentum=settings.momentum, betas=betas, eps=settings.eps, weight_decay=decay
        ),
        "rmsprop": lambda: RMSprop(groups, rate, weight_decay=decay, momentum=settings.momentum),
        "sgd": lambda: SGD(groups, rate, weight_decay=decay, momentum=settings.momentum),
    }
    return _named(builders, settings.name, "optimizer.name")()


def _groups(model: nn.Module, settings: OptimizerSettings) -> list[dict[str, Any]]:
    """Parameter groups by the longest matching prefix in `rates` (`*` stands for anything); 0 freezes."""
    groups: dict[float, list[nn.Parameter]] = {}
    unused = set(settings.rates)
    for name, parameter in model.named_parameters():
        prefixes = [prefix for prefix in settings.rates if fnmatchcase(name, f"{prefix}*")]
        unused.difference_update(prefixes)
        factor = settings.rates[max(prefixes, key=len)] if prefixes else 1.0
        if factor == 0:
            parameter.requires_grad_(False)
        if parameter.requires_grad:
            groups.setdefault(factor, []).append(parameter)
    if unused:
        raise ValueError(f"optimizer.rates: no parameter's name begins with {', '.join(sorted(unused))}")
    return [{"params": chosen, "lr": settings.lr * factor} for factor, chosen in groups.items()]


def build_schedule(optimizer: Optimizer, settings: OptimizerSettings, steps: int) -> LRScheduler:
    """The schedule, stepped once an optimiser step."""
    builders: dict[str, Callable[[], LRScheduler]] = {
        "constant": lambda: LambdaLR(optimizer, lambda _: 1.0),
        "steps": lambda: MultiStepLR(optimizer, settings.milestones, settings.gamma),
        "exponential": lambda: StepLR(optimizer, max(1, settings.every), settings.gamma),
        "one-cycle": lambda: _one_cycle(optimizer, settings, steps, "linear"),
        "one-cycle-cosine": lambda: _one_cycle(optimizer, settings, steps, "cos"),
        "warmup-cosine": lambda: LambdaLR(optimizer, _warmup_cosine(settings, steps)),
        "trapezoid": lambda: LambdaLR(optimizer, _trapezoid(settings, steps)),
    }
    return _named(builders, settings.schedule, "optimizer.schedule")()


def _one_cycle(
    optimizer: Optimizer, settings: OptimizerSettings, steps: int, anneal: Literal["linear", "cos"]
) -> LRScheduler:
    """PyTorch's, with its start at 1/25 and its end at 1/250,000 of the rate."""
    return OneCycleLR(
        optimizer,
        [group["lr"] for group in optimizer.param_groups],
        total_steps=steps + settings.extra_steps,
        pct_start=settings.warmup,
        cycle_momentum=False,
        anneal_strategy=anneal,
    )


def _warmup_cosine(settings: OptimizerSettings, steps: int) -> Callable[[int], float]:
    climb = max(1, round(settings.warmup * steps))

    def factor(step: int) -> float:
        if step < climb:
            return (step + 1) / climb
        done = min(1.0, (step - climb) / max(1, steps - climb))
        return settings.final + (1 - settings.final) * 0.5 * (1 + math.cos(math.pi * done))

    return factor


def _trapezoid(settings: OptimizerSettings, steps: int) -> Callable[[int], float]:
    """Linear from `final` to 1, 1, linear back to `final`."""
    climb, fall = settings.warmup * steps, settings.hold * steps

    def factor(step: int) -> float:
        rising = step / climb if climb else 1.0
        falling = (steps - step) / (steps - fall) if fall < steps else 1.0
        return settings.final + (1 - settings.final) * max(0.0, min(1.0, rising, falling))

    return factor


def _named(builders: dict[str, Callable[[], Any]], name: str, key: str) -> Callable[[], Any]:
    if name not in builders:
        raise ValueError(f"{key} must be one of {', '.join(builders)}, not {name!r}")
    return builders[name]
