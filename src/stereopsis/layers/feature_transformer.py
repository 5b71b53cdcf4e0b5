"""Transformers on feature maps: LoFTR's layer, linear attention, attention in (shifted) windows.

Sun et al., "LoFTR", CVPR 2021; Katharopoulos et al., "Transformers are RNNs", ICML 2020; Liu et al., "Swin
Transformer", ICCV 2021; Xu et al., "GMFlow", CVPR 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]

_DIFFERENT_REGION = -100.0


class FeatureTransformerLayer(nn.Module):
    """Tokens plus a normed message from other tokens.

    hidden: width of the perceptron that mixes tokens and message, or None for none; how query, key and
    value become the message is the caller's (`attend`).
    """

    def __init__(
        self, channels: int, *, hidden: int | None, activation: Literal["relu", "gelu"] = "relu"
    ) -> None:
        super().__init__()
        self.query = nn.Linear(channels, channels, bias=False)
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels, bias=False)
        self.merge = nn.Linear(channels, channels, bias=False)
        self.norm1 = nn.LayerNorm(channels)
        if hidden is not None:
            self.expand = nn.Linear(2 * channels, hidden, bias=False)
            self.reduce = nn.Linear(hidden, channels, bias=False)
            self.norm2 = nn.LayerNorm(channels)
        self.activation = F.relu if activation == "relu" else F.gelu
        self.mixes = hidden is not None

    def forward(
        self, tokens: Float[Tensor, "b *n c"], source: Float[Tensor, "b *m c"], attend: Attend
    ) -> Float[Tensor, "b *n c"]:
        message = attend(self.query(tokens), self.key(source), self.value(source))
        message = self.norm1(self.merge(message))
        if self.mixes:
            mixed = self.activation(self.expand(torch.cat([tokens, message], -1)))
            message = self.norm2(self.reduce(mixed))
        return tokens + message


def linear_attention(
    query: Float[Tensor, "b n c"], key: Float[Tensor, "b m c"], value: Float[Tensor, "b m c"], *, heads: int
) -> Float[Tensor, "b n c"]:
    """Attention whose cost is linear in tokens: phi(q) (phi(k) v) / (phi(q) sum phi(k)), phi = elu + 1.

    In float32: sums over all tokens overflow float16.
    """
    with torch.autocast(query.device.type, enabled=False):
        q, k, v = (x.float().unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
        q, k = F.elu(q) + 1, F.elu(k) + 1
        count = key.shape[1]  # divided out of the values and back in, as published
        summary = k.transpose(-1, -2) @ (v / count)
        total = (q @ k.sum(-2)[..., None]) + 1e-6
        return ((q @ summary) / total * count).transpose(1, 2).flatten(2)


def attention(
    query: Float[Tensor, "b n c"], key: Float[Tensor, "b m c"], value: Float[Tensor, "b m v"]
) -> Float[Tensor, "b n v"]:
    """Attention of one head in float32, as values may be pixels; scores by the root of the channels."""
    with torch.autocast(query.device.type, enabled=False):
        q, k, v = (x.float()[:, None] for x in (query, key, value))
        return F.scaled_dot_product_attention(q, k, v)[:, 0]


def window_attention(
    query: Float[Tensor, "b h w c"],
    key: Float[Tensor, "b h w c"],
    value: Float[Tensor, "b h w c"],
    *,
    splits: tuple[int, int],
    mask: Float[Tensor, "windows n n"] | None = None,
) -> Float[Tensor, "b h w c"]:
    """Attention of one head within windows, `splits` rows and columns of them.

    With a mask (see `shifted_window_mask`) windows are shifted by half their size, those at the border
    wrapping round.
    """
    height, width = query.shape[1:3]
    rows, columns = height // splits[0], width // splits[1]
    shift = _shift(height, width, splits) if mask is not None else (0, 0)

    def windows(x: Tensor) -> Tensor:
        x = x.roll((-shift[0], -shift[1]), (1, 2)) if mask is not None else x
        x = x.unflatten(2, (splits[1], columns)).unflatten(1, (splits[0], rows))
        return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)

    attended = F.scaled_dot_product_attention(windows(query), windows(key), windows(value), mask)
    merged = attended.unflatten(2, (rows, columns)).unflatten(1, splits).transpose(2, 3)
    merged = merged.flatten(3, 4).flatten(1, 2)
    return merged.roll(shift, (1, 2)) if mask is not None else merged


def shifted_window_mask(
    height: int, width: int, splits: tuple[int, int], *, device: torch.device
) -> Float[Tensor, "windows n n"]:
    """What to add to the scores in shifted windows: -100 between pixels that are no neighbours (Swin)."""
    shift = _shift(height, width, splits)
    rows = _regions(height, height // splits[0], shift[0], device)
    columns = _regions(width, width // splits[1], shift[1], device)
    regions = 3 * rows[:, None] + columns
    regions = regions.unflatten(1, (splits[1], -1)).unflatten(0, (splits[0], -1))
    regions = regions.transpose(1, 2).flatten(2).flatten(0, 1)
    different = regions[:, :, None] != regions[:, None]
    return different.float() * _DIFFERENT_REGION


def _shift(height: int, width: int, splits: tuple[int, int]) -> tuple[int, int]:
    return height // splits[0] // 2, width // splits[1] // 2


def _regions(length: int, window: int, shift: int, device: torch.device) -> Tensor:
    """0 before the last window, 1 in its part that stays, 2 in the part that wrapped round."""
    index = torch.arange(length, device=device)
    if shift == 0:
        return torch.zeros_like(index)
    return (index >= length - window).long() + (index >= length - shift).long()


def transformer_layer_rules(published: str, ours: str) -> list[tuple[str, str]]:
    """Renaming rules of a layer from its published name, an expression, to ours, which may use its groups."""
    parts = {
        "q_proj": "query",
        "k_proj": "key",
        "v_proj": "value",
        "mlp\\.0": "expand",
        "mlp\\.2": "reduce",
    }
    rules = [(rf"^{published}\.{old}\.", f"{ours}.{new}.") for old, new in parts.items()]
    return [*rules, (rf"^{published}\.(?=merge|norm)", f"{ours}.")]
