"""SMD-Nets: a head that is asked for a mixture of disparities at any position, on a stereo backbone.

Tosi et al., "SMD-Nets: Stereo Mixture Density Networks", CVPR 2021 (arXiv 2104.03866), as released in
fabiotosi92/SMD-Nets (code and weights: MIT), on PSMNet, HSMNet or Stereodepth. At each position features
are interpolated from the backbone's maps and a small network tells a bimodal Laplacian distribution (or
a unimodal one, or a disparity alone), so that foreground and background at an edge need no compromise,
and the disparity can be read at any resolution.

Kept quirks of the release:
- images enter in BGR, 0..255, without normalisation;
- positions are scaled as with aligned corners and sampled as without, so that the outermost points mix
  with zeros outside the maps, and a frame's scale moves positions by a fraction of a pixel;
- the entropy that measures uncertainty integrates its end points wrongly (see `layers.mixture`).

Deviations: the tensors that the released files hold and never use are left out (heads of the backbones,
ResNet's classifier); the unimodal scale is cropped like the disparity.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.layers.mixture import first_is_mode
from stereopsis.models.base import Padding, StateDict, StereoModel, rename
from stereopsis.models.registry import Card, backbone, register
from stereopsis.structures import Mixture, MixtureOutput, TensorRecord, luma

Representation = Literal["standard", "unimodal", "bimodal"]
_OUTPUTS: dict[Representation, int] = {"standard": 1, "unimodal": 2, "bimodal": 5}
_REPRESENTATIONS: dict[int, Representation] = {n: name for name, n in _OUTPUTS.items()}
_POINTS = 4096
"""Positions that pass through the head at once: their activations stay in a CPU's cache."""
_TRAINING_STEP = 4


@dataclass(frozen=True)
class SMDConfig:
    backbone: Literal["psmnet", "hsmnet", "stereodepth"] = "psmnet"
    representation: Representation = "bimodal"
    """What the head tells: one disparity, a Laplacian, or a mixture of two."""
    max_disparity: int = 256
    """In pixels of the images that the backbone sees."""
    active: bool = False
    """Images of one channel, for projected patterns (Stereodepth only)."""
    sine: bool = True
    """The head's activations: sines, or leaky ReLU (published option no_sine)."""
    residual: bool = True
    """The features enter every layer of the head, not the first alone (published option no_residual)."""
    image_scale: float = 1.0
    """The backbone sees images reduced by this (UnrealStereo4K: 0.25); the disparity is not reduced."""
    head: tuple[int, ...] = (1024, 512, 256, 128)
    """Widths of the head's hidden layers."""
    width: int | None = None
    """The backbone's base width; None is the published one."""

    def __post_init__(self) -> None:
        if self.representation not in get_args(Representation):
            raise ValueError(
                f"representation must be one of {', '.join(_OUTPUTS)}, it is {self.representation!r}"
            )
        if self.active and self.backbone != "stereodepth":
            raise ValueError(f"active images need the backbone stereodepth, not {self.backbone}")
        if not 0 < self.image_scale <= 1:
            raise ValueError(f"image_scale must be above 0 and at most 1, it is {self.image_scale}")


_CARD = Card(
    title="SMD-Nets",
    paper="Tosi et al., SMD-Nets: Stereo Mixture Density Networks, CVPR 2021, arXiv 2104.03866",
    repository="https://github.com/fabiotosi92/SMD-Nets",
    code_licence="MIT",
    weights_licence="MIT",
    published=(
        "the repository gives no figures; the paper's tables compare soft edge errors on UnrealStereo4K, "
        "where the bimodal head is clearly below the standard ones",
    ),
    notes=(
        "released weights: PSMNet bimodal (UnrealStereo4K; KITTI), HSMNet bimodal (UnrealStereo4K)",
        "of UnrealStereo4K the released networks see images reduced to a quarter: scale them, or load "
        "with image_scale=0.25",
        "whether a head has sines or leaky ReLUs cannot be told from its tensors: sine=False where needed",
    ),
)


@register(
    {
        "smd-psmnet": SMDConfig(),
        "smd-hsmnet": SMDConfig(backbone="hsmnet"),
        "smd-stereodepth": SMDConfig(backbone="stereodepth"),
    },
    card=_CARD,
    tiny={"max_disparity": 128, "width": 4, "head": (32, 16)},
)
class SMDNet(StereoModel[SMDConfig, MixtureOutput]):
    def __init__(self, config: SMDConfig) -> None:
        super().__init__(config)
        width = {} if config.width is None else {"width": config.width}
        self.backbone = backbone(config.backbone)(
            max_disparity=config.max_disparity, in_channels=1 if config.active else 3, **width
        )
        self.head = Head(
            sum(self.backbone.channels),
            config.head,
            _OUTPUTS[config.representation],
            sine=config.sine,
            residual=config.residual,
        )

    @property
    def padding(self) -> Padding:
        multiple, smallest = (round(n / self.config.image_scale) for n in (64, self.backbone.smallest))
        return Padding(
            multiple=(multiple, multiple), vertical="top", horizontal="right", minimum=(smallest, smallest)
        )

    def forward(self, left: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"]) -> MixtureOutput:
        """In training, where the loss queries the field, the disparity is read at every fourth pixel only."""
        field = self.describe(left, right)
        height, width = left.shape[-2:]
        if self.training:
            rows, columns = (range(0, n, _TRAINING_STEP) for n in (height, width))
            coarse = _read(field, rows, columns).disparity
            disparity = coarse.repeat_interleave(_TRAINING_STEP, -1).repeat_interleave(_TRAINING_STEP, -2)
            return MixtureOutput(disparity=disparity[..., :height, :width], field=field)
        grid = _read(field, range(height), range(width))
        return MixtureOutput(
            disparity=grid.disparity,
            pi=grid.pi,
            mu=grid.mu.movedim(-1, -3),
            b=None if grid.b is None else grid.b.movedim(-1, -3),
            field=field,
        )

    def describe(self, left: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"]) -> DisparityField:
        """What the head needs to know of a pair to answer queries."""
        left, right = (self._prepare(image) for image in (left, right))
        return DisparityField(
            maps=tuple(self.backbone(left, right)),
            frame=(left.shape[-2], left.shape[-1]),
            image_scale=self.config.image_scale,
            limit=float(self.config.max_disparity),
            representation=self.config.representation,
            head=self.head,
        )

    def _prepare(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c hs ws"]:
        image = (luma(image) * 255).round() if self.config.active else image.flip(-3) * 255
        if self.config.image_scale == 1:
            return image
        size = tuple(int(side * self.config.image_scale) for side in image.shape[-2:])
        return F.interpolate(image, size, mode="bilinear")

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> SMDConfig | None:
        first, second = state.get("mlp.conv0.weight"), state.get("mlp.conv1.weight")
        name = _published_backbone(state)
        if first is None or second is None or name is None:
            return None
        hidden = _hidden_widths(state)
        last = state[f"mlp.conv{len(hidden)}.weight"]
        representation = _REPRESENTATIONS.get(last.shape[0])
        if representation is None:
            return None
        config = SMDConfig(
            backbone=name,
            representation=representation,
            residual=second.shape[1] != first.shape[0],
            head=hidden,
        )
        inputs = first.shape[1]
        if name == "psmnet":
            return dataclasses.replace(config, max_disparity=4 * (inputs - 32))
        if name == "hsmnet":
            return dataclasses.replace(config, max_disparity=16 * (inputs - 352))
        return dataclasses.replace(config, active=state[_STEREODEPTH].shape[1] == 2)

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> StateDict:
        prefix = "stereo_network."
        name = _published_backbone(state)
        inside = {n.removeprefix(prefix): tensor for n, tensor in state.items() if n.startswith(prefix)}
        outside = {n: tensor for n, tensor in state.items() if not n.startswith(prefix)}
        named = backbone(name).from_official(inside) if name else inside
        return {
            **{f"backbone.{n}": tensor for n, tensor in named.items()},
            **rename(outside, [(r"^mlp\.conv(\d+)\.", r"head.layers.\1.")]),
        }


_STEREODEPTH = "stereo_network.encoder.encoder.conv1.weight"
_SIGNS: dict[str, Literal["psmnet", "hsmnet", "stereodepth"]] = {
    "stereo_network.dres0.0.0.weight": "psmnet",
    "stereo_network.feature_extraction.convbnrelu1_1.cbr_unit.0.weight": "hsmnet",
    _STEREODEPTH: "stereodepth",
}


def _published_backbone(
    state: Mapping[str, Tensor],
) -> Literal["psmnet", "hsmnet", "stereodepth"] | None:
    return next((name for sign, name in _SIGNS.items() if sign in state), None)


def _hidden_widths(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    widths = []
    while (layer := state.get(f"mlp.conv{len(widths)}.weight")) is not None:
        widths.append(layer.shape[0])
    return tuple(widths[:-1])


class Head(nn.Module):
    """From features at a point to the parameters there: [n c] -> [n outputs], before their sigmoids.

    Layers are 1x1 convolutions in published files; here they are products of matrices. Where the features
    enter every layer, previous activations come first, and the two products are summed, not joined.
    """

    def __init__(
        self, inputs: int, hidden: tuple[int, ...], outputs: int, *, sine: bool, residual: bool
    ) -> None:
        super().__init__()
        self.sine = sine
        self.residual = residual
        before = (0, *hidden)
        again = [inputs] + [inputs if residual else 0] * len(hidden)
        self.layers = nn.ModuleList(
            nn.Conv1d(b + a, after, 1) for b, a, after in zip(before, again, (*hidden, outputs), strict=True)
        )

    def forward(self, features: Float[Tensor, "n c"]) -> Float[Tensor, "n o"]:
        x: Tensor | None = None
        for layer in self.layers:
            assert isinstance(layer, nn.Conv1d)
            assert layer.bias is not None
            weight = layer.weight[..., 0]
            if x is None:
                x = F.linear(features, weight, layer.bias)
            else:
                x = self._activate(x)
                own = F.linear(x, weight[:, : x.shape[1]], layer.bias)
                x = own.addmm_(features, weight[:, x.shape[1] :].T) if self.residual else own
        assert x is not None
        return x

    def _activate(self, x: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        if not self.sine:
            return F.leaky_relu_(x, 0.01)
        return torch.sin(x) if x.requires_grad else x.sin_()


@dataclass(frozen=True)
class DisparityField(TensorRecord):
    """A head and the maps of a pair: the mixture at any position of the left image.

    maps: the backbone's, of a batch or of one pair; frame: (height, width) of the images that the
    backbone saw, which are `image_scale` times the pair's; limit: the maximum disparity in their pixels;
    origin: (top, left) of the pair inside the padded one, in its pixels.
    """

    maps: tuple[Float[Tensor, "*b _ _ _"], ...]
    frame: tuple[int, int]
    image_scale: float
    limit: float
    representation: Representation
    head: Head
    origin: tuple[float, float] = (0.0, 0.0)

    @property
    def max_disparity(self) -> float:
        """In pixels of the pair."""
        return self.limit / self.image_scale

    def shifted(self, top: float, left: float) -> DisparityField:
        """The field of the image that begins at this row and column."""
        return dataclasses.replace(self, origin=(self.origin[0] + top, self.origin[1] + left))

    def query(self, positions: Float[Tensor, "*b n 2"], *, scale: float | int = 1) -> Mixture:
        """Mixtures at positions (x, y), in pixels of the pair enlarged by `scale`; so are the results."""
        leading = positions.shape[:-1]
        maps = [m.reshape(-1, *m.shape[-3:]) for m in self.maps]
        grid = self._grid(positions.reshape(maps[0].shape[0], -1, 2), scale).to(maps[0].device)
        step = grid.shape[1] if torch.compiler.is_compiling() else _POINTS
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.head.training):
            parts = [
                self._answer(maps, grid[:, start : start + step], scale * self.max_disparity)
                for start in range(0, max(grid.shape[1], 1), max(step, 1))
            ]
        joined = parts[0] if len(parts) == 1 else _joined(parts)
        return joined.map(lambda t: t.reshape(*leading, *t.shape[2:]).to(positions.device))

    def _answer(
        self, maps: list[Float[Tensor, "b _ _ _"]], grid: Float[Tensor, "b n 2"], unit: float | int
    ) -> Mixture:
        """In float32, since a disparity in bfloat16 has steps of 1 px."""
        device = next(self.head.parameters()).device
        with torch.autocast(device.type, enabled=False), torch.autocast(grid.device.type, enabled=False):
            features = self._sampled(maps, grid).to(device)
            raw = self.head(features.flatten(0, 1))
            raw = raw.view(*features.shape[:2], raw.shape[-1])
            return _mixture(raw, self.representation, unit)

    def _grid(self, positions: Float[Tensor, "b n 2"], scale: float | int) -> Float[Tensor, "b n 2"]:
        """Positions in [-1, 1] over the padded frame, aligned corners."""
        enlarged = scale / self.image_scale
        size = positions.new_tensor([self.frame[1] * enlarged, self.frame[0] * enlarged])
        origin = positions.new_tensor([self.origin[1] * scale, self.origin[0] * scale])
        return (2 * (positions + origin) / (size - 1) - 1).clamp(-1, 1)

    def _sampled(
        self, maps: list[Float[Tensor, "b _ _ _"]], grid: Float[Tensor, "b n 2"]
    ) -> Float[Tensor, "b n c"]:
        sampled = [
            F.grid_sample(m.float(), grid[:, None].to(torch.float32), mode="bilinear", align_corners=False)
            for m in maps
        ]
        return torch.cat(sampled, 1)[:, :, 0].transpose(1, 2)


def _mixture(raw: Float[Tensor, "b n o"], representation: Representation, unit: float | int) -> Mixture:
    """The distribution that the head's outputs stand for, in pixels: `unit` of them are 1."""
    values = raw.sigmoid()
    if representation == "standard":
        return Mixture(disparity=values[..., 0] * unit, mu=values * unit)
    if representation == "unimodal":
        mu, b = values[..., :1] * unit, values[..., 1:] * unit
        return Mixture(disparity=mu[..., 0], mu=mu, b=b)
    mu, b, pi = values[..., :2], values[..., 2:4].clamp(0.01, 1.0), values[..., 4]
    disparity = torch.where(first_is_mode(pi, b), mu[..., 0], mu[..., 1]) * unit
    return Mixture(disparity=disparity, mu=mu * unit, pi=pi, b=b * unit)


def _joined(parts: list[Mixture]) -> Mixture:
    """Parts of one query after each other (points are the second axis)."""

    def join(values: list[Tensor | None]) -> Tensor | None:
        present = [value for value in values if value is not None]
        return torch.cat(present, 1) if present else None

    disparity, mu = join([p.disparity for p in parts]), join([p.mu for p in parts])
    assert disparity is not None
    assert mu is not None
    return Mixture(disparity=disparity, mu=mu, pi=join([p.pi for p in parts]), b=join([p.b for p in parts]))


def _read(field: DisparityField, rows: range, columns: range) -> Mixture:
    """The mixtures at the crossings of rows and columns of the padded pair, [b rows columns]."""
    device = field.maps[0].device
    y, x = (torch.tensor(r, dtype=torch.float32, device=device) for r in (rows, columns))
    positions = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)
    mixture = field.query(positions.expand(field.maps[0].shape[0], -1, -1))
    return mixture.map(lambda tensor: tensor.unflatten(1, (len(rows), len(columns))))
