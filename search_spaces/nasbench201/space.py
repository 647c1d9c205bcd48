"""NAS-Bench-201's search space (Dong and Yang, ICLR 2020): cells of four nodes, six edges and five operations.

The official index, the labels of cells (`cell.to_unique_str`, 6,466 of them) and the skeleton follow the authors.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from random import Random
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from latlab.search_spaces import layers
from latlab.search_spaces.architecture import Architecture, ArchitectureError, CellEdge
from latlab.search_spaces.base import SearchSpace
from latlab.search_spaces.encodings import one_hot
from latlab.search_spaces.layers import Layer
from latlab.search_spaces.nasbench201.cell import (
    EDGES,
    OPS,
    PATHS,
    edge_layers,
    format_genes,
    head_layers,
    live_edges,
    node_values,
    reaching_edges,
    reduction_layers,
    stem_layers,
)
from latlab.search_spaces.nasbench201.features import all_features
from latlab.search_spaces.variation import change_one_gene, uniform_crossover

if TYPE_CHECKING:  # torch is heavy, and only `build` needs it
    from torch import nn

__all__ = ["NASBench201"]


_REFERENCES = (11982, 431, 55, 9, 14451, 8636, 9881, 13479, 6196, 1462)
"""Official indices of the ten architectures whose latencies are HELP's embedding of a device."""

_EXAMPLE = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|"


@cache
def _official_order() -> tuple[tuple[int, ...], ...]:
    genes = list(itertools.product(range(5), repeat=6))
    Random(88).shuffle(genes)
    return tuple(genes)


@cache
def _canonical_genes() -> NDArray[np.int64]:
    """Return the genes of the canonical forms of all cells, in the order of their genes as a number in base 5."""
    found = np.empty((5**6, 6), np.int64)
    for number in range(len(found)):
        genes = tuple(number // 5**place % 5 for place in range(6))
        found[number] = [op if keep else 0 for op, keep in zip(genes, live_edges(genes), strict=True)]
    return found


@cache
def _adjacency() -> np.ndarray:
    """Return the adjacency of input, six edges and output, from row to column: float32, 8 x 8."""
    adjacency = np.zeros((8, 8), np.float32)
    for i, (node, source) in enumerate(EDGES, start=1):
        if source == 0:
            adjacency[0, i] = 1
        if node == 3:
            adjacency[i, 7] = 1
        for j, (_, other_source) in enumerate(EDGES, start=1):
            if other_source == node:
                adjacency[i, j] = 1
    return adjacency


def _values(edges: Sequence[tuple[int, int, int]]) -> list[int]:
    """Return the numbers of `cell.node_values` of a cell with the given edges (edge, node, operation)."""
    genes, keep = np.zeros((1, 6), np.int64), np.zeros((1, 6), bool)
    for edge, _, op in edges:
        genes[0, edge], keep[0, edge] = op, op > 0
    found: list[int] = node_values(genes, keep)[0].tolist()
    return found


class NASBench201(SearchSpace):
    """The CIFAR-10 networks of NAS-Bench-201: 15,625 cells in a fixed skeleton, 32x32 input, 10 classes.

    Genes are the operations of the six edges, as indices into `cell.OPS`.
    """

    name: ClassVar[str] = "nasbench201"
    title: ClassVar[str] = "NAS-Bench-201: 15,625 cells of 6 edges x 5 operations, CIFAR-10, 32 px"
    size: ClassVar[int] = 5**6
    finite: ClassVar[bool] = True
    num_classes: ClassVar[int] = 10
    num_genes: ClassVar[int] = 6
    encodings: ClassVar[tuple[str, ...]] = ("one-hot", "graph")
    block_space: ClassVar[str | None] = "latlab.search_spaces.nasbench201.blocks:NASBench201Blocks"

    def from_genes(self, genes: Sequence[int]) -> Architecture:
        genes = self.integers(genes)
        if len(genes) != 6 or not all(0 <= gene < 5 for gene in genes):
            raise ArchitectureError(f"{self.name}: genes are 6 operation indices 0-4, not {list(genes)}")
        return Architecture(self.name, format_genes(genes), genes)

    def valid(self, genes: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.asarray(((genes >= 0) & (genes < len(OPS))).all(axis=1))

    def parse(self, text: str) -> Architecture:
        compact = "".join(text.split())
        nodes = [node.strip("|").split("|") for node in compact.split("+")]
        if [len(node) for node in nodes] != [1, 2, 3]:
            raise ArchitectureError(
                f"{self.name}: {text!r} is not three nodes of 1, 2 and 3 edges; a valid string is {_EXAMPLE}"
            )
        genes = []
        for (node, source), edge in zip(EDGES, itertools.chain(*nodes), strict=True):
            op, _, tail = edge.partition("~")
            if op not in OPS:
                raise ArchitectureError(
                    f"{self.name}: unknown operation {op!r} in {text!r}; operations are: {', '.join(OPS)}"
                )
            if tail != str(source):
                raise ArchitectureError(
                    f"{self.name}: {edge!r} in {text!r} must end in ~{source}, the source of this edge of "
                    f"node {node}; a valid string is {_EXAMPLE}"
                )
            genes.append(OPS.index(op))
        return self.from_genes(genes)

    def random(self, rng: Random) -> Architecture:
        return self.from_genes([rng.randrange(5) for _ in EDGES])

    def mutate(self, arch: Architecture, rng: Random) -> Architecture:
        genes = list(arch.genes)
        edge = rng.randrange(6)
        genes[edge] = rng.choice([op for op in range(5) if op != genes[edge]])
        return self.from_genes(genes)

    def crossover(self, a: Architecture, b: Architecture, rng: Random) -> Architecture:
        return self.from_genes([rng.choice(pair) for pair in zip(a.genes, b.genes, strict=True)])

    def mutate_genes(self, genes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        return change_one_gene(genes, len(OPS), rng)

    def crossover_genes(
        self, a: NDArray[np.int64], b: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        return uniform_crossover(a, b, rng)

    def canonical(self, arch: Architecture) -> Architecture:
        """Return the cell whose dead edges are `none`."""
        live = live_edges(arch.genes)
        return self.from_genes([op if keep else 0 for op, keep in zip(arch.genes, live, strict=True)])

    def canonical_genes(self, genes: NDArray[np.int64]) -> NDArray[np.int64]:
        found: NDArray[np.int64] = _canonical_genes()[genes @ 5 ** np.arange(6)]
        return found

    def is_constant(self, arch: Architecture) -> bool:
        return not any(live_edges(arch.genes))

    def constant(self, genes: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.asarray(~self.canonical_genes(genes).any(axis=1))

    def enumerate(self) -> Iterator[Architecture]:
        return map(self.from_genes, _official_order())

    def at(self, index: int) -> Architecture:
        """Return the architecture with the official index.

        Raises:
            ArchitectureError: the index is outside of 0-15624.
        """
        if not 0 <= index < self.size:
            raise ArchitectureError(f"{self.name}: index {index} is not in 0-{self.size - 1}")
        return self.from_genes(_official_order()[index])

    def references(self) -> tuple[Architecture, ...]:
        return tuple(map(self.at, _REFERENCES))

    def input_shape(self, arch: Architecture) -> tuple[int, int, int]:
        return (3, 32, 32)

    def cell_edges(self, arch: Architecture) -> tuple[CellEdge, ...]:
        return tuple(
            CellEdge(source, node, OPS[op], live)
            for (node, source), op, live in zip(EDGES, arch.genes, live_edges(arch.genes), strict=True)
            if op
        )

    def layers(self, arch: Architecture, *, live: bool = False) -> tuple[Layer, ...]:
        keep = live_edges(arch.genes) if live else (True,) * 6
        edges = [
            (edge, node, op) for edge, ((node, _), op) in enumerate(zip(EDGES, arch.genes, strict=True)) if keep[edge]
        ]
        return self._layers_of(edges or [(3, 3, 0)])

    def _layers_of(
        self, edges: Sequence[tuple[int, int, int]], *, merge: bool = False, fuse: bool = False
    ) -> tuple[Layer, ...]:
        """Return the layers of a network whose cells have the given edges (edge, node, operation).

        Args:
            merge: execute equal operations on the same value (average pools, the ReLUs before convolutions) once.
            fuse: besides, execute convolutions of one size on the same value as one with more output channels.
        """
        additions = [False, *(node == previous for (_, node, _), (_, previous, _) in itertools.pairwise(edges))]
        value = _values(edges)
        siblings = Counter((value[EDGES[edge][1]], op) for edge, _, op in edges)
        found = [*stem_layers()]
        for cell in range(1, 16):
            stage = (cell - 1) // 5
            channels, size = 16 << stage, 32 >> stage
            if cell in (6, 11):
                found += reduction_layers(f"reduction{stage}", channels // 2, size * 2)
            done: set[tuple[int, str]] = set()
            for (edge, node, op), is_addition in zip(edges, additions, strict=True):
                start = value[EDGES[edge][1]]
                width = siblings[start, op] if fuse else 1
                for layer in edge_layers(cell, edge, op, channels, size, width):
                    same = (start, f"{layer.kind}{layer.kernel}")
                    if not merge or (layer.macs and not fuse) or same not in done:
                        found.append(layer)
                        done.add(same)
                if is_addition:
                    name = f"cell{cell}.{node}<-{EDGES[edge][1]}.add"
                    found.append(layers.elementwise(name, "add", channels, size))
        found += head_layers(self.num_classes)
        return tuple(found)

    def readings(self, arch: Architecture) -> dict[str, tuple[tuple[Layer, ...], ...]]:
        """Return the layers that are left after what compilers and runtimes remove, merge or run in parallel.

        `written`: all edges. `reaching`: the edges whose result reaches the output. `live`: those of them that a path
        from the input leads to. `folded`: all edges, but a network whose output is constant is folded to its tail.
        `critical-written` and `critical-live`: every path of the graph as a parallel branch. `merged-written` and
        `merged`: all or the live edges, with equal operations on the same value executed once. `fused`: besides, live
        convolutions of one size on the same value are one convolution with more output channels.
        """
        genes = arch.genes
        every = [(edge, node, op) for edge, ((node, _), op) in enumerate(zip(EDGES, genes, strict=True))]
        reaching, live = reaching_edges(genes), live_edges(genes)
        alive = [edge for edge in every if live[edge[0]]]
        paths = [[every[edge] for edge in path] for path in PATHS]
        open_paths = [path for path in paths if all(live[edge] for edge, _, _ in path)]
        chosen = {
            "written": [every],
            "reaching": [[edge for edge in every if reaching[edge[0]]]],
            "live": [alive],
            "folded": [every],
            "critical-written": paths,
            "critical-live": open_paths or [[]],
        }
        found = {name: tuple(self._layers_of(edges or [(3, 3, 0)]) for edges in many) for name, many in chosen.items()}
        if not alive:
            found["folded"] = (head_layers(self.num_classes),)
        alive = alive or [(3, 3, 0)]
        return found | {
            "merged-written": (self._layers_of(every, merge=True),),
            "merged": (self._layers_of(alive, merge=True),),
            "fused": (self._layers_of(alive, merge=True, fuse=True),),
        }

    def features(self, genes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return operations counted in several readings of the graph, and lengths of critical paths."""
        found: NDArray[np.float64] = all_features()[genes @ 5 ** np.arange(6)]
        return found

    def encode(self, archs: Sequence[Architecture] | NDArray[np.int64], encoding: str) -> np.ndarray:
        """Encode cells as `one-hot` or `graph`.

        `one-hot`: 30 numbers, six edges x five operations.
        `graph`: 8 x (8 + 7). Nodes are the input, the six edges in the order of the string, the output (edges
        are nodes, as in BRP-NAS and NASFLAT); operations are input, the five of `OPS`, output. The adjacency
        is the same for all cells, because `none` is an operation here, not a missing edge.
        """
        genes = self.genes(archs)
        if encoding == "one-hot":
            return one_hot(genes, [5] * 6)
        if encoding != "graph":
            raise self.unknown_encoding(encoding)
        operations = np.zeros((len(genes), 8, 7), np.float32)
        operations[:, 1:7, 1:6] = one_hot(genes, [5] * 6).reshape(-1, 6, 5)
        operations[:, 0, 0] = operations[:, 7, 6] = 1
        adjacency = np.broadcast_to(_adjacency(), (len(genes), 8, 8))
        return np.concatenate([adjacency, operations], axis=2)

    def build(self, arch: Architecture, *, seed: int = 0, as_written: bool = False) -> nn.Module:
        # Imported here because they import torch, which counting and predicting do without.
        from latlab.search_spaces.nasbench201.modules import Network
        from latlab.search_spaces.torch_modules import finish

        genes = arch.genes
        live = [True] * 6 if as_written else live_edges(genes)
        edges = [(*edge, OPS[op]) for edge, op, keep in zip(EDGES, genes, live, strict=True) if keep]
        return finish(Network(edges, self.num_classes), self.input_shape(arch), seed)
