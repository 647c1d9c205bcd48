"""The networks of the space of operators as torch modules."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latlab.search_spaces.operators.skeleton import CLASSES, GROUPS, TOKENS, Setting
from latlab.search_spaces.torch_modules import ChannelShuffle, batch_norm, conv, linear

__all__ = ["Network", "scale"]


class _Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.inner(x)
        return y


class _SiLU(nn.Module):
    """x * sigmoid(x), in two operators."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


class _Concat(nn.Module):
    """A 1x1 convolution of x beside relu(x)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv(2 * channels, channels, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(torch.cat([x, F.relu(x)], 1))
        return y


class _Attention(nn.Module):
    """Self-attention with a residual, over `tokens` vectors; its queries are scaled by their weights (`scale`)."""

    def __init__(self, channels: int, tokens: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (linear(channels, channels) for _ in range(4))
        heads = max(channels // 32, 1)
        self.split = (-1, tokens, heads, channels // heads)
        self.joined = (-1, tokens, channels)

    def forward(self, x: Tensor) -> Tensor:
        q = self.q(x).reshape(self.split).transpose(1, 2)
        k = self.k(x).reshape(self.split).transpose(1, 2)
        v = self.v(x).reshape(self.split).transpose(1, 2)
        mixed = torch.matmul(torch.softmax(torch.matmul(q, k.transpose(2, 3)), 3), v)
        y: Tensor = x + self.out(mixed.transpose(1, 2).reshape(self.joined))
        return y


class _LSTM(nn.Module):
    """An LSTM over a sequence of shape (tokens, batch, channels)."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.lstm(x)[0]
        return y


def _convolution(one: Setting, c: int, o: int, stride: int) -> nn.Module:
    groups = {"depthwise": c, "grouped": GROUPS}.get(one.kind, 1)
    kernel = 1 if one.kind == "pointwise" else one.kernel
    return nn.Sequential(conv(c, o, kernel, stride, groups, bias=True), nn.ReLU())


def _bottleneck(one: Setting, c: int, stride: int) -> nn.Module:
    middle = one.out_channels
    body = nn.Sequential(
        conv(c, middle, bias=True),
        nn.Hardswish(),
        conv(middle, middle, one.kernel, stride, middle, bias=True),
        nn.Hardswish(),
        conv(middle, c, bias=True),
    )
    return body if stride > 1 else _Residual(body)


def _block(one: Setting, c: int, o: int, size: int, stride: int) -> nn.Module:
    kind, kernel = one.kind, one.kernel
    if kind in ("conv", "pointwise", "depthwise", "grouped"):
        return _convolution(one, c, o, stride)
    if kind == "bottleneck":
        return _bottleneck(one, c, stride)
    if kind == "linear":
        return nn.Sequential(linear(c, o), nn.ReLU())
    if kind == "attention":
        return _Attention(c, size**2)
    if kind == "lstm":
        return _LSTM(c, o)
    if kind == "shuffle":
        return ChannelShuffle(c, GROUPS, size)
    if kind == "concat":
        return _Concat(c)
    if kind == "maxpool":
        return nn.MaxPool2d(kernel, stride, kernel // 2)
    if kind == "avgpool":
        return nn.AvgPool2d(kernel, stride, kernel // 2, count_include_pad=False)
    simple: dict[str, nn.Module] = {
        "add": _Residual(nn.ReLU()),
        "hswish": nn.Hardswish(),
        "silu": _SiLU(),
        "gelu": nn.GELU(),
        "softmax": _Residual(nn.Softmax(2)),
        "resize": nn.Upsample(scale_factor=2),
        "layernorm": nn.LayerNorm(c),
        "batchnorm": nn.Sequential(batch_norm(c), nn.ReLU()),
    }
    return simple[kind]


class Network(nn.Module):
    """The repetitions, the mean over all pixels, and a linear layer."""

    def __init__(self, one: Setting) -> None:
        super().__init__()
        size, blocks = one.size, []
        for c, o, stride in zip(one.widths, one.widths[1:], one.strides, strict=False):
            blocks.append(_block(one, c, o, size, stride))
            size = 2 * size if one.kind == "resize" else -(-size // stride)
        self.blocks = nn.Sequential(*blocks)
        self.head = linear(one.widths[-1], CLASSES)
        self.tokens, self.steps, self.channels = one.kind in TOKENS, one.kind == "lstm", one.channels
        self.length, self.size = one.size**2, size

    def forward(self, x: Tensor) -> Tensor:
        if self.steps:
            x = self.blocks(x.reshape(-1, self.channels, self.length).permute(2, 0, 1).contiguous()).mean(0)
        elif self.tokens:
            x = self.blocks(x.reshape(-1, self.channels, self.length).transpose(1, 2).contiguous()).mean(1)
        else:
            x = self.blocks(x).mean((2, 3))
        y: Tensor = self.head(x)
        return y


def scale(network: Network) -> None:
    """Scale some weights that `finish` has set, so that the outputs change by about 1 from image to image.

    The mean over n pixels shrinks random differences by the root of n; the scores of an attention grow with the root of
    a head's channels.
    """
    with torch.no_grad():
        network.head.weight.mul_(float(network.size))
        for part in network.modules():
            if isinstance(part, _Attention):
                part.q.weight.mul_(part.split[-1] ** -0.5 / 2)
