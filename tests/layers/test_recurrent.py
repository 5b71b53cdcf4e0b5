"""Recurrent units against the published equations, written out with the published tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stereopsis.layers.recurrent import (
    ConvGRU,
    MotionEncoder,
    MultilevelGRU,
    SelectiveGRU,
    join_gates,
    pool,
    split_contexts,
)


def _published(prefix: str, inputs: int, kernel: int, hidden: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(kernel)
    state = {}
    for gate in ("convz", "convr", "convq"):
        shape = (hidden, hidden + inputs, kernel, kernel)
        state[f"{prefix}{gate}.weight"] = 0.2 * torch.randn(shape, generator=generator)
        state[f"{prefix}{gate}.bias"] = torch.randn(hidden, generator=generator)
    return state


def _gru(state: dict[str, Tensor], hidden: Tensor, inputs: Tensor, shares: list[Tensor]) -> Tensor:
    """The published equations; shares: what is added for z, r and q."""

    def conv(gate: str, state_part: Tensor, share: Tensor) -> Tensor:
        weight = state[f"{gate}.weight"]
        joined = torch.cat([state_part, inputs], 1)
        return F.conv2d(joined, weight, state[f"{gate}.bias"], padding=weight.shape[-1] // 2) + share

    z = torch.sigmoid(conv("convz", hidden, shares[0]))
    r = torch.sigmoid(conv("convr", hidden, shares[1]))
    q = torch.tanh(conv("convq", r * hidden, shares[2]))
    return (1 - z) * hidden + z * q


def test_gru_follows_the_published_equations() -> None:
    generator = torch.Generator().manual_seed(0)
    state = _published("x.", inputs=5, kernel=3)
    gru = ConvGRU(4, 5)
    gru.load_state_dict({k.removeprefix("x."): v for k, v in join_gates(state).items()})
    hidden = torch.randn(2, 4, 3, 6, generator=generator)
    first, second = torch.randn(2, 2, 3, 6, generator=generator), torch.randn(2, 3, 3, 6, generator=generator)
    shares = torch.randn(2, 12, 3, 6, generator=generator)
    plain = {k.removeprefix("x."): v for k, v in state.items()}
    expected = _gru(plain, hidden, torch.cat([first, second], 1), list(shares.split(4, 1)))
    torch.testing.assert_close(gru(hidden, shares, [first, second]), expected)


def test_selective_unit_is_the_published_one_with_the_context_among_its_inputs() -> None:
    generator = torch.Generator().manual_seed(1)
    small, large = (
        _published("u.small.", inputs=3 + 5, kernel=1),
        _published("u.large.", inputs=3 + 5, kernel=3),
    )
    unit = SelectiveGRU(4, 5, context=3)
    ours = split_contexts(join_gates(small | large), hidden=4, context=3)
    unit.load_state_dict({k.removeprefix("u."): v for k, v in ours.items()})
    hidden, inputs = (
        torch.randn(1, 4, 5, 6, generator=generator),
        torch.randn(1, 5, 5, 6, generator=generator),
    )
    context, attention = (
        torch.randn(1, 3, 5, 6, generator=generator),
        torch.rand(1, 1, 5, 6, generator=generator),
    )
    nothing = [torch.zeros(())] * 3
    joined = torch.cat([context, inputs], 1)
    parts = [
        _gru({k.split(".", 2)[2]: v for k, v in state.items()}, hidden, joined, nothing)
        for state in (small, large)
    ]
    expected = attention * parts[0] + (1 - attention) * parts[1]
    torch.testing.assert_close(unit(hidden, unit.prepare(context, attention), [inputs]), expected)


def test_half_a_gru_keeps_its_names() -> None:
    state = {"x.convz.weight": torch.zeros(1), "y.convr.bias": torch.zeros(1)}
    assert join_gates(state).keys() == state.keys()


class _Recorder(nn.Module):
    """Adds one to its state and remembers what it was given."""

    def __init__(self, hidden: int, inputs: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.given: list[list[Tensor]] = []

    def forward(self, hidden: Tensor, context: Tensor, inputs: list[Tensor]) -> Tensor:
        self.given.append(inputs)
        return hidden + 1


def test_levels_are_updated_coarse_to_fine_with_the_newest_neighbours() -> None:
    update = MultilevelGRU[Tensor](3, _Recorder, hidden=2, motion=3)
    fine, middle, coarse = (
        torch.zeros(1, 2, 8, 8),
        torch.full((1, 2, 4, 4), 10.0),
        torch.full((1, 2, 2, 2), 20.0),
    )
    motion = torch.ones(1, 3, 8, 8)
    states = update([fine, middle, coarse], [fine, fine, fine], motion)
    assert [float(state.mean()) for state in states] == [1, 11, 21]
    finest, second, third = (gru.given[0] for gru in update.grus)
    assert torch.equal(third[0], pool(middle))
    assert torch.equal(second[0], pool(fine))
    torch.testing.assert_close(second[1], torch.full((1, 2, 4, 4), 21.0))
    assert finest[0] is motion
    torch.testing.assert_close(finest[1], torch.full((1, 2, 8, 8), 11.0))
    assert [gru.inputs for gru in update.grus] == [5, 4, 2]
    states = update(states, [fine, fine, fine], finest=2)
    assert [float(state.mean()) for state in states] == [1, 11, 22]


def test_pooling_counts_padded_zeros() -> None:
    assert torch.allclose(pool(torch.ones(1, 1, 4, 4))[0, 0], torch.tensor([[4, 6], [6, 9.0]]) / 9)


def test_motion_ends_with_the_field_itself() -> None:
    field = torch.randn(1, 2, 4, 5)
    motion = MotionEncoder(7, outputs=16, field=2)(torch.randn(1, 7, 4, 5), field)
    assert motion.shape == (1, 16, 4, 5)
    assert torch.equal(motion[:, -2:], field)
