"""`Layer`, an executed operator with its analytic costs, and functions that make one of each kind.

The functions are cached because tens of thousands of networks share a few thousand distinct layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

__all__ = ["BYTES_PER_ELEMENT", "Layer", "batchnorm", "conv", "elementwise", "linear", "mean", "pool"]


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
    """Return a convolution with "same" padding, together with the batch norm that follows it, if one does.

    Args:
        size: height (= width) of the input in pixels.
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
    """Return an operator of the given kind without parameters, whose output has the shape of its (first) input."""
    return Layer(name, kind, 1, 1, 1, channels, channels, size, size, macs=0, params=0)


@cache
def batchnorm(name: str, channels: int, size: int) -> Layer:
    """Return a batch norm that follows no convolution, so that runtimes execute it as an operator of its own."""
    return Layer(name, "batchnorm", 1, 1, 1, channels, channels, size, size, macs=0, params=2 * channels)


@cache
def pool(name: str, channels: int, size: int, kernel: int, stride: int) -> Layer:
    """Return an average pooling."""
    return Layer(name, "pool", kernel, stride, 1, channels, channels, size, size // stride, macs=0, params=0)


@cache
def mean(name: str, channels: int, size: int) -> Layer:
    """Return a mean over height and width."""
    return Layer(name, "mean", size, 1, 1, channels, channels, size, 1, macs=0, params=0)


@cache
def linear(name: str, in_features: int, out_features: int) -> Layer:
    """Return a linear layer with bias."""
    macs = in_features * out_features
    return Layer(name, "linear", 1, 1, 1, in_features, out_features, 1, 1, macs, macs + out_features)


BYTES_PER_ELEMENT = 4
"""Bytes of an fp32 number."""


@dataclass(frozen=True, slots=True)
class Layer:
    """An executed operator at batch size 1.

    A batch norm that follows a convolution is counted with the convolution (its parameters are in `params`), because
    every inference runtime folds it. No other operators are counted together.
    """

    name: str
    """Place in the network, e.g. `cell3.1<-0` or `stage2.block1.depthwise`."""
    kind: str
    """`conv` (dense, kernel > 1), `pointwise` (1x1), `grouped` (1x1 in groups), `depthwise`, `linear`,
    `batchnorm` (one that follows no convolution), `pool`, `add`, `relu`, `hswish`, `hsigmoid`, `mul`, `zero`,
    `shuffle`, `mean`; in Transformers also `matmul` (of two activations), `softmax`, `layernorm`, `concat`,
    `embedding`, `argmax`; among single operators also `lstm`, `gelu`, `sigmoid`, `resize`."""
    kernel: int
    stride: int
    groups: int
    in_channels: int
    out_channels: int
    in_size: int
    """Height (= width) of the input in pixels."""
    out_size: int
    """Height (= width) of the output in pixels."""
    macs: int
    """Multiply-accumulates of convolutions, linear layers and `matmul`s; 0 for all other kinds."""
    params: int
    """Number of learned parameters, batch norm's scale and shift included."""

    @property
    def in_elements(self) -> int:
        """Elements of all inputs. `add` has two inputs of one shape; the second input of `mul` has one per channel."""
        elements = self.in_channels * self.in_size**2
        if self.kind == "add":
            return 2 * elements
        return elements + self.in_channels if self.kind == "mul" else elements

    @property
    def activations(self) -> int:
        """Elements of the output."""
        return self.out_channels * self.out_size**2

    @property
    def bytes(self) -> int:
        """Bytes read and written: input, parameters, output."""
        return BYTES_PER_ELEMENT * (self.in_elements + self.params + self.activations)
