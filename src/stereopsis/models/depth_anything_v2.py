"""Depth Anything V2: relative inverse depth of one image, by a DINOv2 transformer and a DPT head.

Yang et al., "Depth Anything V2", NeurIPS 2024 (arXiv 2406.09414), as released in
DepthAnything/Depth-Anything-V2 (code and small weights: Apache-2.0; base and large weights: CC-BY-NC-4.0,
not for commercial use). Reads the published `.pth` files and the files of Hugging Face's
`DepthAnythingForDepthEstimation`.

Kept quirk: positions are resized by the factor (patches + 0.1) / 37. Hugging Face's implementation uses
patches / 37 (`position_offset=0`), and then gives slightly other maps from the same weights.
Deviation: images are resized by PyTorch's bicubic interpolation, which is OpenCV's to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stereopsis.layers.dpt import SIZES, SizeName, enlarge, head_rules, size_of, vit_rules
from stereopsis.layers.vit import PATCH
from stereopsis.models.base import IMAGENET_MEAN, IMAGENET_STD, MonoModel, StateDict, normalise, rename
from stereopsis.models.registry import Card, register
from stereopsis.structures import MonoOutput


@dataclass(frozen=True)
class DepthAnythingV2Config:
    encoder: SizeName = "large"
    input_size: int = 518
    """The image's shorter side as the network sees it, in pixels; sides become multiples of 14."""
    position_offset: float = 0.1
    """0.1 as published; 0 as in Hugging Face's implementation."""


_CARD = Card(
    title="Depth Anything V2",
    paper="Yang et al., Depth Anything V2, NeurIPS 2024, arXiv 2406.09414",
    repository="https://github.com/DepthAnything/Depth-Anything-V2",
    code_licence="Apache-2.0",
    weights_licence="small: Apache-2.0; base and large: CC-BY-NC-4.0 (no commercial use)",
    published=("DA-2K accuracy: small 95.3 %, base 97.0 %, large 97.1 % (paper)",),
    notes=(
        "relative inverse depth: larger is nearer, unit and offset are unknown",
        "positions are resized by (patches + 0.1) / 37 as published, not as in Hugging Face's implementation",
    ),
)


@register(
    {
        "depth-anything-v2-small": DepthAnythingV2Config(encoder="small"),
        "depth-anything-v2-base": DepthAnythingV2Config(encoder="base"),
        "depth-anything-v2-large": DepthAnythingV2Config(encoder="large"),
    },
    card=_CARD,
    tiny={"encoder": "tiny", "input_size": 56},
)
class DepthAnythingV2(MonoModel[DepthAnythingV2Config]):
    def __init__(self, config: DepthAnythingV2Config) -> None:
        super().__init__(config)
        size = SIZES[config.encoder]
        self.encoder = size.encoder(position_offset=config.position_offset)
        self.head = size.head()

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> MonoOutput:
        height, width = image.shape[-2:]
        depth = self.head(self.encoder(self.prepare(image)))
        return MonoOutput(inverse_depth=enlarge(depth, (height, width))[:, 0])

    def prepare(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 hn wn"]:
        """The image at the size that the transformer sees, normalised."""
        height, width = image.shape[-2:]
        factor = self.config.input_size / min(height, width)
        size = (self._fitted(height * factor), self._fitted(width * factor))
        if size != (height, width):
            image = F.interpolate(image, size, mode="bicubic", align_corners=False)
        return normalise(image, IMAGENET_MEAN, IMAGENET_STD)

    def _fitted(self, side: float) -> int:
        """The nearest multiple of 14, or the next above where that is under the input size."""
        nearest = round(side / PATCH) * PATCH
        return nearest if nearest >= self.config.input_size else math.ceil(side / PATCH) * PATCH

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> DepthAnythingV2Config | None:
        published = "pretrained.cls_token" in state and "depth_head.scratch.layer1_rn.weight" in state
        hugging_face = "backbone.embeddings.cls_token" in state and "neck.convs.0.weight" in state
        if published:
            encoder = size_of(state["pretrained.cls_token"], state["depth_head.scratch.layer1_rn.weight"])
        elif hugging_face:
            encoder = size_of(state["backbone.embeddings.cls_token"], state["neck.convs.0.weight"])
        else:
            return None
        return DepthAnythingV2Config(encoder=encoder) if encoder is not None else None

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> StateDict:
        if "backbone.embeddings.cls_token" in state:
            state = _from_hugging_face(state)
        return rename(state, [*vit_rules("pretrained.", "encoder."), *head_rules("depth_head.", "head.")])


def _from_hugging_face(state: Mapping[str, Tensor]) -> StateDict:
    """Hugging Face's names as the published ones; query, key and value of a block become one tensor."""
    renamed = rename(state, _HUGGING_FACE_NAMES)
    joined: StateDict = {}
    for name, tensor in renamed.items():
        if ".attn.q." in name:
            parts = [renamed.get(name.replace(".attn.q.", f".attn.{part}.")) for part in "qkv"]
            known = [part for part in parts if part is not None]
            joined[name.replace(".attn.q.", ".attn.qkv.")] = torch.cat(known)
        elif ".attn.k." not in name and ".attn.v." not in name:
            joined[name] = tensor
    return joined


_LAYER = r"^backbone\.encoder\.layer\.(\d+)"
_HUGGING_FACE_NAMES = (
    (r"^backbone\.embeddings\.mask_token$", "pretrained.mask_token"),
    (r"^backbone\.embeddings\.cls_token$", "pretrained.cls_token"),
    (r"^backbone\.embeddings\.position_embeddings$", "pretrained.pos_embed"),
    (r"^backbone\.embeddings\.patch_embeddings\.projection\.", "pretrained.patch_embed.proj."),
    (r"^backbone\.layernorm\.", "pretrained.norm."),
    (
        rf"{_LAYER}\.attention\.(?:attention\.)?(q|k|v)(?:uery|ey|alue|_proj)\.",
        r"pretrained.blocks.\1.attn.\2.",
    ),
    (rf"{_LAYER}\.attention\.(?:output\.dense|o_proj)\.", r"pretrained.blocks.\1.attn.proj."),
    (rf"{_LAYER}\.layer_scale(\d)\.lambda1$", r"pretrained.blocks.\1.ls\2.gamma"),
    (rf"{_LAYER}\.", r"pretrained.blocks.\1."),
    (r"^neck\.reassemble_stage\.layers\.(\d)\.projection\.", r"depth_head.projects.\1."),
    (r"^neck\.reassemble_stage\.layers\.(\d)\.resize\.", r"depth_head.resize_layers.\1."),
    (r"^neck\.convs\.(\d)\.", lambda m: f"depth_head.scratch.layer{int(m[1]) + 1}_rn."),
    (r"^neck\.fusion_stage\.layers\.(\d)\.", lambda m: f"depth_head.scratch.refinenet{4 - int(m[1])}."),
    (r"\.residual_layer(\d)\.convolution(\d)\.", r".resConfUnit\1.conv\2."),
    (r"^(depth_head\.scratch\.refinenet\d)\.projection\.", r"\1.out_conv."),
    (r"^head\.conv1\.", "depth_head.scratch.output_conv1."),
    (r"^head\.conv2\.", "depth_head.scratch.output_conv2.0."),
    (r"^head\.conv3\.", "depth_head.scratch.output_conv2.2."),
)
