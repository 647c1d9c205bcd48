"""Lowerings of operators that work element by element: activations, arithmetic, batch norms that stay separate."""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latlab.harness.exporters.tflite.graph import Graph, Value
from latlab.harness.exporters.tflite.registry import lowers, lowers_layer, unsupported
from latlab.harness.exporters.tflite.trace import folded

__all__: list[str] = []

Operand = Value | Tensor | float | int


def _constant(graph: Graph, operand: Tensor | float | int, like: Value) -> tuple[int, tuple[int, ...]]:
    """Return a constant operand as a tensor stored in the order of `like`, and its shape in PyTorch's order."""
    array = torch.as_tensor(operand, dtype=torch.float32).detach()
    if array.numel() == 1:
        return graph.constant(array.reshape(()).numpy()), ()
    if array.ndim > len(like.shape):
        unsupported(f"arithmetic of {like.shape} with a constant of higher rank {tuple(array.shape)}")
    full = array.reshape((1,) * (len(like.shape) - array.ndim) + tuple(array.shape))
    return graph.constant(full.permute(like.order).contiguous().numpy()), tuple(full.shape)


def _binary(graph: Graph, code: str, a: Operand, b: Operand) -> Value:
    """Emit an arithmetic operator with PyTorch's broadcasting."""
    if isinstance(a, Value) and isinstance(b, Value):
        if len(a.shape) != len(b.shape):
            unsupported(f"arithmetic of {a.shape} with {b.shape}: the ranks differ")
        # The smaller operand is transposed, e.g. the factors of squeeze-and-excitation.
        order = a.order if np.prod(a.shape) >= np.prod(b.shape) else b.order
        a, b = graph.reorder(a, order), graph.reorder(b, order)
        shape = np.broadcast_shapes(a.shape, b.shape)
        tensors = [a.tensor, b.tensor]
    elif isinstance(a, Value):
        assert not isinstance(b, Value)
        order = a.order
        constant, constant_shape = _constant(graph, b, a)
        shape = np.broadcast_shapes(a.shape, constant_shape)
        tensors = [a.tensor, constant]
    else:
        assert isinstance(b, Value)
        order = b.order
        constant, constant_shape = _constant(graph, a, b)
        shape = np.broadcast_shapes(constant_shape, b.shape)
        tensors = [constant, b.tensor]
    return Value(graph.emit(code, tensors, tuple(shape[dim] for dim in order)), shape, order)


@lowers(operator.add, operator.iadd, torch.add, methods=("add", "add_"))
def add(graph: Graph, input: Operand, other: Operand, *, alpha: float = 1) -> Value:
    """Lower an addition."""
    if alpha != 1:
        unsupported("add with alpha")
    return _binary(graph, "ADD", input, other)


@lowers(operator.sub, operator.isub, torch.sub, methods=("sub", "sub_"))
def sub(graph: Graph, input: Operand, other: Operand, *, alpha: float = 1) -> Value:
    """Lower a subtraction."""
    if alpha != 1:
        unsupported("sub with alpha")
    return _binary(graph, "SUB", input, other)


@lowers(operator.mul, operator.imul, torch.mul, methods=("mul", "mul_"))
def mul(graph: Graph, input: Operand, other: Operand) -> Value:
    """Lower a multiplication."""
    return _binary(graph, "MUL", input, other)


@lowers(operator.truediv, operator.itruediv, torch.div, methods=("div", "div_"))
def div(graph: Graph, input: Operand, other: Operand) -> Value:
    """Lower a division."""
    if isinstance(other, int | float) and other != 0:
        # Every converter multiplies by the inverse here; the result differs in the last bit.
        return _binary(graph, "MUL", input, 1.0 / other)
    return _binary(graph, "DIV", input, other)


def _unary(graph: Graph, code: str, x: Value) -> Value:
    return Value(graph.emit(code, [x.tensor], x.stored), x.shape, x.order)


@lowers(F.relu, F.relu_, torch.relu, torch.relu_, methods=("relu", "relu_"))
def relu(graph: Graph, input: Value, inplace: bool = False) -> Value:
    """Lower a ReLU."""
    return _unary(graph, "RELU", input)


@lowers(F.relu6)
def relu6(graph: Graph, input: Value, inplace: bool = False) -> Value:
    """Lower a ReLU6."""
    return _unary(graph, "RELU6", input)


@lowers(torch.clamp, methods=("clamp", "clamp_"))
def clamp(graph: Graph, input: Value, min: float | None = None, max: float | None = None) -> Value:
    """Lower a clamp to [0, 6] or [0, infinity). Other limits are not supported."""
    if (min, max) == (0, 6):
        return relu6(graph, input)
    if (min, max) == (0, None):
        return relu(graph, input)
    return unsupported(f"clamping to {min}..{max}")


@lowers(F.hardswish)
def hardswish(graph: Graph, input: Value, inplace: bool = False) -> Value:
    """Lower x * relu6(x + 3) / 6."""
    return _unary(graph, "HARD_SWISH", input)


@lowers(F.hardsigmoid)
def hardsigmoid(graph: Graph, input: Value, inplace: bool = False) -> Value:
    """Lower relu6(x + 3) / 6, for which TFLite has no operator."""
    return mul(graph, relu6(graph, add(graph, input, 3.0)), 1.0 / 6.0)


@lowers(torch.sigmoid, F.sigmoid, methods=("sigmoid",))
def sigmoid(graph: Graph, input: Value) -> Value:
    """Lower a logistic sigmoid."""
    return _unary(graph, "LOGISTIC", input)


@lowers(F.silu)
def silu(graph: Graph, input: Value, inplace: bool = False) -> Value:
    """Lower x * sigmoid(x)."""
    return mul(graph, input, sigmoid(graph, input))


def _activation_layers() -> None:
    pairs: list[tuple[type[nn.Module], Callable[[Graph, Value], Value]]] = [
        (nn.ReLU, relu),
        (nn.ReLU6, relu6),
        (nn.Hardswish, hardswish),
        (nn.Hardsigmoid, hardsigmoid),
        (nn.Sigmoid, sigmoid),
        (nn.SiLU, silu),
    ]
    for layer, function in pairs:
        lowers_layer(layer)(lambda graph, _, x, function=function: function(graph, x))


_activation_layers()


@lowers(F.dropout, F.dropout2d)
def dropout(graph: Graph, input: Value, p: float = 0.5, training: bool = True, inplace: bool = False) -> Value:
    """Lower a dropout in eval mode, which does nothing."""
    if training:
        unsupported("dropout in training mode")
    return input


@lowers_layer(nn.Identity, nn.Dropout, nn.Dropout2d)
def identity_layer(graph: Graph, layer: nn.Module, x: Value) -> Value:
    """Lower a layer that does nothing in eval mode."""
    if layer.training and not isinstance(layer, nn.Identity):
        unsupported("dropout in training mode")
    return x


@lowers_layer(nn.BatchNorm1d, nn.BatchNorm2d)
def batch_norm_layer(graph: Graph, layer: nn.BatchNorm1d | nn.BatchNorm2d, x: Value) -> Value:
    """Lower a batch norm that was not folded into a convolution: a scale and a shift per channel (dimension 1)."""
    if layer.training:
        unsupported("batch norm in training mode")
    ones = (1,) * (len(x.shape) - 2)
    scale, shift = (part.reshape(-1, *ones) for part in folded(layer))
    return add(graph, mul(graph, x, scale), shift)
