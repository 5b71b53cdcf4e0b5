"""PSMNet, HSMNet, StereoNet and SMD-Nets' head as their descriptions read, for comparison only.

Volumes filled level by level into zeros and all built before the first is filtered, norms after convolutions,
the scores interpolated to a volume of full resolution before their softmax, features joined with activations
in the head. Tensors go by their published names, so that a published (or a deterministic) state dict runs
without mapping.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
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


class Network:
    """Convolutions and norms by the names of their tensors."""

    def __init__(self, state: State, max_disparity: int) -> None:
        self.state = state
        self.max_disparity = max_disparity

    def conv(self, x: Tensor, key: str, stride: int = 1, padding: int = 1, dilation: int = 1) -> Tensor:
        weight, bias = self.state[f"{key}.weight"], self.state.get(f"{key}.bias")
        convolve = F.conv3d if weight.ndim == 5 else F.conv2d
        return convolve(x, weight, bias, stride, padding, dilation)

    def norm(self, x: Tensor, key: str) -> Tensor:
        s = self.state
        mean, var = s[f"{key}.running_mean"], s[f"{key}.running_var"]
        return F.batch_norm(x, mean, var, s[f"{key}.weight"], s[f"{key}.bias"])

    def block(self, x: Tensor, key: str, stride: int = 1, padding: int = 1, dilation: int = 1) -> Tensor:
        return self.norm(self.conv(x, f"{key}.0", stride, padding, dilation), f"{key}.1")


class PSMNet(Network):
    """The stacked hourglass network in evaluation; images normalised, sides multiples of 16."""

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
        return self.conv(x, "feature_extraction.lastconv.2", padding=0)

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
        return self.conv(F.relu(self.block(x, f"{key}.0")), f"{key}.2")


class HSMNet(Network):
    """Level 1 in evaluation; images normalised, sides multiples of 64."""

    def __call__(self, left: Tensor, right: Tensor) -> Tensor:
        features = self.features(torch.cat([left, right]))
        volumes = []
        for both, scale in zip(features, (64, 32, 16, 8), strict=True):
            one, other = both.chunk(2)
            volumes.append(difference(one, other, self.max_disparity // scale).abs())
        coarse = self.decoder(volumes[0], "decoder6", 6)
        coarse = self.decoder(torch.cat([coarse, volumes[1]], 1), "decoder5", 6)
        coarse = self.decoder(torch.cat([coarse, volumes[2]], 1), "decoder4", 6)
        cost = self.decoder(torch.cat([coarse, volumes[3]], 1), "decoder3", 5).squeeze(1)
        probabilities = F.softmax(F.interpolate(cost, left.shape[-2:], mode="bilinear"), 1)
        levels = 16 * torch.arange(float(self.max_disparity // 16)).view(1, -1, 1, 1)
        return torch.sum(probabilities * levels, 1)

    def unit(self, x: Tensor, key: str, stride: int = 1, padding: int = 1) -> Tensor:
        key = f"feature_extraction.{key}.cbr_unit"
        return F.leaky_relu(self.block(x, key, stride, padding), 0.1)

    def residual(self, x: Tensor, key: str) -> Tensor:
        y = self.unit(x, f"{key}.convbnrelu1", 2)
        y = self.block(y, f"feature_extraction.{key}.convbn2.cb_unit")
        return y + self.block(x, f"feature_extraction.{key}.downsample", 2, 0)

    def features(self, x: Tensor) -> list[Tensor]:
        x = self.unit(x, "convbnrelu1_1", 2)
        x = self.unit(self.unit(x, "convbnrelu1_2"), "convbnrelu1_3")
        eighth = self.residual(F.max_pool2d(x, 3, 2, 1), "res_block3.0")
        sixteenth = self.residual(eighth, "res_block5.0")
        half = self.residual(sixteenth, "res_block6.0")
        c6 = self.pooled(self.residual(half, "res_block7.0"))
        c5 = self.unit(torch.cat([half, self.up(c6, "upconv6")], 1), "iconv5")
        c4 = self.unit(torch.cat([sixteenth, self.up(c5, "upconv5")], 1), "iconv4")
        c3 = self.unit(torch.cat([eighth, self.up(c4, "upconv4")], 1), "iconv3")
        return [self.unit(c, f"proj{n}", padding=0) for n, c in ((6, c6), (5, c5), (4, c4), (3, c3))]

    def up(self, x: Tensor, key: str) -> Tensor:
        return self.unit(F.interpolate(x, scale_factor=2, mode="nearest"), f"{key}.1")

    def pooled(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        total = torch.zeros_like(x)
        for k, parts in enumerate(reversed(np.linspace(1, min(size) // 2, 4).astype(int).tolist())):
            box = [side // parts for side in size]
            path = self.unit(F.avg_pool2d(x, box, box), f"pyramid_pooling.path_module_list.{k}", padding=0)
            total = total + F.interpolate(path, size, mode="bilinear")
        return F.relu((x + 0.25 * total) / 2)

    def decoder(self, x: Tensor, key: str, blocks: int) -> Tensor:
        """Features of twice the size for the next decoder; of the last, scores."""
        for i in range(blocks):
            x = self.filters(x, f"{key}.convs.{i}", (2, 1, 1) if key == "decoder3" and i == 0 else (1, 1, 1))
        if f"{key}.pool_convs.0.0.weight" in self.state:
            x = self.pooled_volume(x, key)
        if f"{key}.up.1.0.weight" in self.state:
            return F.relu(self.block(F.interpolate(x, scale_factor=2, mode="trilinear"), f"{key}.up.1"))
        return self.conv(F.relu(self.block(x, f"{key}.classify.0")), f"{key}.classify.2.0")

    def filters(self, x: Tensor, key: str, stride: tuple[int, int, int]) -> Tensor:
        weight = self.state[f"{key}.conv1.0.weight"]
        y = F.relu(self.norm(F.conv3d(x, weight, None, stride, 1), f"{key}.conv1.1"))
        y = self.block(y, f"{key}.conv2")
        if f"{key}.downsample.conv1.weight" in self.state:
            flat = F.conv2d(x.flatten(3), self.state[f"{key}.downsample.conv1.weight"], None, stride[:2])
            x = self.norm(flat, f"{key}.downsample.bn").unflatten(3, x.shape[-2:])
        return F.relu(x + y)

    def pooled_volume(self, x: Tensor, key: str) -> Tensor:
        size = x.shape[-3:]
        total = torch.zeros_like(x)
        for k, parts in enumerate(np.linspace(1, min(size) // 2, 4).astype(int).tolist()):
            box = [side // parts for side in size]
            path = self.block(F.avg_pool3d(x, box, box), f"{key}.pool_convs.{k}", padding=0)
            total = total + F.interpolate(path, size, mode="trilinear")
        return F.relu((x + 0.25 * total) / 2)


class StereoNet(Network):
    """The left view in evaluation; images in -1..1."""

    def __call__(self, left: Tensor, right: Tensor) -> Tensor:
        features = [self.features(image) for image in (left, right)]
        volume = difference(features[0], features[1], (self.max_disparity + 1) // 8)
        probabilities = F.softmax(-self.filtered(volume), 1)
        levels = torch.linspace(0, self.max_disparity, probabilities.shape[1]).view(1, -1, 1, 1)
        disparity = torch.sum(probabilities * levels, 1, keepdim=True)
        for k, scale in enumerate((4, 2, 1)):
            disparity = self.refined(left, disparity, f"refiners.{k}.net", scale)
        return disparity.squeeze(1)

    def residual(self, x: Tensor, key: str, dilation: int = 1) -> Tensor:
        y = self.conv(x, f"{key}.conv_1", 1, dilation, dilation)
        y = F.leaky_relu(self.norm(y, f"{key}.batch_norm_1"), 0.2)
        y = self.norm(self.conv(y, f"{key}.conv_2", 1, dilation, dilation), f"{key}.batch_norm_2")
        return F.leaky_relu(y + x, 0.2)

    def features(self, x: Tensor) -> Tensor:
        for k in range(3):
            x = self.conv(x, f"feature_extractor.net.segment_0_conv_{k}", 2, 2)
        for k in range(6):
            x = self.residual(x, f"feature_extractor.net.segment_1_res_{k}")
        return self.conv(x, "feature_extractor.net.segment_2_conv_0")

    def filtered(self, x: Tensor) -> Tensor:
        key = "cost_volumizer.net.segment"
        for k in range(4):
            x = F.leaky_relu(self.norm(self.conv(x, f"{key}_0_conv_{k}"), f"{key}_0_bn_{k}"), 0.2)
        return self.conv(x, f"{key}_1_conv_0").squeeze(1)

    def refined(self, image: Tensor, disparity: Tensor, key: str, scale: int) -> Tensor:
        size = [side // scale for side in image.shape[-2:]]
        resized = [F.interpolate(x, size, mode="bilinear", align_corners=True) for x in (image, disparity)]
        x = self.conv(torch.cat(resized, 1), f"{key}.segment_0_conv_0")
        for k, dilation in enumerate((1, 2, 4, 8, 1, 1)):
            x = self.residual(x, f"{key}.segment_1_res_{k}", dilation)
        return F.relu(self.conv(x, f"{key}.segment_2_conv_0") + resized[1])


def head(state: State, maps: list[Tensor], grid: Tensor) -> Tensor:
    """SMD-Nets' five outputs at positions [b n 2] in [-1, 1]."""
    sampled = torch.cat([F.grid_sample(m, grid[:, None], align_corners=False)[:, :, 0] for m in maps], 1)
    x = sampled
    for layer in range(5):
        if layer:
            x = torch.cat([torch.sin(x), sampled], 1)
        x = F.conv1d(x, state[f"mlp.conv{layer}.weight"], state[f"mlp.conv{layer}.bias"])
    return x
