"""The recurrent update of one branch, alone or seeing where both branches err."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.recurrent import ConvGRU, DeltaHead, MotionEncoder, MultilevelGRU


class Seen(NamedTuple):
    """A branch's matching values (and flaw) at its disparity, and that disparity."""

    values: Float[Tensor, "b k h w"]
    field: Float[Tensor, "b 1 h w"]


def motion_encoder(values: int, *, outputs: int, width: int) -> MotionEncoder:
    return MotionEncoder(values, outputs=outputs, value_widths=(width, width), field_widths=(width, width))


class MixedMotionEncoder(nn.Module):
    """What a branch sees beside what the other sees, half of the hidden channels each."""

    def __init__(self, values: int, *, hidden: int) -> None:
        super().__init__()
        self.own = motion_encoder(values, outputs=hidden // 2, width=hidden // 2)
        self.other = motion_encoder(values, outputs=hidden // 2, width=hidden // 2)

    def forward(self, own: Seen, other: Seen) -> Float[Tensor, "b c h w"]:
        return torch.cat([self.own(*own), self.other(*other)], 1)


class UpdateBlock(nn.Module):
    """Three levels of GRUs on a motion encoder's features, and what they say."""

    def __init__(self, motion: MotionEncoder | MixedMotionEncoder, *, hidden: int) -> None:
        super().__init__()
        self.motion = motion
        self.gru = MultilevelGRU[Tensor](3, ConvGRU, hidden=hidden, motion=hidden)
        self.delta_head = DeltaHead(hidden, 2 * hidden)
        self.mask_features = nn.Sequential(nn.Conv2d(hidden, 32, 3, padding=1), nn.ReLU(inplace=True))

    def forward(
        self, states: Sequence[Tensor], contexts: Sequence[Tensor], *seen: Seen | Tensor
    ) -> tuple[list[Tensor], Float[Tensor, "b h w"]]:
        """The new states and the disparity's change; seen: what the motion encoder takes."""
        updated = self.gru(states, contexts, self.motion(*seen))
        return updated, self.delta_head(updated[0])[:, 0]


def update_rules(published: str, ours: str) -> list[tuple[str, str]]:
    """Renaming rules of a block; those of the mixed ones name the other branch's half `_mono`."""
    rules = []
    mixed = "_mix_" in published
    for suffix, half in (("_mono", "other."), ("", "own." if mixed else "")):
        rules += [
            (rf"^{published}\.encoder\.convc(\d){suffix}\.", rf"{ours}.motion.{half}value\1."),
            (rf"^{published}\.encoder\.convd(\d){suffix}\.", rf"{ours}.motion.{half}field\1."),
            (rf"^{published}\.encoder\.conv{suffix}\.", f"{ours}.motion.{half}merge."),
        ]
    grus = {"gru04": "0", "gru08": "1", "gru16": "2"}
    rules += [(rf"^{published}\.{old}\.", f"{ours}.gru.grus.{new}.") for old, new in grus.items()]
    return [
        *rules,
        (rf"^{published}\.disp_head\.", f"{ours}.delta_head."),
        (rf"^{published}\.mask_feat_4\.", f"{ours}.mask_features."),
    ]
