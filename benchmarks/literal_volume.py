"""PSMNet, HSMNet's volume and SMD-Nets' head as their descriptions read, for comparison only.

Volumes filled level by level into zeros, norms after convolutions, the scores interpolated to a volume of
full resolution before their softmax, features joined with activations in the head. Tensors go by their
published names, so that a published (or a deterministic) state dict runs without mapping.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

State = Mapping[str, Tensor]


def concatenation(left: Tensor, right: Tensor, levels: int) -> Tensor:
    batch, channels, height, width = left.shape
    volume = left.new_zeros(batch, 2 * channels, levels, height, width)
    for d in range(levels):
        if d == 0:
            volume[:, :channels, d] = left
            volume[:, channels:, d] = right
        else:
            volume[:, :channels, d, :, d:] = left[..., d:]
            volume[:, channels:, d, :, d:] = right[..., :-d]
    return volume.contiguous()


def difference(left: Tensor, right: Tensor, levels: int) -> Tensor:
    volume = left.new_zeros(*left.shape[:2], levels, *left.shape[-2:])
    for d in range(levels):
        volume[:, :, d, :, d:] = left[..., d:] - right[..., : left.shape[-1] - d]
    return volume.contiguous()


def correlation(left: Tensor, right: Tensor, levels: int, groups: int = 1) -> Tensor:
    batch, channels, height, width = left.shape
    volume = left.new_zeros(batch, groups, levels, height, width)
    for d in range(levels):
        product = left[..., d:] * right[..., : width - d]
        volume[:, :, d, :, d:] = product.view(batch, groups, channels // groups, height, width - d).mean(2)
    return volume.contiguous()


class PSMNet:
    """The stacked hourglass network in evaluation; images normalised, sides multiples of 16."""

    def __init__(self, state: State, max_disparity: int) -> None:
        self.state = state
        self.max_disparity = max_disparity

    def __call__(self, left: Tensor, right: Tensor) -> Tensor:
        features = [self.features(image) for image in (left, right)]
        volume = concatenation(features[0], features[1], self.max_disparity // 4)
        a = self.pair(volume, "dres0", last=True)
        cost0 = self.pair(a, "dres1", last=False) + a
        out1, pre1, post1 = self.hourglass(cost0, "dres2", None, None)
        out1 = out1 + cost0
        out2, _, post2 = self.hourglass(out1, "dres3", pre1, post1)
        out2 = out2 + cost0
        out3, _, _ = self.hourglass(out2, "dres4", pre1, post2)
        out3 = out3 + cost0
        cost1 = self.classify(out1, "classif1")
        cost2 = self.classify(out2, "classif2") + cost1
        cost3 = self.classify(out3, "classif3") + cost2
        size = (self.max_disparity, *left.shape[-2:])
        probabilities = F.softmax(F.interpolate(cost3, size, mode="trilinear").squeeze(1), 1)
        levels = torch.arange(float(self.max_disparity)).view(1, -1, 1, 1)
        return torch.sum(probabilities * levels, 1)

    def block(self, x: Tensor, key: str, stride: int = 1, padding: int = 1, dilation: int = 1) -> Tensor:
        weight = self.state[f"{key}.0.weight"]
        conv = F.conv3d if weight.ndim == 5 else F.conv2d
        return self.norm(conv(x, weight, None, stride, padding, dilation), f"{key}.1")

    def norm(self, x: Tensor, key: str) -> Tensor:
        s = self.state
        mean, var = s[f"{key}.running_mean"], s[f"{key}.running_var"]
        return F.batch_norm(x, mean, var, s[f"{key}.weight"], s[f"{key}.bias"])

    def residual(self, x: Tensor, key: str, stride: int, dilation: int) -> Tensor:
        y = F.relu(self.block(x, f"{key}.conv1.0", stride, dilation, dilation))
        y = self.block(y, f"{key}.conv2", 1, dilation, dilation)
        if f"{key}.downsample.0.weight" in self.state:
            x = self.block(x, f"{key}.downsample", stride, 0)
        return y + x

    def layer(self, x: Tensor, name: str, blocks: int, stride: int = 1, dilation: int = 1) -> Tensor:
        for i in range(blocks):
            x = self.residual(x, f"feature_extraction.{name}.{i}", stride if i == 0 else 1, dilation)
        return x

    def features(self, image: Tensor) -> Tensor:
        x = image
        for i, stride in ((0, 2), (2, 1), (4, 1)):
            x = F.relu(self.block(x, f"feature_extraction.firstconv.{i}", stride))
        raw = self.layer(self.layer(x, "layer1", 3), "layer2", 16, stride=2)
        skip = self.layer(self.layer(raw, "layer3", 3), "layer4", 3, dilation=2)
        branches = []
        for i, size in ((4, 8), (3, 16), (2, 32), (1, 64)):
            pooled = F.relu(self.block(F.avg_pool2d(skip, size), f"feature_extraction.branch{i}.1", 1, 0))
            branches.append(F.interpolate(pooled, skip.shape[-2:], mode="bilinear"))
        x = F.relu(self.block(torch.cat([raw, skip, *branches], 1), "feature_extraction.lastconv.0"))
        return F.conv2d(x, self.state["feature_extraction.lastconv.2.weight"])

    def pair(self, x: Tensor, key: str, *, last: bool) -> Tensor:
        x = self.block(F.relu(self.block(x, f"{key}.0")), f"{key}.2")
        return F.relu(x) if last else x

    def up(self, x: Tensor, key: str) -> Tensor:
        weight = self.state[f"{key}.0.weight"]
        return self.norm(F.conv_transpose3d(x, weight, None, 2, 1, 1), f"{key}.1")

    def hourglass(
        self, x: Tensor, key: str, presqu: Tensor | None, postsqu: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        out = F.relu(self.block(x, f"{key}.conv1.0", 2))
        pre = self.block(out, f"{key}.conv2")
        pre = F.relu(pre + postsqu) if postsqu is not None else F.relu(pre)
        out = F.relu(self.block(pre, f"{key}.conv3.0", 2))
        out = F.relu(self.block(out, f"{key}.conv4.0"))
        up = self.up(out, f"{key}.conv5")
        post = F.relu(up + presqu) if presqu is not None else F.relu(up + pre)
        return self.up(post, f"{key}.conv6"), pre, post

    def classify(self, x: Tensor, key: str) -> Tensor:
        return F.conv3d(F.relu(self.block(x, f"{key}.0")), self.state[f"{key}.2.weight"], padding=1)


def head(state: State, maps: list[Tensor], grid: Tensor) -> Tensor:
    """SMD-Nets' five outputs at positions [b n 2] in [-1, 1]."""
    sampled = torch.cat([F.grid_sample(m, grid[:, None], align_corners=False)[:, :, 0] for m in maps], 1)
    x = sampled
    for layer in range(5):
        if layer:
            x = torch.cat([torch.sin(x), sampled], 1)
        x = F.conv1d(x, state[f"mlp.conv{layer}.weight"], state[f"mlp.conv{layer}.bias"])
    return x
