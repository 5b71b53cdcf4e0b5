"""SyDE-Net written down as its description reads, for comparison only (see `literal_iterative`).

Every operation where the description puts it: each image by itself through encoder and neck, attention with
its matrix, fusions enlarged before they are projected in the depth head, the channel attention on all four
scales, masks in every iteration.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from literal_iterative import (
    Net,
    State,
    attend,
    columns,
    correlation_volume,
    expectation,
    hourglass,
    look_up,
    row_pyramid,
    superpixel,
    superpixel_weights,
    volume_pyramid,
)

BLOCKS = {384: (12, 6, (2, 5, 8, 11)), 768: (12, 12, (2, 5, 8, 11)), 1024: (24, 16, (4, 11, 17, 23))}
"""Of the encoders, by their width: blocks, heads, tapped blocks."""


def bilinear(x: Tensor, size: Sequence[int], *, aligned: bool) -> Tensor:
    return F.interpolate(x, (size[0], size[1]), mode="bilinear", align_corners=aligned)


# The monocular branch


def linear(net: Net, x: Tensor, key: str) -> Tensor:
    return F.linear(x, net.state[f"{key}.weight"], net.state[f"{key}.bias"])


def layer_norm(net: Net, x: Tensor, key: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], net.state[f"{key}.weight"], net.state[f"{key}.bias"], 1e-6)


def encoder(net: Net, image: Tensor) -> list[Tensor]:
    key = "mono_encoder"
    patches = net.conv(image, f"{key}.patch_embed.proj", 14, 0)
    height, width = patches.shape[-2:]
    positions = net.state[f"{key}.pos_embed"]
    grid = positions[:, 1:].transpose(1, 2).reshape(1, -1, 37, 37)
    factors = ((height + 0.1) / 37, (width + 0.1) / 37)
    grid = F.interpolate(grid, scale_factor=factors, mode="bicubic", recompute_scale_factor=False)
    positions = torch.cat([positions[:, :1], grid.flatten(2).transpose(1, 2)], 1)
    start = net.state[f"{key}.cls_token"].expand(len(image), -1, -1)
    x = torch.cat([start, patches.flatten(2).transpose(1, 2)], 1) + positions
    blocks, heads, taps = BLOCKS[x.shape[-1]]
    tapped = []
    for index in range(blocks):
        block = f"{key}.blocks.{index}"
        qkv = linear(net, layer_norm(net, x, f"{block}.norm1"), f"{block}.attn.qkv")
        q, k, v = qkv.reshape(*x.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
        weights = torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1), -1)
        y = linear(net, (weights @ v).transpose(1, 2).flatten(2), f"{block}.attn.proj")
        x = x + net.state[f"{block}.ls1.gamma"] * y
        y = F.gelu(linear(net, layer_norm(net, x, f"{block}.norm2"), f"{block}.mlp.fc1"))
        x = x + net.state[f"{block}.ls2.gamma"] * linear(net, y, f"{block}.mlp.fc2")
        if index in taps:
            y = layer_norm(net, x, f"{key}.norm")[:, 1:]
            tapped.append(y.transpose(1, 2).reshape(len(image), -1, height, width))
    return tapped


def transposed(net: Net, x: Tensor, key: str, stride: int) -> Tensor:
    return F.conv_transpose2d(x, net.state[f"{key}.weight"], net.state.get(f"{key}.bias"), stride)


def levels(net: Net, tapped: list[Tensor], key: str) -> list[Tensor]:
    x = [net.conv(tap, f"{key}.projects.{i}") for i, tap in enumerate(tapped)]
    x[0] = transposed(net, x[0], f"{key}.resize_layers.0", 4)
    x[1] = transposed(net, x[1], f"{key}.resize_layers.1", 2)
    x[3] = net.conv(x[3], f"{key}.resize_layers.3", 2)
    return [net.conv(map_, f"{key}.scratch.layer{i + 1}_rn") for i, map_ in enumerate(x)]


def unit(net: Net, x: Tensor, key: str) -> Tensor:
    return net.conv(F.relu(net.conv(F.relu(x), f"{key}.conv1")), f"{key}.conv2") + x


def merged(net: Net, coarse: Tensor, level: Tensor | None, key: str) -> Tensor:
    if level is not None:
        coarse = coarse + unit(net, level, f"{key}.resConfUnit1")
    return unit(net, coarse, f"{key}.resConfUnit2")


def depth_head(net: Net, tapped: list[Tensor]) -> Tensor:
    key = "mono_decoder"
    maps = levels(net, tapped, key)
    patches = tapped[0].shape[-2:]
    path = None
    for i in (3, 2, 1, 0):
        fusion = f"{key}.scratch.refinenet{i + 1}"
        path = merged(net, maps[i], None, fusion) if path is None else merged(net, path, maps[i], fusion)
        size = maps[i - 1].shape[-2:] if i else (2 * path.shape[-2], 2 * path.shape[-1])
        path = net.conv(bilinear(path, size, aligned=True), f"{fusion}.out_conv")
    assert path is not None
    x = net.conv(path, f"{key}.scratch.output_conv1")
    x = bilinear(x, (14 * patches[0], 14 * patches[1]), aligned=True)
    x = F.relu(net.conv(x, f"{key}.scratch.output_conv2.0"))
    return F.relu(F.relu(net.conv(x, f"{key}.scratch.output_conv2.2")))


def neck(net: Net, tapped: list[Tensor]) -> list[Tensor]:
    key = "feat_decoder"
    maps = levels(net, tapped, key)
    fused: list[Tensor] = []
    for i in (3, 2, 1, 0):
        fusion = f"{key}.scratch.refinenet{i + 1}"
        if not fused:
            x = merged(net, maps[i], None, fusion)
        else:
            x = merged(net, bilinear(fused[0], maps[i].shape[-2:], aligned=True), maps[i], fusion)
        fused.insert(0, net.conv(x, f"{fusion}.out_conv"))
    return fused


# Features


def transfer(net: Net, pyramid: list[Tensor]) -> list[Tensor]:
    x = F.relu(F.instance_norm(net.conv(pyramid[3], "feat_transfer.conv32x.0")))
    out = [x]
    for scale, feature in ((16, pyramid[2]), (8, pyramid[1]), (4, pyramid[0])):
        weight = net.state[f"feat_transfer.conv_up_{2 * scale}x.weight"]
        up = F.conv_transpose2d(x, weight, stride=2, padding=1, output_padding=1)
        both = net.conv(torch.cat([feature, up], 1), f"feat_transfer.conv{scale}x.0")
        x = F.relu(F.instance_norm(both)) + net.conv(feature, f"feat_transfer.res_{scale}x")
        out.insert(0, x)
    return out


def channel_attention(net: Net, x: Tensor) -> Tensor:
    s = {
        key.removeprefix("se_mono."): value for key, value in net.state.items() if key.startswith("se_mono.")
    }
    channels = x.shape[1]
    y = F.leaky_relu(net.conv(x, "se_mono.spatial_pre.net.0"), 0.1)
    y = net.conv(y, "se_mono.spatial_pre.net.2")
    means = y.mean((2, 3))
    rows = math.isqrt(channels)
    width = math.ceil(channels / rows)
    grid = F.pad(means, (0, rows * width - channels)).view(-1, rows, width)
    spectrum = torch.fft.fft2(grid)
    amplitude, phase = spectrum.abs()[:, None], torch.angle(spectrum)[:, None]
    fy, fx = torch.fft.fftfreq(rows)[:, None], torch.fft.fftfreq(width)
    radius = ((fx**2 + fy**2).sqrt() / math.sqrt(0.5)).clamp(0, 1)
    gate = torch.sigmoid(s["freq_s"] * (radius - s["freq_t"]))
    scale = s["lo_gain"] * (1 - gate) + s["hi_gain"] * gate

    def bent(z: Tensor, name: str) -> Tensor:
        return F.conv2d(F.gelu(F.conv2d(z, s[f"{name}.0.weight"])), s[f"{name}.2.weight"])

    amplitude = amplitude * (1 + bent(amplitude, "amp_mlp")) * scale
    phase = phase + s["phs_scale"] * gate * torch.tanh(bent(phase, "pha_mlp"))
    changed = torch.complex(amplitude * phase.cos(), amplitude * phase.sin())
    by_frequency = torch.sigmoid(torch.fft.ifft2(changed).real.flatten(1)[:, :channels])
    by_neighbours = torch.sigmoid(F.conv1d(means[:, None], s["eca.conv1d.weight"], padding=1)[:, 0])
    share = torch.sigmoid(s["mix_alpha"])
    weights = torch.sigmoid(s["mix_beta"]) * (share * by_frequency + (1 - share) * by_neighbours)
    x = F.conv2d(y * weights[..., None, None] + x, s["post.dwconv.weight"], padding=1, groups=channels)
    return F.relu(F.group_norm(x, math.gcd(channels, 32), s["post.gn.weight"], s["post.gn.bias"]))


# Updates


def motion(net: Net, values: Tensor, field: Tensor, key: str, suffix: str = "") -> Tensor:
    seen = F.relu(net.conv(F.relu(net.conv(values, f"{key}.convc1{suffix}")), f"{key}.convc2{suffix}"))
    been = F.relu(net.conv(F.relu(net.conv(field, f"{key}.convd1{suffix}")), f"{key}.convd2{suffix}"))
    return torch.cat([F.relu(net.conv(torch.cat([seen, been], 1), f"{key}.conv{suffix}")), field], 1)


def update(net: Net, key: str, h: list[Tensor], shares: list, moved: Tensor) -> tuple[Tensor, Tensor]:
    """The list's states in place; the change and the mask's features."""
    for level, name in ((2, "gru16"), (1, "gru08"), (0, "gru04")):
        inputs = [moved if level == 0 else F.avg_pool2d(h[level - 1], 3, 2, 1)]
        if level < 2:
            inputs.append(bilinear(h[level + 1], h[level].shape[-2:], aligned=True))
        h[level] = net.gru(f"{key}.{name}", h[level], shares[level], *inputs)
    delta = net.conv(F.relu(net.conv(h[0], f"{key}.disp_head.conv1")), f"{key}.disp_head.conv2")
    return delta, F.relu(net.conv(h[0], f"{key}.mask_feat_4.0"))


def flaw(left: Tensor, right: Tensor, disparity: Tensor) -> Tensor:
    height, width = disparity.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x, y = x - disparity[:, 0], y.expand_as(disparity[:, 0])
    grid = torch.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], -1)
    return F.grid_sample(right, grid, padding_mode="border", align_corners=False) - left


def aligned(relative: Tensor, disparity: Tensor) -> Tensor:
    out = []
    for m, g in zip(relative, disparity, strict=True):
        threshold = m.flatten().sort().values[int(0.2 * m.numel())]
        used = (g > 0) & (m > 0.01) & (m > threshold)
        matrix = torch.stack([m[used], torch.ones_like(m[used])], 1)
        normal = matrix.T @ matrix + 1e-6 * torch.eye(2)
        scale, offset = torch.linalg.solve(normal, matrix.T @ g[used])
        out.append(scale * m + offset)
    return torch.stack(out)


# Refinement


def relu_block(net: Net, x: Tensor, key: str, stride: int = 1, dilation: int = 1) -> Tensor:
    x = F.conv2d(x, net.state[f"{key}.conv.weight"], None, stride, dilation, dilation)
    return F.relu(net.norm(x, f"{key}.bn"))


def refinement(net: Net, mono: Tensor, stereo: Tensor, left: Tensor, right: Tensor) -> Tensor:
    seen = []
    for name, field in (("mono", mono), ("stereo", stereo)):
        error = torch.cat([flaw(left, right, field), left], 1)
        for key, x in ((f"REMP.conv1_{name}", error), (f"REMP.conv2_{name}", field)):
            seen.append(F.leaky_relu(net.norm(net.conv(x, f"{key}.0"), f"{key}.1"), 0.2))
    x = relu_block(net, torch.cat(seen, 1), "REMP.conv_start", dilation=2)
    key = "REMP.RefinementBlock"
    skips = [x]
    for index in range(1, 5):
        skips.append(relu_block(net, skips[-1], f"{key}.conv{index}a", 2, 1 if index < 3 else 2))

    def up(x: Tensor, level: int, name: str) -> Tensor:
        y = F.relu(net.norm(net.up(x, f"{name}.conv1.conv"), f"{name}.conv1.bn"))
        return relu_block(net, torch.cat([y, skips[level]], 1), f"{name}.conv2")

    for level in (3, 2, 1, 0):
        skips[level] = up(skips[level + 1], level, f"{key}.deconv{level + 1}a")
    for level in range(1, 5):
        name = f"{key}.conv{level}b"
        down = relu_block(net, skips[level - 1], f"{name}.conv1", 2)
        skips[level] = relu_block(net, torch.cat([down, skips[level]], 1), f"{name}.conv2")
    x = skips[4]
    for level in (3, 2, 1, 0):
        x = up(x, level, f"{key}.deconv{level + 1}b")
    low = net.conv(F.relu(net.conv(x.mean((2, 3), keepdim=True), "REMP.LFE.0")), "REMP.LFE.2").sigmoid()
    mask = F.relu(net.conv(net.conv(x, "REMP.LMC.0"), "REMP.LMC.1"))
    mask = net.conv(mask, "REMP.LMC.3").sigmoid()
    x = (1 - mask) * low + mask * x
    return F.leaky_relu(stereo + net.conv(x, "REMP.final_conv"), 0.01)


# The whole


def sydenet(
    state: State, left: Tensor, right: Tensor, *, iterations: int = 32, max_disparity: int = 192
) -> Tensor:
    net = Net(state)
    left, right = 2 * left - 1, 2 * right - 1
    height, width = left.shape[-2:]
    seen_size = (height // 16 * 14, width // 16 * 14)
    tapped = [encoder(net, bilinear(image, seen_size, aligned=True)) for image in (left, right)]
    depth = bilinear(depth_head(net, tapped[0]), (height, width), aligned=False)
    mono = bilinear(depth, (height // 4, width // 4), aligned=False)
    pyramid, pyramid_right = (neck(net, maps) for maps in tapped)
    f, fr = transfer(net, pyramid), transfer(net, pyramid_right)
    stem2, stem2_right = net.stem(left, "stem_2"), net.stem(right, "stem_2")
    stem4 = net.stem(stem2, "stem_4")
    stem8 = net.stem(stem4, "stem_8")
    stem16 = net.stem(stem8, "stem_16")
    f[0] = torch.cat([f[0], stem4], 1)
    fr[0] = torch.cat([fr[0], net.stem(stem2_right, "stem_4")], 1)
    match_left = net.conv(net.block(f[0], "conv"), "desc")
    match_right = net.conv(net.block(fr[0], "conv"), "desc")
    volume = correlation_volume(match_left, match_right, max_disparity // 4)
    volume = attend(net, net.block(volume, "corr_stem"), f[0], "corr_feature_att")
    volume = hourglass(net, volume, f, "cost_agg")
    disparity = expectation(net, volume)
    attended = [channel_attention(net, maps) for maps in pyramid]
    stems = zip((4, 8, 16), attended, (stem4, stem8, stem16), strict=False)
    contexts = [net.conv(torch.cat([m, s], 1), f"feat_transfer_cnet.res_{k}x") for k, m, s in stems]
    h = [torch.tanh(c) for c in contexts]
    h_mono = list(h)
    shares = [net.conv(F.relu(c), f"context_zqr_convs.{i}").chunk(3, 1) for i, c in enumerate(contexts)]
    shares = [(z, r, q) for z, r, q in shares]
    geometry, rows = volume_pyramid(volume, 2), row_pyramid(match_left, match_right, 2, 1.0)
    x0 = columns(match_left)

    def looked_up(field: Tensor) -> Tensor:
        pairs = zip(look_up(geometry, field), look_up(rows, x0 - field), strict=True)
        return torch.cat([part for pair in pairs for part in pair], 1)

    mask = mask_mono = match_left
    for t in range(iterations):
        values = looked_up(disparity)
        if t <= iterations - 8:
            key = "update_block"
            delta, mask = update(net, key, h, shares, motion(net, values, disparity, f"{key}.encoder"))
        else:
            if t == iterations - 7:
                mono = aligned(mono, disparity)
            own = torch.cat([values, flaw(f[0], fr[0], disparity)], 1)
            other = torch.cat([looked_up(mono), flaw(f[0], fr[0], mono)], 1)
            key = "update_block_mix_stereo"
            moved = motion(net, own, disparity, f"{key}.encoder")
            moved = torch.cat([moved, motion(net, other, mono, f"{key}.encoder", "_mono")], 1)
            delta, mask = update(net, key, h, shares, moved)
            key = "update_block_mix_mono"
            moved = motion(net, other, mono, f"{key}.encoder")
            moved = torch.cat([moved, motion(net, own, disparity, f"{key}.encoder", "_mono")], 1)
            delta_mono, mask_mono = update(net, key, h_mono, shares, moved)
            mono = mono + delta_mono
        disparity = disparity + delta
    stereo_up = superpixel(disparity, superpixel_weights(net, mask, stem2))
    mono_up = superpixel(mono, superpixel_weights(net, mask_mono, stem2))
    return (stereo_up + refinement(net, mono_up, stereo_up, left, right))[:, 0]
