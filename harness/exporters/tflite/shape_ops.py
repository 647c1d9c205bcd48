"""Lowerings of operators that move, join or average over dimensions. Most only change a value's shape and order."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from latlab.harness.exporters.tflite.graph import Graph, Value, channels_last
from latlab.harness.exporters.tflite.registry import lowers, lowers_layer, unsupported

__all__: list[str] = []


def _groups(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Split a reshape into the smallest independent parts: (dimensions of `old`, dimensions of `new`).

    Dimensions of size 1 are in no part. `(8, 6, 5) -> (8, 2, 3, 5)` gives `[0]-[0], [1]-[1, 2], [2]-[3]`.
    """
    left = [dim for dim, size in enumerate(old) if size != 1]
    right = [dim for dim, size in enumerate(new) if size != 1]
    groups = []
    while left:
        a, b = [left.pop(0)], [right.pop(0)]
        while (p := math.prod(old[dim] for dim in a)) != (q := math.prod(new[dim] for dim in b)):
            if p < q:
                a.append(left.pop(0))
            else:
                b.append(right.pop(0))
        groups.append((a, b))
    return groups


def _stored_order(dims: list[int], shape: Sequence[int]) -> tuple[int, ...]:
    """Return an order with the dimensions of size > 1 in the sequence `dims`: NHWC or PyTorch's if possible."""
    rank = len(shape)
    for order in (channels_last(rank), tuple(range(rank))):
        if [dim for dim in order if shape[dim] != 1] == dims:
            return order
    return (*(dim for dim in range(rank) if shape[dim] == 1), *dims)


@lowers(torch.reshape, methods=("view", "reshape"))
def reshape(graph: Graph, input: Value, *shape: int | Sequence[int]) -> Value:
    """Lower PyTorch's reshape of a tensor that may be stored in another order.

    Parts of the shape that do not change stay where they are stored. So a channel shuffle costs only the one TRANSPOSE
    that it is, and flattening an image only the one that restores NCHW.
    """
    sizes = [int(size) for part in shape for size in (part if isinstance(part, Sequence) else [part])]
    if -1 in sizes:
        known = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = math.prod(input.shape) // max(known, 1)
    if math.prod(sizes) != math.prod(input.shape):
        unsupported(f"reshaping {input.shape} to {tuple(sizes)}")
    groups = _groups(input.shape, sizes)
    group_of = {dim: group for group in groups for dim in group[0]} if groups else {}
    # A part's dimensions must be adjacent and in PyTorch's order before the part can be split differently.
    parts: list[tuple[list[int], list[int]]] = []
    for dim in input.order:
        if dim in group_of and group_of[dim] not in parts:
            parts.append(group_of[dim])
    old_dims = [dim for part in parts for dim in part[0]]
    if [dim for dim in input.order if input.shape[dim] != 1] != old_dims:
        if len(sizes) < 4:  # data move anyway: to where most operators of sequences want them
            parts = groups
            old_dims = [dim for part in parts for dim in part[0]]
        ones = tuple(dim for dim in range(len(input.shape)) if input.shape[dim] == 1)
        input = graph.reorder(input, (*ones, *old_dims))
    new_shape = tuple(sizes)
    order = _stored_order([dim for part in parts for dim in part[1]], new_shape)
    result = Value(input.tensor, new_shape, order)
    return Value(graph.reshape_stored(input.tensor, input.stored, result.stored), new_shape, order)


@lowers(torch.flatten, methods=("flatten",))
def flatten(graph: Graph, input: Value, start_dim: int = 0, end_dim: int = -1) -> Value:
    """Lower a flatten."""
    rank = len(input.shape)
    start, end = start_dim % rank, end_dim % rank
    merged = math.prod(input.shape[start : end + 1])
    return reshape(graph, input, (*input.shape[:start], merged, *input.shape[end + 1 :]))


@lowers_layer(nn.Flatten)
def flatten_layer(graph: Graph, layer: nn.Flatten, x: Value) -> Value:
    """Lower a flatten layer."""
    return flatten(graph, x, layer.start_dim, layer.end_dim)


@lowers(torch.squeeze, methods=("squeeze",))
def squeeze(graph: Graph, input: Value, dim: int | Sequence[int] | None = None) -> Value:
    """Lower a squeeze."""
    rank = len(input.shape)
    dims = range(rank) if dim is None else [d % rank for d in ([dim] if isinstance(dim, int) else dim)]
    return reshape(graph, input, [size for i, size in enumerate(input.shape) if size != 1 or i not in dims])


@lowers(torch.unsqueeze, methods=("unsqueeze",))
def unsqueeze(graph: Graph, input: Value, dim: int) -> Value:
    """Lower an unsqueeze."""
    at = dim % (len(input.shape) + 1)
    return reshape(graph, input, (*input.shape[:at], 1, *input.shape[at:]))


@lowers(torch.permute, methods=("permute",))
def permute(graph: Graph, input: Value, *dims: int | Sequence[int]) -> Value:
    """Lower a permute: the stored data stay, only their order's bookkeeping changes."""
    wanted = [dim % len(input.shape) for part in dims for dim in (part if isinstance(part, Sequence) else [part])]
    order = tuple(wanted.index(dim) for dim in input.order)
    return Value(input.tensor, tuple(input.shape[dim] for dim in wanted), order)


@lowers(torch.transpose, methods=("transpose",))
def transpose(graph: Graph, input: Value, dim0: int, dim1: int) -> Value:
    """Lower a transpose, as a permute."""
    dims = list(range(len(input.shape)))
    dims[dim0], dims[dim1] = dims[dim1], dims[dim0]
    return permute(graph, input, dims)


@lowers(methods=("contiguous",))
def contiguous(graph: Graph, input: Value) -> Value:
    """Lower `contiguous`, which changes no value."""
    return input


@lowers(torch.channel_shuffle, F.channel_shuffle)
def channel_shuffle(graph: Graph, input: Value, groups: int) -> Value:
    """Lower a channel shuffle, which interleaves `groups` groups of channels (ShuffleNet)."""
    n, c, *size = input.shape
    split = reshape(graph, input, (n, groups, c // groups, *size))
    return reshape(graph, transpose(graph, split, 1, 2), input.shape)


@lowers_layer(nn.ChannelShuffle)
def channel_shuffle_layer(graph: Graph, layer: nn.ChannelShuffle, x: Value) -> Value:
    """Lower a channel shuffle layer."""
    return channel_shuffle(graph, x, layer.groups)


@lowers(torch.cat, torch.concat)
def cat(graph: Graph, tensors: Sequence[Value], dim: int = 0) -> Value:
    """Lower a concatenation."""
    first = tensors[0]
    if not all(isinstance(x, Value) and len(x.shape) == len(first.shape) for x in tensors):
        unsupported("concatenation with constants or of different ranks")
    dim %= len(first.shape)
    inputs = [graph.reorder(x, first.order) for x in tensors]
    shape = (*first.shape[:dim], sum(x.shape[dim] for x in inputs), *first.shape[dim + 1 :])
    result = Value(first.tensor, shape, first.order)
    axis = first.order.index(dim)
    return Value(graph.emit("CONCATENATION", [x.tensor for x in inputs], result.stored, axis=axis), shape, first.order)


@lowers(torch.mean, methods=("mean",))
def mean(graph: Graph, input: Value, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Value:
    """Lower a mean over dimensions."""
    rank = len(input.shape)
    dims = range(rank) if dim is None else [d % rank for d in ([dim] if isinstance(dim, int) else dim)]
    axes = sorted(input.order.index(d) for d in dims)
    if keepdim:
        shape, order = tuple(1 if i in dims else size for i, size in enumerate(input.shape)), input.order
    else:
        kept = [i for i in range(rank) if i not in dims]
        shape = tuple(input.shape[i] for i in kept)
        order = tuple(kept.index(i) for i in input.order if i in kept)
    result = Value(input.tensor, shape, order)
    constant = graph.constant(np.array(axes, np.int32))
    return Value(graph.emit("MEAN", [input.tensor, constant], result.stored, keepDims=keepdim), shape, order)


@lowers(methods=("size",))
def size(graph: Graph, input: Value, dim: int | None = None) -> int | tuple[int, ...]:
    """Return the sizes, which are constants of the traced graph."""
    return input.shape if dim is None else input.shape[dim]


@lowers(methods=("dim",))
def rank(graph: Graph, input: Value) -> int:
    """Return the number of dimensions."""
    return len(input.shape)


@lowers(getattr)
def attribute(graph: Graph, input: Value, name: str) -> tuple[int, ...] | int:
    """Return `shape` or `ndim`; other attributes are not supported."""
    if name == "shape":
        return input.shape
    if name == "ndim":
        return len(input.shape)
    return unsupported(f"the attribute {name!r} of a tensor")
