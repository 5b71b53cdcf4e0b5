"""Every network by its name: `register` on its class, `create`, and recognition of published tensors."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

import stereopsis.models
from stereopsis.models.base import Backbone, MonoModel, StateDict, StereoModel, load_strictly, replace_config

Network = TypeVar("Network", bound="type[StereoModel[Any, Any]] | type[MonoModel[Any]]")


@dataclass(frozen=True)
class Card:
    """What a user wants to know of a network before trusting it."""

    title: str
    paper: str
    repository: str
    code_licence: str
    weights_licence: str
    published: tuple[str, ...] = ()
    """Published figures, each with its protocol and source."""
    notes: tuple[str, ...] = ()
    """Deviations and kept quirks."""


@dataclass(frozen=True)
class Entry:
    name: str
    network: type[StereoModel[Any, Any]] | type[MonoModel[Any]]
    config: Any
    card: Card
    tiny: Mapping[str, object] = field(default_factory=dict)
    """Overrides that make the network small, for contract tests; empty where its widths are fixed."""


_entries: dict[str, Entry] = {}


def register(
    variants: Mapping[str, Any], *, card: Card, tiny: Mapping[str, object] | None = None
) -> Callable[[Network], Network]:
    """Class decorator: the variants of a network, registry name -> config."""

    def add(network: Network) -> Network:
        for name, config in variants.items():
            known = _entries.get(name)
            if known and known.network.__qualname__ != network.__qualname__:
                raise ValueError(f"the name {name!r} is registered twice")
            _entries[name] = Entry(name, network, config, card, tiny or {})
        return network

    return add


def _all_entries() -> dict[str, Entry]:
    for module in pkgutil.iter_modules(stereopsis.models.__path__):
        importlib.import_module(f"stereopsis.models.{module.name}")
    return _entries


_backbones: dict[str, type[Backbone]] = {}


def register_backbone(name: str) -> Callable[[type[Backbone]], type[Backbone]]:
    """Class decorator: the dense features of a network, for networks that put a head on them."""

    def add(backbone: type[Backbone]) -> type[Backbone]:
        known = _backbones.setdefault(name, backbone)
        if known.__qualname__ != backbone.__qualname__:
            raise ValueError(f"the backbone {name!r} is registered twice")
        return backbone

    return add


def backbone(name: str) -> type[Backbone]:
    """The backbone of that name; ValueError with the known names where there is none."""
    _all_entries()
    if name not in _backbones:
        raise ValueError(f"no backbone is called {name!r}: there are {', '.join(sorted(_backbones))}")
    return _backbones[name]


def list_models() -> list[str]:
    """Names of all networks, sorted."""
    return sorted(_all_entries())


def entry(name: str) -> Entry:
    """The entry of a name; ValueError with the nearest names where there is none."""
    entries = _all_entries()
    if name not in entries:
        near = difflib.get_close_matches(name, entries, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "stereopsis models lists all"
        raise ValueError(f"no network is called {name!r}: {hint}")
    return entries[name]


def create(name: str, **options: object) -> StereoModel[Any, Any] | MonoModel[Any]:
    """The network of that name with random weights; options change fields of its config.

    Raises ValueError for an unknown name or option, naming the nearest.
    """
    found = entry(name)
    return found.network(replace_config(found.config, options, name))


def name_of(model: StereoModel[Any, Any] | MonoModel[Any]) -> str:
    """The registry name whose config is nearest to the model's (options may differ)."""
    candidates = [e for e in _all_entries().values() if e.network is type(model)]
    if not candidates:
        raise ValueError(f"{type(model).__name__} is not a registered network")

    def shared_fields(candidate: Entry) -> int:
        return sum(getattr(model.config, key) == value for key, value in vars(candidate.config).items())

    return max(candidates, key=shared_fields).name


def model_from_official(
    state: Mapping[str, Tensor], **options: object
) -> StereoModel[Any, Any] | MonoModel[Any]:
    """The network that published tensors belong to, with these tensors.

    Raises ValueError where no network has such tensors, where they are mixed, missing or misshapen.
    """
    candidates = []
    for network in dict.fromkeys(e.network for e in _all_entries().values()):
        tensors = _without_prefixes(state, network.official_prefixes)
        config = network.recognise(tensors)
        if config is not None:
            candidates.append((network, config, tensors))
    if not candidates:
        raise ValueError(_unknown(state))
    # One that contains another is recognised as both: the one that knows more of the names is meant.
    alone = len(candidates) == 1
    network, config, tensors = candidates[0] if alone else max(candidates, key=lambda c: _shared(*c))
    model = network(replace_config(config, options, network.__name__))
    named = _named(network, tensors, name_of(model))
    if isinstance(model, StereoModel):
        named = model.without_unused(named)
    load_strictly(model, named, name_of(model))
    return model


def _named(
    network: type[StereoModel[Any, Any]] | type[MonoModel[Any]], tensors: Mapping[str, Tensor], name: str
) -> StateDict:
    """The tensors under our names; ValueError where those that are joined or split do not fit."""
    try:
        return network.from_official(tensors)
    except (RuntimeError, LookupError, TypeError) as error:
        raise ValueError(f"the tensors do not fit {name} ({' '.join(str(error).split())[:200]})") from error


def _shared(
    network: type[StereoModel[Any, Any]] | type[MonoModel[Any]], config: Any, tensors: Mapping[str, Tensor]
) -> int:
    """How many of the network's own names the tensors give."""
    with torch.device("meta"):
        own = network(config).state_dict().keys()
    try:
        return len(own & _named(network, tensors, network.__name__).keys())
    except ValueError:
        return 0


def _without_prefixes(state: Mapping[str, Tensor], prefixes: tuple[str, ...]) -> StateDict:
    for prefix in prefixes:
        if state and all(key.startswith(prefix) for key in state):
            return {key.removeprefix(prefix): value for key, value in state.items()}
    return dict(state)


def _unknown(state: Mapping[str, Tensor]) -> str:
    """What to say of tensors that no published network has."""
    if not state:
        return "it holds no tensors: save the whole model.state_dict()"
    first = f"no known network has these tensors (first: {', '.join(list(state)[:3])})"
    nearest, shared = _nearest(state)
    if shared == len(state):
        return (
            f"these are tensors of {nearest} under this package's names, and nothing says how it was built: "
            f"save them with stereopsis.io.weights.write_weights, whose header does"
        )
    return (
        f"{first}; the nearest is {nearest}, which shares {shared} of {len(state)} names" if shared else first
    )


def _nearest(state: Mapping[str, Tensor]) -> tuple[str, int]:
    scores = {
        name: _shared(e.network, e.config, _without_prefixes(state, e.network.official_prefixes))
        for name, e in _all_entries().items()
    }
    best = max(scores, key=lambda name: scores[name])
    return best, scores[best]
