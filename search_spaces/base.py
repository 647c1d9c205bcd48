"""What a search space is: the contract that every space, built in or a user's own, fulfils."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from operator import index
from random import Random
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from latlab.search_spaces.architecture import Architecture, ArchitectureError
from latlab.search_spaces.features import layer_features
from latlab.search_spaces.layers import Layer

if TYPE_CHECKING:  # torch is heavy, and only `build` needs it
    from torch import nn

__all__ = ["SearchSpace"]


class SearchSpace(ABC):
    """A set of networks that can be named, drawn, varied, built, counted and encoded.

    A user's own space is a subclass registered under the entry-point group `latlab.search_spaces`.
    Chance always comes in as a `Random`, so that the same seed gives the same architectures.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    """One line for `latlab spaces`."""
    size: ClassVar[int]
    """How many architectures there are."""
    finite: ClassVar[bool] = False
    """Whether `enumerate` is feasible."""
    buildable: ClassVar[bool] = True
    """Whether `build` gives networks. If not, the space is for predictions from published tables."""
    can_be_dead: ClassVar[bool] = True
    """Whether some networks have layers that a graph compiler removes. If not, `layers` are the same as written."""
    num_classes: ClassVar[int]
    """Outputs of a network."""
    num_genes: ClassVar[int]
    """Integers that name an architecture: the length of `Architecture.genes`."""
    encodings: ClassVar[tuple[str, ...]]
    """Names that `encode` takes; the first is the default."""
    block_space: ClassVar[str | None] = None
    """Where the class of the space's blocks is, as "module:BlockSpace subclass" (`search_spaces.blocks_of` loads it);
    None where networks are not made of blocks. It is a string because that module imports this one."""

    def integers(self, genes: Sequence[int]) -> tuple[int, ...]:
        """`genes` as plain integers (numpy's are welcome). Raises `ArchitectureError`."""
        try:
            return tuple(index(gene) for gene in genes)
        except TypeError:
            raise ArchitectureError(f"{self.name}: genes are integers, not {genes!r}") from None

    def genes(self, archs: Sequence[Architecture] | NDArray[np.int64]) -> NDArray[np.int64]:
        """The genes of `archs`, int64 of shape (n, genes); an array of genes is handed back as it is."""
        if isinstance(archs, np.ndarray):
            return archs
        return np.array([arch.genes for arch in archs], np.int64).reshape(len(archs), self.num_genes)

    def architectures(self, archs: Sequence[Architecture] | NDArray[np.int64]) -> list[Architecture]:
        """The reverse of `genes`: values, also where genes were given."""
        return [self.from_genes(row) for row in archs] if isinstance(archs, np.ndarray) else list(archs)

    @abstractmethod
    def parse(self, text: str) -> Architecture:
        """Architecture from its string (any accepted spelling). Raises `ArchitectureError`."""

    @abstractmethod
    def from_genes(self, genes: Sequence[int]) -> Architecture:
        """Architecture from its integer genes. Raises `ArchitectureError`."""

    @abstractmethod
    def random(self, rng: Random) -> Architecture:
        """One architecture, each choice drawn uniformly."""

    @abstractmethod
    def mutate(self, arch: Architecture, rng: Random) -> Architecture:
        """A neighbour: exactly one choice changed, so never `arch` itself."""

    @abstractmethod
    def crossover(self, a: Architecture, b: Architecture, rng: Random) -> Architecture:
        """A child that takes each choice from one of its parents (uniform crossover)."""

    @abstractmethod
    def input_shape(self, arch: Architecture) -> tuple[int, int, int]:
        """(channels, height, width) of the input that `arch` takes."""

    @abstractmethod
    def layers(self, arch: Architecture, *, live: bool = False) -> tuple[Layer, ...]:
        """Analytic cost per layer at batch size 1 (see `cost.py`), in order of execution.

        As written, or with `live=True` as a graph compiler leaves it: dead edges removed.
        """

    def readings(self, arch: Architecture) -> dict[str, tuple[tuple[Layer, ...], ...]]:
        """What different runtimes may make of the graph: name -> branches, each a sequence of layers.

        The branches of one reading run in parallel, so that the slowest of them is the latency. All architectures of a
        space have the same readings: by default `written` and `live` (see `layers`), or only the first where the space
        says that nothing `can_be_dead`.
        """
        ways = (False, True) if self.can_be_dead else (False,)
        return {"live" if live else "written": (self.layers(arch, live=live),) for live in ways}

    @abstractmethod
    def build(self, arch: Architecture, *, seed: int = 0, as_written: bool = False) -> nn.Module:
        """The network in eval mode, weights from `seed`, batch norms calibrated (`modules.py`).

        Args:
            as_written: keep dead edges and the published forms of activations and means. By default
                dead edges are pruned and activations are single operators.

        Raises:
            NotImplementedError: where the space is not `buildable`.
        """

    @abstractmethod
    def encode(self, archs: Sequence[Architecture] | NDArray[np.int64], encoding: str) -> np.ndarray:
        """Encodings of `archs` (or of their genes): float32 array of shape (len(archs), d) or (len(archs), ...).

        `one-hot`, which every space has, is a vector of all choices. `graph` is n x v x (v + o): `[..., :v]`
        is the adjacency of v nodes (from row to column), `[..., v:]` their operations as one-hot. Raises
        `ValueError` for a name that is not in `encodings`.
        """

    def features(self, genes: NDArray[np.int64]) -> NDArray[np.float64]:
        """What networks execute, as numbers in which latency is close to linear: shape (n, features), float64.

        The first column is 1, the others count what has a price on some device: blocks, operations in several readings
        of the graph, work. Nothing is measured and no column is scaled. By default they come from `readings`, which is
        slow; the built-in spaces count over the whole array of genes (n, genes) at once.
        """
        return layer_features(self, genes)

    @abstractmethod
    def references(self) -> tuple[Architecture, ...]:
        """HELP's ten reference architectures, in HELP's order (its hardware embedding is their latencies).

        Where HELP has none: ten architectures that never change.
        """

    def canonical(self, arch: Architecture) -> Architecture:
        """The representative of all architectures that execute the same graph once dead edges are removed."""
        return arch

    def unknown_encoding(self, encoding: str) -> ValueError:
        """What `encode` raises for a name that it does not know."""
        return ValueError(f"{self.name} has no encoding {encoding!r}; it has: {', '.join(self.encodings)}")

    def is_constant(self, arch: Architecture) -> bool:
        """Whether the output cannot depend on the input (an unconnected cell)."""
        return False

    def enumerate(self) -> Iterator[Architecture]:
        """All architectures in the official order, where `finite`."""
        raise NotImplementedError(f"{self.name} has {self.size:.3g} architectures: sample it instead")

    def sample(self, n: int, seed: int | Random = 0) -> list[Architecture]:
        """`n` distinct architectures, drawn by `random`. A longer sample begins with the shorter."""
        if n > self.size:
            raise ValueError(f"{self.name} has only {self.size} architectures, {n} were asked for")
        rng = seed if isinstance(seed, Random) else Random(seed)
        drawn: dict[Architecture, None] = {}
        while len(drawn) < n:
            drawn.setdefault(self.random(rng))
        return list(drawn)
