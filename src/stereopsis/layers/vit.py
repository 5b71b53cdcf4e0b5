"""The vision transformer of DINOv2 (Oquab et al., arXiv 2304.07193), as a source of dense features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

PATCH = 14
_TRAINED_GRID = 37  # patches a side of the images that its positions were trained for


class Attention(nn.Module):
    """Multi-head self-attention over all tokens."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels)
        self.heads = heads

    def forward(self, tokens: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        q, k, v = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.project(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and a two-layer perceptron, each normed before and scaled per channel after."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attention = Attention(channels, heads)
        self.scale1 = nn.Parameter(torch.ones(channels))
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.expand = nn.Linear(channels, 4 * channels)
        self.reduce = nn.Linear(4 * channels, channels)
        self.scale2 = nn.Parameter(torch.ones(channels))

    def forward(self, tokens: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        tokens = tokens + self.scale1 * self.attention(self.norm1(tokens))
        return tokens + self.scale2 * self.reduce(F.gelu(self.expand(self.norm2(tokens))))


class VisionTransformer(nn.Module):
    """Images of any whole number of 14-pixel patches to the normed outputs of the blocks in `taps`.

    position_offset: positions are resized by the factor (patches + offset) / 37, where the image has not
    37 patches a side: 0.1 in the original, 0 in the transformers package.
    """

    def __init__(
        self,
        *,
        channels: int,
        blocks: int,
        heads: int,
        taps: tuple[int, ...],
        position_offset: float = 0.1,
    ) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, channels, PATCH, PATCH)
        self.class_token = nn.Parameter(torch.zeros(1, 1, channels))
        self.mask_token = nn.Parameter(torch.zeros(1, channels))  # of its training; nothing reads it
        self.positions = nn.Parameter(torch.zeros(1, 1 + _TRAINED_GRID**2, channels))
        self.blocks = nn.ModuleList(Block(channels, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.taps = taps
        self.position_offset = position_offset
        nn.init.trunc_normal_(self.positions, std=0.02)
        nn.init.normal_(self.class_token, std=1e-6)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b c hp wp"], ...]:
        """image: as the weights expect it, normalised. Raises ValueError for a size of no whole patches."""
        height, width = image.shape[-2:]
        if height % PATCH or width % PATCH:
            raise ValueError(f"the image's sides must be multiples of {PATCH}, they are {width}x{height}")
        grid = (height // PATCH, width // PATCH)
        tokens = self.embed(image)
        tapped = []
        for k, block in enumerate(self.blocks):
            tokens = block(tokens)
            if k in self.taps:
                tapped.append(self.norm(tokens)[:, 1:].transpose(1, 2).unflatten(-1, grid))
        return tuple(tapped)

    def embed(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n c"]:
        """The class token and the patches row by row, each with its position."""
        patches = self.patch_embedding(image)
        height, width = patches.shape[-2:]
        tokens = torch.cat(
            [self.class_token.expand(len(image), -1, -1), patches.flatten(2).transpose(1, 2)], 1
        )
        return tokens + self._positions_of(height, width)

    def _positions_of(self, height: int, width: int) -> Float[Tensor, "1 n c"]:
        if height == width == _TRAINED_GRID:
            return self.positions
        trained = self.positions[:, 1:].transpose(1, 2).unflatten(-1, (_TRAINED_GRID, _TRAINED_GRID)).float()
        if self.position_offset:
            factors = tuple((side + self.position_offset) / _TRAINED_GRID for side in (height, width))
            resized = F.interpolate(
                trained, scale_factor=factors, mode="bicubic", recompute_scale_factor=False
            )
        else:
            resized = F.interpolate(trained, (height, width), mode="bicubic", align_corners=False)
        resized = resized.flatten(2).transpose(1, 2).to(self.positions.dtype)
        return torch.cat([self.positions[:, :1], resized], 1)
