"""Lowerings of what Transformers are made of: matrix products of activations, softmax, layer norm, GELU, slices."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latlab.harness.exporters.tflite.elementwise import add, mul, sub
from latlab.harness.exporters.tflite.graph import Graph, Value
from latlab.harness.exporters.tflite.registry import lowers, lowers_layer, unsupported
from latlab.harness.exporters.tflite.shape_ops import mean, reshape

__all__: list[str] = []


@lowers(torch.matmul, torch.bmm, operator.matmul, methods=("matmul", "bmm"))
def matmul(graph: Graph, input: Value, other: Value) -> Value:
    """Lower a product of matrices that are computed both, with equal dimensions before the last two."""
    if not (isinstance(input, Value) and isinstance(other, Value)):
        unsupported("a matrix product with a constant: nn.Linear is one")
    rank = len(input.shape)
    if len(other.shape) != rank or rank < 3 or input.shape[:-2] != other.shape[:-2]:
        unsupported(f"a matrix product of {input.shape} with {other.shape}")
    plain = tuple(range(rank))
    # Kernels take the second matrix in either order, so that keys need not be transposed.
    swapped = (*plain[:-2], rank - 1, rank - 2)
    a, b = graph.reorder(input, plain), other if other.order == swapped else graph.reorder(other, plain)
    shape = (*input.shape[:-1], other.shape[-1])
    tensor = graph.emit("BATCH_MATMUL", [a.tensor, b.tensor], shape, adjX=False, adjY=b.order == swapped)
    return Value(tensor, shape, plain)


@lowers(F.softmax, torch.softmax, methods=("softmax",))
def softmax(graph: Graph, input: Value, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Value:
    """Lower a softmax over one dimension."""
    if dim is None or dtype is not None:
        unsupported("softmax without a dimension, or to another type")
    rank = len(input.shape)
    kept = [one for one in range(rank) if one != dim % rank]
    x = graph.reorder(input, (*kept, dim % rank))
    return Value(graph.emit("SOFTMAX", [x.tensor], x.stored, beta=1), x.shape, x.order)


@lowers_layer(nn.Softmax)
def softmax_layer(graph: Graph, layer: nn.Softmax, x: Value) -> Value:
    """Lower a softmax layer."""
    return softmax(graph, x, layer.dim)


@lowers(F.layer_norm)
def layer_norm(
    graph: Graph,
    input: Value,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Value:
    """Lower a layer norm over the last dimensions, for which TFLite has no operator."""
    dims = tuple(range(len(input.shape) - len(normalized_shape), len(input.shape)))
    if tuple(normalized_shape) != tuple(input.shape[dim] for dim in dims):
        unsupported(f"a layer norm over {tuple(normalized_shape)} of {input.shape}")
    centred = sub(graph, input, mean(graph, input, dims, keepdim=True))
    variance = add(graph, mean(graph, mul(graph, centred, centred), dims, keepdim=True), eps)
    inverse = Value(graph.emit("RSQRT", [variance.tensor], variance.stored), variance.shape, variance.order)
    found = mul(graph, centred, inverse)
    found = found if weight is None else mul(graph, found, weight)
    return found if bias is None else add(graph, found, bias)


@lowers_layer(nn.LayerNorm)
def layer_norm_layer(graph: Graph, layer: nn.LayerNorm, x: Value) -> Value:
    """Lower a layer norm layer."""
    return layer_norm(graph, x, layer.normalized_shape, layer.weight, layer.bias, layer.eps)


@lowers(F.gelu)
def gelu(graph: Graph, input: Value, approximate: str = "none") -> Value:
    """Lower a GELU, exact or with a hyperbolic tangent."""
    tensor = graph.emit("GELU", [input.tensor], input.stored, approximate=approximate == "tanh")
    return Value(tensor, input.shape, input.order)


@lowers_layer(nn.GELU)
def gelu_layer(graph: Graph, layer: nn.GELU, x: Value) -> Value:
    """Lower a GELU layer."""
    return gelu(graph, x, layer.approximate)


def _part(graph: Graph, x: Value, dim: int, start: int, length: int) -> Value:
    """Return `length` elements of a dimension, from `start` on."""
    if (start, length) == (0, x.shape[dim]):
        return x
    shape = (*x.shape[:dim], length, *x.shape[dim + 1 :])
    result = Value(x.tensor, shape, x.order)
    begin = [start if one == dim else 0 for one in x.order]
    inputs = [x.tensor, *(graph.constant(np.array(numbers, np.int32)) for numbers in (begin, result.stored))]
    return Value(graph.emit("SLICE", inputs, result.stored), shape, x.order)


@lowers(torch.split, methods=("split",))
def split(graph: Graph, tensor: Value, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Value, ...]:
    """Lower a split into parts of one size, of which the last may be smaller, or of given sizes."""
    dim %= len(tensor.shape)
    total, sizes = tensor.shape[dim], split_size_or_sections
    if isinstance(sizes, int):
        sizes = [min(sizes, total - start) for start in range(0, total, sizes)]
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    return tuple(_part(graph, tensor, dim, start, size) for start, size in zip(starts, sizes, strict=True))


@lowers(torch.chunk, methods=("chunk",))
def chunk(graph: Graph, input: Value, chunks: int, dim: int = 0) -> tuple[Value, ...]:
    """Lower a split into so many parts of one size, or fewer (`torch.chunk`)."""
    return split(graph, input, math.ceil(input.shape[dim] / chunks), dim)


@lowers(operator.getitem)
def getitem(graph: Graph, input: Any, index: Any) -> Any:
    """Lower `x[i]` of several values, and `x[i]`, `x[:, a:b]` of one."""
    if not isinstance(input, Value):
        return input[index]
    found, gone = input, []
    for dim, one in enumerate(index if isinstance(index, tuple) else (index,)):
        size = input.shape[dim]
        if isinstance(one, int) and -size <= one < size:
            found = _part(graph, found, dim, one % size, 1)
            gone.append(dim)
        elif isinstance(one, slice) and one.step in (None, 1):
            start, stop, _ = one.indices(size)
            found = _part(graph, found, dim, start, max(stop - start, 0))
        else:
            unsupported(f"the index {one!r}")
    return reshape(graph, found, [size for dim, size in enumerate(found.shape) if dim not in gone]) if gone else found
