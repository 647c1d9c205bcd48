"""Makers of `Layer`s, cached: tens of thousands of networks share a few thousand distinct layers."""

from __future__ import annotations

from functools import cache

from latlab.search_spaces.cost import Layer

__all__ = ["batchnorm", "conv", "elementwise", "linear", "mean", "pool"]


@cache
def conv(
    name: str,
    in_channels: int,
    out_channels: int,
    size: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    *,
    batch_norm: bool = True,
    bias: bool = False,
) -> Layer:
    """A convolution with "same" padding, with the batch norm behind it if there is one.

    Args:
        size: height (= width) of the input.
    """
    if groups == in_channels == out_channels > 1:
        kind = "depthwise"
    elif kernel > 1:
        kind = "conv"
    else:
        kind = "pointwise" if groups == 1 else "grouped"
    out_size = -(-size // stride)
    weights = out_channels * (in_channels // groups) * kernel**2
    params = weights + (2 * batch_norm + bias) * out_channels
    macs = weights * out_size**2
    return Layer(name, kind, kernel, stride, groups, in_channels, out_channels, size, out_size, macs, params)


@cache
def elementwise(name: str, kind: str, channels: int, size: int) -> Layer:
    """An operator without parameters whose output has the shape of its (first) input."""
    return Layer(name, kind, 1, 1, 1, channels, channels, size, size, macs=0, params=0)


@cache
def batchnorm(name: str, channels: int, size: int) -> Layer:
    """A batch norm that follows no convolution, so that it stays an operator of its own."""
    return Layer(name, "batchnorm", 1, 1, 1, channels, channels, size, size, macs=0, params=2 * channels)


@cache
def pool(name: str, channels: int, size: int, kernel: int, stride: int) -> Layer:
    """Average pooling."""
    return Layer(name, "pool", kernel, stride, 1, channels, channels, size, size // stride, macs=0, params=0)


@cache
def mean(name: str, channels: int, size: int) -> Layer:
    """Mean over height and width."""
    return Layer(name, "mean", size, 1, 1, channels, channels, size, 1, macs=0, params=0)


@cache
def linear(name: str, in_features: int, out_features: int) -> Layer:
    """A linear layer with bias."""
    macs = in_features * out_features
    return Layer(name, "linear", 1, 1, 1, in_features, out_features, 1, 1, macs, macs + out_features)
