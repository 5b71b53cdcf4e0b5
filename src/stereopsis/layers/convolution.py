"""Convolution, norm, activation: the block that most networks are made of."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Norm = Literal["batch", "instance", "none"]
Activation = Literal["relu", "relu6", "leaky", "none"]

_STRIP = 2**20  # values that fit into a processor's cache
_FEW = 20480  # where PyTorch begins to use oneDNN


class ConvNorm(nn.Module):
    """A convolution (2-D or 3-D, transposed or not), its norm, an activation.

    padding: `dilation * (kernel // 2)` unless given (transposed: 1); slope: of leaky ReLU; instance norm
    has neither parameters nor running statistics. In evaluation batch norm is folded into the convolution's
    weights, which saves a pass over the activations.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: int = 3,
        stride: int | tuple[int, ...] = 1,
        padding: int | None = None,
        output_padding: int | tuple[int, ...] = 0,
        dilation: int = 1,
        groups: int = 1,
        dimensions: Literal[2, 3] = 2,
        transposed: bool = False,
        norm: Norm = "batch",
        activation: Activation = "leaky",
        slope: float = 0.01,
        bias: bool = False,
    ) -> None:
        super().__init__()
        convolutions = {
            (2, False): nn.Conv2d,
            (2, True): nn.ConvTranspose2d,
            (3, False): nn.Conv3d,
            (3, True): nn.ConvTranspose3d,
        }
        if padding is None:
            padding = 1 if transposed else dilation * (kernel // 2)
        extra = {"output_padding": output_padding} if transposed else {}
        # A strided 1x1 convolution of few channels, innermost, writes past its buffer in the backward pass
        # of oneDNN (uxlfoundation/oneDNN#6035): the pixels that it takes are picked first, with equal result.
        self.picked: tuple[Any, ...] | None = None
        if kernel == 1 and stride != 1 and not transposed:
            steps = (stride,) * dimensions if isinstance(stride, int) else stride
            self.picked = (..., *(slice(None, None, step) for step in steps))
            stride = 1
        self.conv = convolutions[dimensions, transposed](
            inputs, outputs, kernel, stride, padding, dilation=dilation, groups=groups, bias=bias, **extra
        )
        self.norm = make_norm(norm, outputs, dimensions)
        self.activation: Activation = activation
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        if self.picked is not None:
            x = x[self.picked]
        if isinstance(self.norm, nn.BatchNorm2d | nn.BatchNorm3d) and not self.training:
            return activate(self._folded(x, self.norm), self.activation, self.slope)
        conv = self.conv
        x = _convolve_volume(x, conv.weight, conv.bias, conv) if isinstance(conv, nn.Conv3d) else conv(x)
        if isinstance(self.norm, nn.InstanceNorm2d | nn.InstanceNorm3d) and not torch.is_grad_enabled():
            return activate(normalise_instances_(x, self.norm.eps), self.activation, self.slope)
        return activate(self.norm(x), self.activation, self.slope)

    def _folded(self, x: Tensor, norm: nn.BatchNorm2d | nn.BatchNorm3d) -> Tensor:
        """The convolution with the norm's running statistics and affine map in its weights."""
        conv = self.conv
        scale = norm.weight * torch.rsqrt(cast(Tensor, norm.running_var) + norm.eps)
        shift = norm.bias - cast(Tensor, norm.running_mean) * scale
        if conv.bias is not None:
            shift = shift + conv.bias * scale
        spatial = (1,) * (conv.weight.ndim - 2)
        if isinstance(conv, nn.ConvTranspose2d):
            weight = conv.weight * scale.view(1, -1, *spatial)
            return F.conv_transpose2d(
                x, weight, shift, conv.stride, cast(tuple[int, ...], conv.padding), conv.output_padding
            )
        if isinstance(conv, nn.ConvTranspose3d):
            weight = conv.weight * scale.view(1, -1, *spatial)
            return F.conv_transpose3d(
                x, weight, shift, conv.stride, cast(tuple[int, ...], conv.padding), conv.output_padding
            )
        weight = conv.weight * scale.view(-1, 1, *spatial)
        if isinstance(conv, nn.Conv3d):
            return _convolve_volume(x, weight, shift, conv)
        return F.conv2d(x, weight, shift, conv.stride, conv.padding, conv.dilation, conv.groups)


def _convolve_volume(x: Tensor, weight: Tensor, bias: Tensor | None, conv: nn.Conv3d) -> Tensor:
    """The 3-D convolution, by oneDNN also where PyTorch takes a routine that is up to twelve times slower.

    It does so on CPUs with single volumes whose channels times depth times height are few.
    """
    slow = x.shape[0] == 1 and x[0, ..., 0].numel() <= _FEW and conv.groups == 1
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    running = not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    if slow and plain and running and torch.backends.mkldnn.is_available():
        padding = cast(tuple[int, ...], conv.padding)
        return torch.mkldnn_convolution(x, weight, bias, padding, conv.stride, conv.dilation, conv.groups)
    return F.conv3d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def make_norm(norm: Norm, channels: int, dimensions: Literal[2, 3] = 2) -> nn.Module:
    """Batch norm, instance norm without parameters or running statistics, or nothing."""
    if norm == "batch":
        return nn.BatchNorm2d(channels) if dimensions == 2 else nn.BatchNorm3d(channels)
    if norm == "instance":
        return nn.InstanceNorm2d(channels) if dimensions == 2 else nn.InstanceNorm3d(channels)
    return nn.Identity()


def normalise_instances_(x: Tensor, epsilon: float) -> Tensor:
    """Instance norm in place, in any memory layout: only for tensors that nobody else holds.

    Large maps are bound by memory: this makes a few passes over one buffer instead of filling another.
    """
    if x.dtype != torch.float32 or torch.compiler.is_compiling():
        return F.instance_norm(x, eps=epsilon)
    axes = tuple(range(2, x.ndim))
    x.sub_(x.mean(axes, keepdim=True))
    strip = max(1, _STRIP // x[:, :, 0].numel())
    squares = [part.square().sum(axes, keepdim=True) for part in x.split(strip, 2)]
    variance = torch.stack(squares).sum(0) / x[0, 0].numel()
    return x.mul_(torch.rsqrt(variance + epsilon))


def activate(x: Tensor, activation: Activation, slope: float = 0.01) -> Tensor:
    """The activation, in place: only for tensors that nobody else holds."""
    if activation == "relu":
        return F.relu(x, inplace=True)
    if activation == "relu6":
        return F.relu6(x, inplace=True)
    if activation == "leaky":
        return F.leaky_relu(x, slope, inplace=True)
    return x


def freeze_batch_norm_2d(module: nn.Module) -> None:
    """Every BatchNorm2d in evaluation mode: its statistics stay, its affine map is still trained."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()


class UpAndMerge(nn.Module):
    """Doubles a map with a transposed convolution and merges it with a finer one of `channels` channels.

    The result has `2 * channels` channels. Where sizes differ, the doubled map is resized to the finer
    one by nearest neighbour.
    """

    def __init__(self, inputs: int, channels: int, *, norm: Norm) -> None:
        super().__init__()
        self.up = ConvNorm(inputs, channels, kernel=4, stride=2, transposed=True, norm=norm)
        self.merge = ConvNorm(2 * channels, 2 * channels, norm=norm)

    def forward(
        self, coarse: Float[Tensor, "b c hc wc"], fine: Float[Tensor, "b cf h w"]
    ) -> Float[Tensor, "b 2*cf h w"]:
        up = self.up(coarse)
        if up.shape[-2:] != fine.shape[-2:]:
            up = F.interpolate(up, size=fine.shape[-2:], mode="nearest")
        return self.merge(torch.cat([up, fine], 1))


def channels_innermost(x: Tensor) -> Tensor:
    """The same tensor, [b c h w] or [b c d h w], with channels innermost in memory on CPUs.

    There convolutions run up to twice as fast (3-D; 2-D a little), and keep the layout; other devices
    are left their own.
    """
    if x.device.type != "cpu":
        return x
    return x.contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)
