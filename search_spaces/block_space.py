"""The distinct blocks that the networks of a space are made of, as a search space of their own.

Its architectures are blocks, each built as a small network, so that whatever measures networks measures blocks: a
layer-wise lookup table. It also says which blocks a network has, as integers, so that whatever is a sum over blocks
(costs, fitted tables) is one gather for a whole array of genes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from random import Random
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from latlab.search_spaces.architecture import Architecture, ArchitectureError
from latlab.search_spaces.base import SearchSpace
from latlab.search_spaces.encodings import one_hot

__all__ = ["SUFFIX", "BlockSpace"]

SUFFIX = "-blocks"
"""Behind the name of a space: the name of its blocks."""

IntArray = NDArray[np.int64]


class BlockSpace(SearchSpace):
    """Blocks as architectures: the string is the block's name, the only gene its number."""

    finite: ClassVar[bool] = True
    num_genes: ClassVar[int] = 1
    encodings: ClassVar[tuple[str, ...]] = ("one-hot",)

    def __init__(self, whole: SearchSpace) -> None:
        self.whole = whole
        # Instances differ in what other spaces have as a class: these blocks are those of one space or another.
        self.name = whole.name + SUFFIX  # type: ignore[misc]
        self.title = f"Blocks of {whole.name}"  # type: ignore[misc]
        self.num_classes = whole.num_classes  # type: ignore[misc]
        self.size = len(self.block_names)  # type: ignore[misc]

    @property
    @abstractmethod
    def block_names(self) -> tuple[str, ...]:
        """Of every distinct block, in the order of their numbers."""

    @property
    @abstractmethod
    def kinds(self) -> IntArray:
        """Of each block, shape (size,), the number of its kind: blocks of a kind differ in size only."""

    @property
    @abstractmethod
    def places(self) -> IntArray:
        """Of each slot of a network, shape (slots,), the number of the choice that decides what is there."""

    @property
    @abstractmethod
    def repeats(self) -> IntArray:
        """Of each slot, shape (slots,), how often it is executed."""

    @abstractmethod
    def ids(self, genes: IntArray) -> IntArray:
        """Numbers of the blocks of networks, from their genes (n, genes of the whole space): shape (n, slots).

        -1 for a slot where nothing is executed. The layers of all blocks, repeated, are those of the network as
        written.
        """

    # What every space can do.

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.block_names)}

    def parse(self, text: str) -> Architecture:
        name = "".join(text.split())
        if name not in self._index:
            raise ArchitectureError(f"{self.name}: there is no block {name!r}; one is {self.block_names[0]}")
        return Architecture(self.name, name, (self._index[name],))

    def from_genes(self, genes: Sequence[int]) -> Architecture:
        genes = self.integers(genes)
        if len(genes) != 1 or not 0 <= genes[0] < self.size:
            raise ArchitectureError(f"{self.name}: genes are one number 0-{self.size - 1}, not {list(genes)}")
        return Architecture(self.name, self.block_names[genes[0]], genes)

    def random(self, rng: Random) -> Architecture:
        return self.from_genes([rng.randrange(self.size)])

    def mutate(self, arch: Architecture, rng: Random) -> Architecture:
        return self.from_genes([(arch.genes[0] + rng.randrange(1, self.size)) % self.size])

    def crossover(self, a: Architecture, b: Architecture, rng: Random) -> Architecture:
        return rng.choice((a, b))

    def enumerate(self) -> Iterator[Architecture]:
        return (self.from_genes([number]) for number in range(self.size))

    def references(self) -> tuple[Architecture, ...]:
        """None: HELP's embedding is of networks."""
        return ()

    def encode(self, archs: Sequence[Architecture] | NDArray[np.int64], encoding: str) -> np.ndarray:
        """`one-hot`: the block."""
        if encoding != "one-hot":
            raise self.unknown_encoding(encoding)
        return one_hot(self.genes(archs), [self.size])
