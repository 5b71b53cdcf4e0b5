"""Which pair comes when is a function of the seed and a counter alone."""

from __future__ import annotations

from collections import Counter as Tally

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from stereopsis.structures import SceneInfo, StereoPair, StereoSample
from stereopsis.training.order import Counter, Mixture


class Numbered(Dataset[StereoSample]):
    """Samples that know their index."""

    def __init__(self, name: str, length: int) -> None:
        self.name = name
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> StereoSample:
        image = torch.full((3, 2, 2), index / 1000)
        return StereoSample(
            StereoPair(image, image),
            torch.full((2, 2), float(index)),
            torch.ones(2, 2, dtype=torch.bool),
            info=(SceneInfo(name=self.name),),
        )


def _with_draw(sample: StereoSample, rng: np.random.Generator) -> StereoSample:
    return sample.map(lambda x: x + rng.random() if x.is_floating_point() else x)


def _mixture(lengths: list[int], weights: list[float], seed: int = 0) -> Mixture:
    sources = [Numbered(f"source{i}", length) for i, length in enumerate(lengths)]
    return Mixture(sources, weights, seed=seed, transforms=[_with_draw] * len(sources))


def test_every_pair_comes_once_an_epoch_in_a_new_order() -> None:
    mixture = _mixture([7], [1.0])
    epochs = [[mixture.locate(k)[1] for k in range(e * 7, e * 7 + 7)] for e in range(5)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 5


def test_sources_come_in_proportion_to_their_weights_and_without_repetition() -> None:
    mixture = _mixture([500, 40], [3.0, 1.0])
    located = [mixture.locate(k) for k in range(2000)]
    assert Tally(source for source, _ in located) == {0: 1500, 1: 500}
    second = [index for source, index in located if source == 1]
    assert all(sorted(second[e * 40 : e * 40 + 40]) == list(range(40)) for e in range(12))


def test_every_source_has_its_own_transform() -> None:
    sources = [Numbered("first", 3), Numbered("second", 3)]
    transforms = [lambda sample, _rng, k=k: sample.map(lambda x: torch.full_like(x, k)) for k in range(2)]
    mixture = Mixture(sources, [1.0, 1.0], seed=0, transforms=transforms)
    for k in range(12):
        assert float(mixture[k].disparity[0, 0]) == mixture.locate(k)[0]
    with pytest.raises(ValueError, match="transform"):
        Mixture(sources, [1.0, 1.0], seed=0, transforms=transforms[:1])


def test_an_item_is_the_same_whenever_it_is_asked_for() -> None:
    first = _mixture([7, 5], [1.0, 2.0])[123].disparity
    again = _mixture([7, 5], [1.0, 2.0])[123].disparity
    assert torch.equal(first, again)
    assert not torch.equal(first, _mixture([7, 5], [1.0, 2.0], seed=1)[123].disparity)


def test_processes_share_a_step_and_a_resumed_run_goes_on_where_it_stopped() -> None:
    whole = list(Counter(first_step=0, steps=6, batch=4))
    shares = [list(Counter(first_step=0, steps=6, batch=2, rank=r, processes=2)) for r in (0, 1)]
    merged = [k for step in range(6) for share in shares for k in share[step * 2 : step * 2 + 2]]
    assert merged == whole
    assert list(Counter(first_step=4, steps=6, batch=4)) == whole[16:]


@pytest.mark.parametrize(("lengths", "weights"), [([0], [1.0]), ([3], [0.0]), ([3], [-1.0])])
def test_empty_sources_and_weights_without_meaning_are_refused(
    lengths: list[int], weights: list[float]
) -> None:
    with pytest.raises(ValueError, match=r"sources?"):
        _mixture(lengths, weights)
