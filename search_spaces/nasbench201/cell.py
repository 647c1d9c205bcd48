"""The cell of NAS-Bench-201: its operations and edges, and the layers that cell and skeleton execute."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from latlab.search_spaces import layers
from latlab.search_spaces.layers import Layer

__all__ = [
    "EDGES",
    "OPS",
    "edge_layers",
    "head_layers",
    "node_values",
    "reduction_layers",
    "stem_layers",
    "to_unique_str",
]


OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""Operations of an edge; a gene is an index into them."""

EDGES = ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))
"""(node, source) of the six genes, in the order of the string."""

PATHS = ((3,), (0, 4), (1, 5), (0, 2, 5))
"""Edges of each path from the input of a cell to its output."""


def format_genes(genes: Sequence[int]) -> str:
    """Return the string of a cell: `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`."""
    a, b, c, d, e, f = (OPS[gene] for gene in genes)
    return f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"


def to_unique_str(genes: Sequence[int]) -> str:
    """Return the authors' label of a cell, `to_unique_str(consider_zero=True)`; the space has 6,466 labels.

    The label writes each node as the sorted sum of its inputs, replaces a skip by its source and writes `#` for an edge
    that is `none` or whose source is exactly `#`. A sum of several `#` is not collapsed, so cells with different labels
    may compute the same function.
    """
    nodes = ["0"]
    for node in (1, 2, 3):
        terms = []
        for (target, source), gene in zip(EDGES, genes, strict=True):
            if target != node:
                continue
            if OPS[gene] == "none" or nodes[source] == "#":
                terms.append("#")
            elif OPS[gene] == "skip_connect":
                terms.append(nodes[source])
            else:
                terms.append(f"({nodes[source]})@{OPS[gene]}")
        nodes.append("+".join(sorted(terms)))
    return nodes[3]


@cache
def edge_layers(cell: int, edge: int, op: int, channels: int, size: int, width: int = 1) -> tuple[Layer, ...]:
    """Return the layers that an edge executes; a skip executes none. `width` convolutions are fused into one."""
    node, source = EDGES[edge]
    name = f"cell{cell}.{node}<-{source}"
    if OPS[op] == "none":
        return (layers.elementwise(f"{name}.zero", "zero", channels, size),)
    if OPS[op] == "skip_connect":
        return ()
    if OPS[op] == "avg_pool_3x3":
        return (layers.pool(f"{name}.pool", channels, size, 3, 1),)
    kernel = 1 if OPS[op] == "nor_conv_1x1" else 3
    return (
        layers.elementwise(f"{name}.relu", "relu", channels, size),
        layers.conv(f"{name}.conv", channels, width * channels, size, kernel),
    )


@cache
def reduction_layers(name: str, channels: int, size: int) -> tuple[Layer, ...]:
    """Return the layers of a residual block that halves `size` and doubles `channels`, both given for its input."""
    wide, small = 2 * channels, size // 2
    return (
        layers.elementwise(f"{name}.a.relu", "relu", channels, size),
        layers.conv(f"{name}.a.conv", channels, wide, size, 3, 2),
        layers.elementwise(f"{name}.b.relu", "relu", wide, small),
        layers.conv(f"{name}.b.conv", wide, wide, small, 3),
        layers.pool(f"{name}.shortcut.pool", channels, size, 2, 2),
        layers.conv(f"{name}.shortcut.conv", channels, wide, small, batch_norm=False),
        layers.elementwise(f"{name}.add", "add", wide, small),
    )


@cache
def stem_layers() -> tuple[Layer, ...]:
    """Return the layers before the cells."""
    return (layers.conv("stem.conv", 3, 16, 32, 3),)


@cache
def head_layers(num_classes: int) -> tuple[Layer, ...]:
    """Return the layers after the cells."""
    return (
        layers.batchnorm("last.batchnorm", 64, 8),
        layers.elementwise("last.relu", "relu", 64, 8),
        layers.mean("mean", 64, 8),
        layers.linear("classifier", 64, num_classes),
    )


@cache
def reaching_edges(genes: tuple[int, ...]) -> tuple[bool, ...]:
    """Return, for each edge, whether it has an operation and its result reaches the output."""
    reaches = {3}
    for (node, source), op in reversed(list(zip(EDGES, genes, strict=True))):
        if op and node in reaches:
            reaches.add(source)
    return tuple(bool(op) and node in reaches for (node, _), op in zip(EDGES, genes, strict=True))


@cache
def live_edges(genes: tuple[int, ...]) -> tuple[bool, ...]:
    """Return, for each edge, whether a path from the input leads to it and its result reaches the output."""
    receives = {0}
    for (node, source), op in zip(EDGES, genes, strict=True):
        if op and source in receives:
            receives.add(node)
    reaching = reaching_edges(genes)
    return tuple(keep and source in receives for (_, source), keep in zip(EDGES, reaching, strict=True))


def node_values(genes: NDArray[np.int64], keep: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return which of the first three nodes of each cell hold the same value: shape (n, 3).

    A node has the number of the first node whose value it has. A node fed by a skip alone has the value of its source.
    Two nodes that are average pools of the input and nothing else are equal, too.

    Args:
        genes: operations of the edges, shape (n, 6).
        keep: the edges that count, shape (n, 6).
    """
    skips, pools = (keep & (genes == OPS.index(name)) for name in ("skip_connect", "avg_pool_3x3"))
    first = np.where(skips[:, 0], 0, 1)
    alone = keep[:, 1] ^ keep[:, 2]
    second = np.full(len(genes), 2)
    second[alone & pools[:, 1] & pools[:, 0]] = 1
    second[alone & skips[:, 1]] = 0
    through = alone & skips[:, 2]
    second[through] = first[through]
    return np.stack([np.zeros_like(first), first, second], axis=1)
