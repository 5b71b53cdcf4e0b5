"""Networks are found from tensors, the right one of several, and refused in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.models import registry
from stereopsis.models.base import StateDict, StereoModel, rename
from stereopsis.models.registry import Card, Entry, create, model_from_official
from stereopsis.structures import StereoOutput

CARD = Card("Toy", "a paper", "owner/toy", "MIT", "MIT")


@dataclass(frozen=True)
class ToyConfig:
    width: int = 2


class Small(StereoModel[ToyConfig, StereoOutput]):
    """One convolution, published as `base`."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.base = nn.Conv2d(3, config.width, 1)

    def forward(self, left: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"]) -> StereoOutput:
        return StereoOutput(self.base(left).mean(1))

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> ToyConfig | None:
        return ToyConfig() if "toy.base.weight" in state else None

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> StateDict:
        named = rename(state, [(r"^toy\.", "")])
        torch.cat([named["base.weight"], torch.zeros(2, 3, 1, 1)])  # as those do that join tensors
        return named


class Large(StereoModel[ToyConfig, StereoOutput]):
    """The same within a larger one."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.base = nn.Conv2d(3, config.width, 1)
        self.more = nn.Conv2d(3, config.width, 1)

    def forward(self, left: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"]) -> StereoOutput:
        return StereoOutput((self.base(left) + self.more(right)).mean(1))

    recognise = Small.recognise

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> StateDict:
        return rename(state, [(r"^toy\.", "")])


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {
        "toy-small": Entry("toy-small", Small, ToyConfig(), CARD),
        "toy-large": Entry("toy-large", Large, ToyConfig(), CARD),
    }
    monkeypatch.setattr(registry, "_all_entries", lambda: entries)


def _published(network: type[StereoModel]) -> dict[str, Tensor]:
    return {f"toy.{name}": tensor for name, tensor in network(ToyConfig()).state_dict().items()}


@pytest.mark.parametrize("network", [Small, Large])
def test_of_two_that_know_the_tensors_the_one_that_knows_more_is_meant(network: type[StereoModel]) -> None:
    published = _published(network)
    model = model_from_official(published)
    assert type(model) is network
    assert torch.equal(model.state_dict()["base.weight"], published["toy.base.weight"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"toy.base.bias": None}, "1 missing: base.bias"),
        ({"toy.strange": torch.ones(1)}, "1 not known to it: strange"),
        ({"toy.base.bias": torch.ones(3)}, r"1 of another shape: base.bias is \[3\]"),
        ({"toy.base.weight": torch.ones(2, 2)}, "do not fit"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(change: dict[str, Tensor | None], said: str) -> None:
    changed = {**_published(Small), **change}
    state = {name: tensor for name, tensor in changed.items() if tensor is not None}
    with pytest.raises(ValueError, match=said):
        model_from_official(state)


def test_tensors_of_no_network_are_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="the nearest is toy-large, which shares 2 of 3 names"):
        model_from_official({"more.weight": torch.ones(1), "more.bias": torch.ones(1), "x": torch.ones(1)})


def test_tensors_under_our_own_names_are_told_how_to_be_saved() -> None:
    with pytest.raises(ValueError, match=r"tensors of toy-large under this package's names.*write_weights"):
        model_from_official(Large(ToyConfig()).state_dict())


def test_of_tensors_that_share_no_name_none_is_the_nearest() -> None:
    with pytest.raises(ValueError, match="no known network") as caught:
        model_from_official({"x": torch.ones(1)})
    assert "nearest" not in str(caught.value)
    with pytest.raises(ValueError, match="holds no tensors"):
        model_from_official({})


def test_unknown_names_and_options_are_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean toy-small"):
        create("toy-smal")
    with pytest.raises(ValueError, match="did you mean width"):
        create("toy-small", widht=3)
