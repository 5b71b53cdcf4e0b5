"""The published iterative networks written down as their papers' descriptions read, for comparison only.

Every operation where the description puts it: both images in one batch, norms after convolutions, context
and masks in every iteration where the publication has them there, lookups level by level with
`grid_sample`, volumes pooled and kept. Tensors go by their published names, so that a published (or a
deterministic) state dict runs without mapping.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

State = Mapping[str, Tensor]


class Net:
    """Convolutions and norms by the published names of their tensors."""

    def __init__(self, state: State) -> None:
        self.state = state

    def conv(
        self, x: Tensor, key: str, stride: int | tuple[int, ...] = 1, padding: int = -1, groups: int = 1
    ):
        weight = self.state[f"{key}.weight"]
        padding = weight.shape[-1] // 2 if padding < 0 else padding
        conv = F.conv3d if weight.ndim == 5 else F.conv2d
        return conv(x, weight, self.state.get(f"{key}.bias"), stride, padding, groups=groups)

    def up(self, x: Tensor, key: str) -> Tensor:
        weight = self.state[f"{key}.weight"]
        conv = F.conv_transpose3d if weight.ndim == 5 else F.conv_transpose2d
        return conv(x, weight, self.state.get(f"{key}.bias"), stride=2, padding=1)

    def norm(self, x: Tensor, key: str) -> Tensor:
        """Batch norm where the state has its tensors, else instance norm."""
        if f"{key}.weight" not in self.state:
            return F.instance_norm(x)
        s = self.state
        mean, var = s[f"{key}.running_mean"], s[f"{key}.running_var"]
        return F.batch_norm(x, mean, var, s[f"{key}.weight"], s[f"{key}.bias"])

    def block(self, x: Tensor, key: str, stride: int = 1) -> Tensor:
        """Convolution, norm, leaky ReLU (`X.conv`, `X.bn`)."""
        return F.leaky_relu(self.norm(self.conv(x, f"{key}.conv", stride), f"{key}.bn"), 0.01)

    def up_block(self, x: Tensor, key: str) -> Tensor:
        return F.leaky_relu(self.norm(self.up(x, f"{key}.conv"), f"{key}.bn"), 0.01)

    def up_and_merge(self, x: Tensor, skip: Tensor, key: str) -> Tensor:
        return self.block(torch.cat([self.up_block(x, f"{key}.conv1"), skip], 1), f"{key}.conv2")

    def stem(self, x: Tensor, key: str, stride: int = 2) -> Tensor:
        x = self.block(x, f"{key}.0", stride)
        return F.relu(F.instance_norm(self.conv(x, f"{key}.1")))

    # RAFT-Stereo's encoders

    def residual(self, x: Tensor, key: str, stride: int = 1) -> Tensor:
        y = F.relu(self.norm(self.conv(x, f"{key}.conv1", stride), f"{key}.norm1"))
        y = F.relu(self.norm(self.conv(y, f"{key}.conv2"), f"{key}.norm2"))
        if f"{key}.downsample.0.weight" in self.state:
            x = self.norm(self.conv(x, f"{key}.downsample.0", stride), f"{key}.downsample.1")
        return F.relu(x + y)

    def trunk(self, x: Tensor, key: str, downsample: int) -> Tensor:
        x = F.relu(self.norm(self.conv(x, f"{key}.conv1", 1 + (downsample > 2)), f"{key}.norm1"))
        for layer, stride in ((1, 1), (2, 1 + (downsample > 1)), (3, 1 + (downsample > 0))):
            x = self.residual(x, f"{key}.layer{layer}.0", stride)
            x = self.residual(x, f"{key}.layer{layer}.1")
        return x

    def contexts(self, x: Tensor, heads: list[str]) -> tuple[list[Tensor], list[Tensor]]:
        hidden, context = [], []
        for level, head in enumerate(heads):
            if level:
                x = self.residual(x, f"cnet.layer{level + 3}.0", 2)
                x = self.residual(x, f"cnet.layer{level + 3}.1")
            outs = []
            for index in range(2):
                key = f"cnet.{head}.{index}"
                y = x if level == 2 else self.residual(x, f"{key}.0")
                outs.append(self.conv(y, key if level == 2 else f"{key}.1"))
            hidden.append(torch.tanh(outs[0]))
            context.append(F.relu(outs[1]))
        return hidden, context

    # recurrent units

    def gru(self, key: str, h: Tensor, shares: tuple[Tensor, ...] | None, *inputs: Tensor) -> Tensor:
        x = torch.cat(inputs, 1)
        joined = torch.cat([h, x], 1)
        cz, cr, cq = shares if shares is not None else (0.0, 0.0, 0.0)
        z = torch.sigmoid(self.conv(joined, f"{key}.convz") + cz)
        r = torch.sigmoid(self.conv(joined, f"{key}.convr") + cr)
        q = torch.tanh(self.conv(torch.cat([r * h, x], 1), f"{key}.convq") + cq)
        return (1 - z) * h + z * q

    def selective(self, key: str, h: Tensor, context: tuple[Tensor, Tensor], *inputs: Tensor) -> Tensor:
        map_, attention = context
        small = self.gru(f"{key}.small_gru", h, None, map_, *inputs)
        large = self.gru(f"{key}.large_gru", h, None, map_, *inputs)
        return attention * small + (1 - attention) * large

    def attended(self, contexts: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        out = []
        for context in contexts:
            pooled = context.mean((2, 3), keepdim=True), context.amax((2, 3), keepdim=True)
            weights = sum(self.conv(F.relu(self.conv(p, "cam.fc.0")), "cam.fc.2") for p in pooled)
            context = torch.sigmoid(weights) * context
            both = torch.cat([context.mean(1, keepdim=True), context.amax(1, keepdim=True)], 1)
            out.append((context, torch.sigmoid(self.conv(both, "sam.samconv"))))
        return out

    def update(self, names: list[str], unit, h: list[Tensor], contexts: list, motion: Tensor | None) -> None:
        """Coarse to fine, in place in the list; without motion the finest level is left."""
        for level in reversed(range(0 if motion is not None else 1, len(h))):
            inputs = [motion] if level == 0 else [F.avg_pool2d(h[level - 1], 3, 2, 1)]
            if level + 1 < len(h):
                size = h[level].shape[-2:]
                inputs.append(F.interpolate(h[level + 1], size, mode="bilinear", align_corners=True))
            h[level] = unit(f"update_block.{names[level]}", h[level], contexts[level], *inputs)

    def motion(self, values: Tensor, field: Tensor, letter: str) -> Tensor:
        key = "update_block.encoder"
        seen = F.relu(self.conv(F.relu(self.conv(values, f"{key}.convc1")), f"{key}.convc2"))
        been = F.relu(self.conv(F.relu(self.conv(field, f"{key}.conv{letter}1")), f"{key}.conv{letter}2"))
        return torch.cat([F.relu(self.conv(torch.cat([seen, been], 1), f"{key}.conv")), field], 1)

    def head(self, h: Tensor, name: str) -> Tensor:
        key = f"update_block.{name}"
        return self.conv(F.relu(self.conv(h, f"{key}.conv1")), f"{key}.conv2")


def sample(rows: Tensor, position: Tensor) -> Tensor:
    """[n c 1 w] rows at [n k] positions by linear interpolation, zero outside: [n c k]."""
    width = rows.shape[-1]
    x = 2 * position / (width - 1) - 1
    grid = torch.stack([x, torch.zeros_like(x)], -1)[:, None]
    return F.grid_sample(rows, grid, align_corners=True)[:, :, 0]


def look_up(pyramid: list[Tensor], position: Tensor) -> list[Tensor]:
    """Per level [b c*9 h w]; pyramid: rows [b*h*w c 1 w_l]; position [b 1 h w]."""
    batch, _, height, width = position.shape
    steps = torch.arange(-4, 5, dtype=torch.float32)
    out = []
    for level, rows in enumerate(pyramid):
        at = position.reshape(-1, 1) / 2**level + steps
        values = sample(rows, at).reshape(batch, height, width, -1)
        out.append(values.permute(0, 3, 1, 2).contiguous())
    return out


def row_pyramid(left: Tensor, right: Tensor, levels: int, scale: float) -> list[Tensor]:
    batch, _, height, width = left.shape
    volume = torch.einsum("bchw,bchv->bhwv", left, right) * scale
    pyramid = [volume.reshape(batch * height * width, 1, 1, width)]
    for _ in range(levels - 1):
        pyramid.append(F.avg_pool2d(pyramid[-1], (1, 2)))
    return pyramid


def volume_pyramid(volume: Tensor, levels: int) -> list[Tensor]:
    batch, groups, depth, height, width = volume.shape
    rows = volume.permute(0, 3, 4, 1, 2).reshape(batch * height * width, groups, 1, depth)
    pyramid = [rows]
    for _ in range(levels - 1):
        pyramid.append(F.avg_pool2d(pyramid[-1], (1, 2)))
    return pyramid


def columns(like: Tensor) -> Tensor:
    return torch.arange(like.shape[-1], dtype=torch.float32).expand(like.shape[0], 1, *like.shape[-2:])


def convex(field: Tensor, logits: Tensor, factor: int) -> Tensor:
    batch, _, height, width = field.shape
    weights = torch.softmax(logits.view(batch, 1, 9, factor, factor, height, width), 2)
    around = F.unfold(factor * field, 3, padding=1).view(batch, 1, 9, 1, 1, height, width)
    fine = (weights * around).sum(2).permute(0, 1, 4, 2, 5, 3)
    return fine.reshape(batch, 1, factor * height, factor * width)


def superpixel(field: Tensor, weights: Tensor) -> Tensor:
    batch, _, height, width = field.shape
    around = F.unfold(4 * field, 3, padding=1).view(batch, 9, height, width)
    return (F.interpolate(around, scale_factor=4, mode="nearest") * weights).sum(1, keepdim=True)


def raft(state: State, left: Tensor, right: Tensor, *, iterations: int, realtime: bool) -> Tensor:
    net = Net(state)
    downsample, levels = (3, 2) if realtime else (2, 3)
    left, right = 2 * left - 1, 2 * right - 1
    heads = ["outputs08", "outputs16", "outputs32"][:levels]
    if realtime:
        both = net.trunk(torch.cat([left, right]), "cnet", downsample)
        h, contexts = net.contexts(both[: len(left)], heads)
        features = net.conv(net.residual(both, "conv2.0"), "conv2.1")
    else:
        h, contexts = net.contexts(net.trunk(left, "cnet", downsample), heads)
        features = net.conv(net.trunk(torch.cat([left, right]), "fnet", downsample), "fnet.conv2")
    shares = [net.conv(c, f"context_zqr_convs.{i}").chunk(3, 1) for i, c in enumerate(contexts)]
    fl, fr = features.chunk(2)
    pyramid = row_pyramid(fl, fr, 4, fl.shape[1] ** -0.5)
    x0 = columns(fl)
    x1, names = x0.clone(), ["gru08", "gru16", "gru32"]
    for _ in range(iterations):
        values = torch.cat(look_up(pyramid, x1), 1)
        if realtime:
            net.update(names, net.gru, h, shares, None)
        flow = torch.cat([x1 - x0, torch.zeros_like(x0)], 1)
        net.update(names, net.gru, h, shares, net.motion(values, flow, "f"))
        x1 = x1 + net.head(h[0], "flow_head")[:, :1]
        mask = 0.25 * net.conv(F.relu(net.conv(h[0], "update_block.mask.0")), "update_block.mask.2")
    return -convex(x1 - x0, mask, 2**downsample)[:, 0]


def selective_raft(state: State, left: Tensor, right: Tensor, *, iterations: int) -> Tensor:
    net = Net(state)
    left, right = 2 * left - 1, 2 * right - 1
    fl, fr = net.conv(net.trunk(torch.cat([left, right]), "fnet", 2), "fnet.conv2").chunk(2)
    h, contexts = net.contexts(net.trunk(left, "cnet", 2), ["outputs08", "outputs16", "outputs32"])
    attended = net.attended(contexts)
    pyramid = row_pyramid(fl, fr, 4, fl.shape[1] ** -0.5)
    x0 = columns(fl)
    x1, names = x0.clone(), ["gru04", "gru08", "gru16"]
    for _ in range(iterations):
        motion = net.motion(torch.cat(look_up(pyramid, x1), 1), x1 - x0, "f")
        net.update(names, net.selective, h, attended, motion)
        x1 = x1 + net.head(h[0], "disp_head")
        mask = 0.25 * net.conv(F.relu(net.conv(h[0], "update_block.mask.0")), "update_block.mask.2")
    return -convex(x1 - x0, mask, 4)[:, 0]


# the IGEV family


def mobilenet(net: Net, image: Tensor) -> list[Tensor]:
    """Maps at 1/4, 1/8, 1/16, 1/32."""

    def unit(x: Tensor, key: str, stride: int) -> Tensor:
        y = F.relu6(net.norm(net.conv(x, f"{key}.conv_pw"), f"{key}.bn1"))
        wide = y.shape[1]
        y = F.relu6(net.norm(net.conv(y, f"{key}.conv_dw", stride, groups=wide), f"{key}.bn2"))
        y = net.norm(net.conv(y, f"{key}.conv_pwl"), f"{key}.bn3")
        return x + y if stride == 1 and x.shape == y.shape else y

    x = F.relu6(net.norm(net.conv(image, "feature.conv_stem", 2), "feature.bn1"))
    key = "feature.block0.0.0"
    x = F.relu6(net.norm(net.conv(x, f"{key}.conv_dw", groups=32), f"{key}.bn1"))
    x = net.norm(net.conv(x, f"{key}.conv_pw"), f"{key}.bn2")
    maps = []
    for stage, units, stride in (("1.0", 2, 2), ("2.0", 3, 2), ("3.0", 4, 2), ("3.1", 3, 1), ("4.0", 3, 2)):
        for index in range(units):
            x = unit(x, f"feature.block{stage}.{index}", stride if index == 0 else 1)
        if stage != "3.0":
            maps.append(x)
    return maps


def features(net: Net, image: Tensor) -> tuple[list[Tensor], Tensor]:
    """(f4, f8, f16, f32), stem_2x."""
    x4, x8, x16, x32 = mobilenet(net, image)
    f16 = net.up_and_merge(x32, x16, "feature.deconv32_16")
    f8 = net.up_and_merge(f16, x8, "feature.deconv16_8")
    f4 = net.block(net.up_and_merge(f8, x4, "feature.deconv8_4"), "feature.conv4")
    stem2 = net.stem(image, "stem_2")
    return [torch.cat([f4, net.stem(stem2, "stem_4")], 1), f8, f16, x32], stem2


def attend(net: Net, volume: Tensor, feature: Tensor, key: str) -> Tensor:
    weights = net.conv(net.block(feature, f"{key}.feat_att.0"), f"{key}.feat_att.1")
    return torch.sigmoid(weights).unsqueeze(2) * volume


def correlation_volume(left: Tensor, right: Tensor, levels: int) -> Tensor:
    batch, channels, height, width = left.shape
    volume = left.new_zeros(batch, 8, levels, height, width)
    for d in range(min(levels, width)):
        product = left[..., d:] * right[..., : width - d]
        volume[:, :, d, :, d:] = product.view(batch, 8, channels // 8, height, -1).mean(2)
    return volume


def hourglass(net: Net, volume: Tensor, f: list[Tensor], key: str) -> Tensor:
    levels = []
    for index, scale in ((1, 8), (2, 16), (3, 32)):
        volume = net.block(net.block(volume, f"{key}.conv{index}.0", 2), f"{key}.conv{index}.1")
        volume = attend(net, volume, f[index], f"{key}.feature_att_{scale}")
        levels.append(volume)
    for up, merge, skip, scale, feature in (
        ("conv3_up", "agg_0", 1, 16, f[2]),
        ("conv2_up", "agg_1", 0, 8, f[1]),
    ):
        volume = torch.cat([net.up_block(volume, f"{key}.{up}"), levels[skip]], 1)
        for index in range(3):
            volume = net.block(volume, f"{key}.{merge}.{index}")
        volume = attend(net, volume, feature, f"{key}.feature_att_up_{scale}")
    return net.up(volume, f"{key}.conv1_up.conv")


def expectation(net: Net, volume: Tensor, interval: int = 1) -> Tensor:
    probabilities = torch.softmax(net.conv(volume, "classifier")[:, 0], 1)
    levels = interval * torch.arange(volume.shape[2], dtype=torch.float32)
    return (probabilities * levels[:, None, None]).sum(1, keepdim=True)


def superpixel_weights(net: Net, mask_features: Tensor, stem2: Tensor) -> Tensor:
    return torch.softmax(net.up(net.up_and_merge(mask_features, stem2, "spx_2_gru"), "spx_gru.0"), 1)


def igev(
    state: State, left: Tensor, right: Tensor, *, iterations: int, max_disparity: int = 192, selective: bool
) -> Tensor:
    net = Net(state)
    left, right = 2 * left - 1, 2 * right - 1
    (f, stem2), (fr, _) = features(net, left), features(net, right)
    match_left = net.conv(net.block(f[0], "conv"), "desc")
    match_right = net.conv(net.block(fr[0], "conv"), "desc")
    volume = correlation_volume(match_left, match_right, max_disparity // 4)
    volume = attend(net, net.block(volume, "corr_stem"), f[0], "corr_feature_att")
    volume = hourglass(net, volume, f, "cost_agg")
    disparity = expectation(net, volume)
    h, contexts = net.contexts(net.trunk(left, "cnet", 2), ["outputs04", "outputs08", "outputs16"])
    prepared = (
        net.attended(contexts)
        if selective
        else [net.conv(c, f"context_zqr_convs.{i}").chunk(3, 1) for i, c in enumerate(contexts)]
    )
    unit = net.selective if selective else net.gru
    geometry, rows = volume_pyramid(volume, 2), row_pyramid(match_left, match_right, 2, 1.0)
    x0, names = columns(match_left), ["gru04", "gru08", "gru16"]
    for _ in range(iterations):
        pairs = zip(look_up(geometry, disparity), look_up(rows, x0 - disparity), strict=True)
        values = torch.cat([part for pair in pairs for part in pair], 1)
        net.update(names, unit, h, prepared, net.motion(values, disparity, "d"))
        disparity = disparity + net.head(h[0], "disp_head")
        mask = F.relu(net.conv(h[0], "update_block.mask_feat_4.0")) * (0.25 if selective else 1.0)
    return superpixel(disparity, superpixel_weights(net, mask, stem2))[:, 0]


def igev_rt(
    state: State, left: Tensor, right: Tensor, *, iterations: int, max_disparity: int = 192
) -> Tensor:
    net = Net(state)
    left, right = 2 * left - 1, 2 * right - 1
    (f, stem2), (fr, _) = features(net, left), features(net, right)
    match_left = net.conv(net.block(f[0], "conv"), "desc")
    match_right = net.conv(net.block(fr[0], "conv"), "desc")
    volume = correlation_volume(match_left, match_right, max_disparity // 4)
    volume = hourglass(net, volume, f, "cost_agg")
    disparity = expectation(net, volume)
    h = torch.tanh(net.conv(net.block(f[0], "hnet.0"), "hnet.1"))
    shares = net.conv(net.block(f[0], "cnet"), "context_zqr_conv").chunk(3, 1)
    geometry = volume_pyramid(volume, 2)
    for _ in range(iterations):
        motion = net.motion(torch.cat(look_up(geometry, disparity), 1), disparity, "d")
        h = net.gru("update_block.gru", h, shares, motion)
        disparity = disparity + net.head(h, "disp_head")
        mask = F.relu(net.conv(h, "update_block.mask_feat_4.0"))
    return superpixel(disparity, superpixel_weights(net, mask, stem2))[:, 0]


def igev_plusplus(
    state: State, left: Tensor, right: Tensor, *, iterations: int, max_disparity: int = 768
) -> Tensor:
    net = Net(state)
    left, right = 2 * left - 1, 2 * right - 1
    (f, stem2), (fr, _) = features(net, left), features(net, right)
    match_left = net.conv(net.block(f[0], "conv"), "desc")
    match_right = net.conv(net.block(fr[0], "conv"), "desc")
    full = correlation_volume(match_left, match_right, max_disparity // 4)
    samples = max_disparity // 16
    volumes = [
        full[:, :, :samples],
        net.conv(full[:, :, : 2 * samples], "patch0", (2, 1, 1), 0),
        net.conv(full, "patch1", (4, 1, 1), 0),
    ]
    disparities = []
    for index, interval in enumerate((1, 2, 4)):
        key = f"cost_agg{index}"
        volume = attend(net, net.block(volumes[index], f"{key}.conv0"), f[0], f"{key}.feature_att_4")
        volumes[index] = hourglass(net, volume, f, key)
        disparities.append(expectation(net, volumes[index], interval))
    seen = net.block(net.block(torch.cat(disparities, 1), "disp_conv.0"), "disp_conv.1")
    seen = net.block(net.block(torch.cat([f[0], seen], 1), "selective_conv.0"), "selective_conv.1")
    weights = torch.sigmoid(net.conv(seen, "selective_conv.2"))
    h, contexts = net.contexts(net.trunk(left, "cnet", 2), ["outputs04", "outputs08", "outputs16"])
    shares = [net.conv(c, f"context_zqr_convs.{i}").chunk(3, 1) for i, c in enumerate(contexts)]
    pyramids = [volume_pyramid(volumes[0], 2), volume_pyramid(volumes[1], 1), volume_pyramid(volumes[2], 1)]
    rows, disparity = row_pyramid(match_left, match_right, 2, 1.0), disparities[0]
    x0, names = columns(match_left), ["gru04", "gru08", "gru16"]
    for _ in range(iterations):
        merged = 0.0
        for index, interval in enumerate((1, 2, 4)):
            values = torch.cat(look_up(pyramids[index], disparity / interval), 1)
            key = f"update_block.geo_encoder{index}"
            encoded = net.conv(F.relu(net.conv(values, f"{key}.convg1")), f"{key}.convg2")
            merged = merged + weights[:, index : index + 1] * encoded
        values = torch.cat([merged, *look_up(rows, x0 - disparity)], 1)
        net.update(names, net.gru, h, shares, net.motion(values, disparity, "d"))
        disparity = disparity + net.head(h[0], "disp_head")
        mask = F.relu(net.conv(h[0], "update_block.mask_feat_4.0"))
    return superpixel(disparity, superpixel_weights(net, mask, stem2))[:, 0]
