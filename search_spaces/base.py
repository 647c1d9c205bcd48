"""The contract that every search space fulfils, built in or a user's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from operator import index
from random import Random
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from latlab.search_spaces.architecture import Architecture, ArchitectureError, CellEdge
from latlab.search_spaces.features import layer_features
from latlab.search_spaces.layers import Layer

if TYPE_CHECKING:  # torch is heavy, and only `build` needs it
    from torch import nn

__all__ = ["SearchSpace"]

MOST_REPEATS = 1000
"""Draws that give nothing new, one after the other, until the rest of a finite space is taken in random order: its
rarest architectures may be drawn once in ten million times."""


class SearchSpace(ABC):
    """A set of networks that can be parsed, sampled, varied, built and encoded, and whose costs can be counted.

    A user's own space is a subclass registered under the entry-point group `latlab.search_spaces`.
    All random choices use a `Random` that the caller passes, so that a seed always gives the same architectures.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    """A line of description, which `latlab spaces` shows."""
    size: ClassVar[int]
    """Number of architectures."""
    finite: ClassVar[bool] = False
    """True where the space is small enough for `enumerate`."""
    buildable: ClassVar[bool] = True
    """True where `build` gives networks. A space without networks is for predictions from published tables."""
    autoregressive: ClassVar[bool] = False
    """True where a network generates its output step by step, each step from the choice of the one before
    (`torch_modules.Autoregressive`). Formats without loops refuse such networks, and so do zero-cost proxies, because
    no gradient passes a choice."""
    can_be_dead: ClassVar[bool] = True
    """True where a graph compiler removes layers of some networks; where False, `layers` ignores `live`."""
    num_classes: ClassVar[int]
    """Size of an output's last dimension; 0 where a network gives a sequence as long and as wide as its input."""
    num_genes: ClassVar[int]
    """Length of `Architecture.genes`."""
    encodings: ClassVar[tuple[str, ...]]
    """Names that `encode` takes; the first is the default."""
    block_space: ClassVar[str | None] = None
    """Import path of the space's `BlockSpace`, as "module:class", for `search_spaces.blocks_of`; None where networks
    are not made of blocks. It is a string because that module imports this one."""

    def integers(self, genes: Sequence[int]) -> tuple[int, ...]:
        """Return `genes` as Python integers; numpy's integers are accepted.

        Raises:
            ArchitectureError: a gene is not an integer.
        """
        try:
            return tuple(index(gene) for gene in genes)
        except TypeError:
            raise ArchitectureError(f"{self.name}: genes are integers, not {genes!r}") from None

    def genes(self, archs: Sequence[Architecture] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the genes of `archs`, int64 of shape (n, num_genes); an array of genes is returned as it is.

        Raises:
            ValueError: the array has another shape.
        """
        if isinstance(archs, np.ndarray):
            if archs.ndim != 2 or archs.shape[1] != self.num_genes:
                raise ValueError(f"genes of {self.name} have the shape (n, {self.num_genes}), not {archs.shape}")
            return archs
        return np.array([arch.genes for arch in archs], np.int64).reshape(len(archs), self.num_genes)

    def architectures(self, archs: Sequence[Architecture] | NDArray[np.int64]) -> list[Architecture]:
        """Return `archs` as a list of `Architecture`, made by `from_genes` where `archs` is an array of genes."""
        return [self.from_genes(row) for row in archs] if isinstance(archs, np.ndarray) else list(archs)

    def valid(self, genes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which rows of an integer array (n, num_genes) are genes of an architecture: shape (n,).

        The default asks `from_genes` about each row, which is slow; the built-in spaces check all rows at once.
        """
        return np.array([self._is_architecture(row) for row in genes], dtype=bool)

    def _is_architecture(self, genes: Sequence[int]) -> bool:
        try:
            self.from_genes(genes)
        except ArchitectureError:
            return False
        return True

    @abstractmethod
    def parse(self, text: str) -> Architecture:
        """Return the architecture that `text` names, in any spelling that the space accepts.

        Raises:
            ArchitectureError: the string names no architecture of the space; the message says what would.
        """

    @abstractmethod
    def from_genes(self, genes: Sequence[int]) -> Architecture:
        """Return the architecture that has these genes.

        Raises:
            ArchitectureError: the genes belong to no architecture of the space; the message says what would.
        """

    @abstractmethod
    def random(self, rng: Random) -> Architecture:
        """Draw an architecture, each of its choices uniformly."""

    @abstractmethod
    def mutate(self, arch: Architecture, rng: Random) -> Architecture:
        """Return a random neighbour of `arch`: exactly one choice is changed, so it is never `arch` itself."""

    @abstractmethod
    def crossover(self, a: Architecture, b: Architecture, rng: Random) -> Architecture:
        """Return a child of `a` and `b` that takes each choice from a random parent (uniform crossover)."""

    def mutate_genes(self, genes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Return a random neighbour of each row of genes, of shape (n, num_genes), as `mutate` does.

        The default asks `mutate` about each row, which is slow; the built-in spaces change all rows at once.
        """
        one_by_one = Random(int(rng.integers(2**63)))
        return self.genes([self.mutate(self.from_genes(row), one_by_one) for row in genes])

    def crossover_genes(
        self, a: NDArray[np.int64], b: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Return a child of each pair of rows of `a` and `b`, of shape (n, num_genes), as `crossover` does.

        The default asks `crossover` about each pair, which is slow; the built-in spaces cross all pairs at once.
        """
        one_by_one = Random(int(rng.integers(2**63)))
        pairs = zip(a, b, strict=True)
        return self.genes([self.crossover(self.from_genes(x), self.from_genes(y), one_by_one) for x, y in pairs])

    @abstractmethod
    def input_shape(self, arch: Architecture) -> tuple[int, int, int]:
        """Return (channels, height, width) of the input that `arch` takes."""

    @abstractmethod
    def layers(self, arch: Architecture, *, live: bool = False) -> tuple[Layer, ...]:
        """Return the layers that the network executes at batch size 1, in order, with their analytic costs.

        Args:
            live: leave out dead edges, as a graph compiler does; by default the network is as written.
        """

    def cell_edges(self, arch: Architecture) -> tuple[CellEdge, ...]:
        """Return the edges of the cell that the network repeats, for a drawing; by default none, as if it had no cell.

        Nodes are numbered from the input, 0, in an order in which each edge goes to a later one; the last is the
        output.
        """
        return ()

    def readings(self, arch: Architecture) -> dict[str, tuple[tuple[Layer, ...], ...]]:
        """Return the readings of the graph: what different runtimes may execute, as name -> branches of layers.

        The branches of a reading run in parallel, so the slowest branch determines the latency. All architectures of a
        space have the same readings: by default `written` and `live` (see `layers`), or only `written` in a space where
        nothing `can_be_dead`.
        """
        ways = (False, True) if self.can_be_dead else (False,)
        return {"live" if live else "written": (self.layers(arch, live=live),) for live in ways}

    @abstractmethod
    def build(self, arch: Architecture, *, seed: int = 0, as_written: bool = False) -> nn.Module:
        """Build the network in eval mode, with weights from `seed` and calibrated batch norms (`torch_modules.finish`).

        Args:
            as_written: keep dead edges and the published forms of activations and means. By default
                dead edges are pruned and activations are single operators.

        Raises:
            NotImplementedError: the space is not `buildable`.
        """

    @abstractmethod
    def encode(self, archs: Sequence[Architecture] | NDArray[np.int64], encoding: str) -> np.ndarray:
        """Encode `archs`, given as values or as genes.

        Args:
            encoding: a name in `encodings`. `one-hot`, which every space has, is a vector of all choices. `graph` is
                n x v x (v + o): `[..., :v]` is the adjacency of v nodes (from row to column), `[..., v:]` their
                operations as one-hot.

        Returns:
            float32 of shape (n, d), or (n, ...) for encodings that are not vectors.

        Raises:
            ValueError: the space has no encoding of that name.
        """

    def features(self, genes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return counts of what the networks execute, in which latency is close to linear.

        The first column is 1, the others count what costs time on some device: blocks, operations in several readings
        of the graph, multiply-accumulates. Nothing is measured and no column is scaled. The default counts layer by
        layer from `readings`, which is slow; the built-in spaces count for all genes at once.

        Args:
            genes: shape (n, num_genes).

        Returns:
            float64 of shape (n, features).
        """
        return layer_features(self, genes)

    @abstractmethod
    def references(self) -> tuple[Architecture, ...]:
        """Return HELP's ten reference architectures in HELP's order; their latencies are its hardware embedding.

        A space for which HELP has none returns ten architectures that never change.
        """

    def designed(self) -> tuple[Architecture, ...]:
        """Return architectures in the order in which onboarding measures them, before it chooses any; by default none.

        A space whose architectures differ so much that no posterior can weigh them says so itself.
        """
        return ()

    def canonical(self, arch: Architecture) -> Architecture:
        """Return the representative of all architectures that execute the same graph once dead edges are removed."""
        return arch

    def canonical_genes(self, genes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the genes of the `canonical` form of each row of genes, of shape (n, num_genes).

        Where `from_genes` ignores some of them, these become what it makes of them.
        """
        if type(self).canonical is SearchSpace.canonical:
            return genes
        return self.genes([self.canonical(self.from_genes(row)) for row in genes])

    def unknown_encoding(self, encoding: str) -> ValueError:
        """Return the error that `encode` raises for an encoding that the space does not have."""
        return ValueError(f"{self.name} has no encoding {encoding!r}; it has: {', '.join(self.encodings)}")

    def is_constant(self, arch: Architecture) -> bool:
        """Return whether the network's output cannot depend on its input, as with an unconnected cell."""
        return False

    def constant(self, genes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return `is_constant` of each row of genes, of shape (n, num_genes)."""
        if type(self).is_constant is SearchSpace.is_constant:
            return np.zeros(len(genes), bool)
        return np.array([self.is_constant(self.from_genes(row)) for row in genes], bool)

    def enumerate(self) -> Iterator[Architecture]:
        """Iterate over all architectures of a `finite` space, in the official order.

        Raises:
            NotImplementedError: the space is too large to enumerate.
        """
        raise NotImplementedError(f"{self.name} has {self.size:.3g} architectures: sample it instead")

    def sample(self, n: int, seed: int | Random | np.random.Generator = 0) -> list[Architecture]:
        """Draw `n` distinct architectures by `random`; for one seed, a longer sample begins with the shorter one.

        Args:
            n: the number of architectures.
            seed: a seed, or a generator of random numbers, Python's or NumPy's, which the draw advances.

        Raises:
            ValueError: `n` is negative, or the space has fewer architectures.
        """
        if not 0 <= n <= self.size:
            raise ValueError(f"{self.name} has only {self.size} architectures, {n} were asked for")
        if isinstance(seed, np.random.Generator):
            seed = int(seed.integers(2**63))
        rng = seed if isinstance(seed, Random) else Random(index(seed))
        drawn: dict[Architecture, None] = {}
        repeats = 0
        while len(drawn) < n:
            before = len(drawn)
            drawn.setdefault(self.random(rng))
            repeats = repeats + 1 if len(drawn) == before else 0
            if repeats == MOST_REPEATS and self.finite:
                rest = [arch for arch in self.enumerate() if arch not in drawn]
                rng.shuffle(rest)
                drawn.update(dict.fromkeys(rest))
        return list(drawn)[:n]
