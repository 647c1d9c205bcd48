"""Graphs of architectures as tensors, and the random sample of a space that encodings are trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from latlab.predictors.base import IntArray
from latlab.search_spaces import SearchSpace

__all__ = ["CHUNK", "Graphs", "graphs_of", "training_genes"]

TRAINING = 16_000
"""Architectures that an encoding is trained on: all of NAS-Bench-201, a random sample of a larger space."""
CHUNK = 512
"""Architectures that are encoded at a time, such that intermediate results stay in the processor's cache."""


@dataclass(frozen=True)
class Graphs:
    """n graphs of v nodes, of which the first is the input and the last the output.

    `operations` is float32 one-hot of shape (n, v, o), zeros where a node is absent. `edges` is float32 (n, v, v), 1
    where the row's node feeds the column's.
    """

    operations: Tensor
    edges: Tensor

    def __len__(self) -> int:
        return len(self.operations)

    def __getitem__(self, rows: Tensor | slice) -> Graphs:
        return Graphs(self.operations[rows], self.edges[rows])

    @property
    def present(self) -> Tensor:
        """1.0 where a node is there, else 0.0: shape (n, v)."""
        return self.operations.sum(dim=2)


def graphs_of(space: SearchSpace, genes: IntArray) -> Graphs:
    """Return the graphs of architectures `genes` (n, genes).

    Raises:
        ValueError: the space has no encoding `graph`.
    """
    if "graph" not in space.encodings:
        raise ValueError(f"{space.name} describes its architectures by no graph, which Arch2Vec and CATE read")
    encoded = torch.from_numpy(space.encode(genes, "graph"))
    nodes = encoded.shape[1]
    return Graphs(encoded[:, :, nodes:].contiguous(), encoded[:, :, :nodes].contiguous())


def training_genes(space: SearchSpace, seed: int) -> IntArray:
    """Return the architectures that an encoding is trained on: shape (m, genes)."""
    return space.genes(space.sample(min(TRAINING, space.size), seed))
