"""The distinct blocks that the networks of a space are made of, as a search space of their own.

Its architectures are blocks. Each is built as a small network, so that the code that measures networks also measures
blocks; the result is a layer-wise lookup table. The space also lists the blocks of a network as integers, so that a
sum over blocks (costs, fitted tables) is one array lookup for any number of networks.
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
"""Ending that turns the name of a space into the name of its blocks: `fbnet-blocks`."""

IntArray = NDArray[np.int64]


class BlockSpace(SearchSpace):
    """A search space whose architectures are blocks: the string is the block's name, the only gene its number."""

    finite: ClassVar[bool] = True
    num_genes: ClassVar[int] = 1
    encodings: ClassVar[tuple[str, ...]] = ("one-hot",)

    def __init__(self, whole: SearchSpace) -> None:
        self.whole = whole
        # Class variables of other spaces are set per instance here: one class of blocks serves several spaces.
        self.name = whole.name + SUFFIX  # type: ignore[misc]
        self.title = f"Blocks of {whole.name}"  # type: ignore[misc]
        self.num_classes = whole.num_classes  # type: ignore[misc]
        self.size = len(self.block_names)  # type: ignore[misc]

    @property
    @abstractmethod
    def block_names(self) -> tuple[str, ...]:
        """Names of the distinct blocks; the position of a name is the number of its block."""

    @property
    @abstractmethod
    def kinds(self) -> IntArray:
        """Number of each block's kind, shape (size,). Blocks of one kind differ in size only."""

    @property
    @abstractmethod
    def places(self) -> IntArray:
        """Number of the choice that decides which block is in each slot of a network, shape (slots,)."""

    @property
    @abstractmethod
    def repeats(self) -> IntArray:
        """Number of times that a network executes each of its slots, shape (slots,)."""

    @abstractmethod
    def ids(self, genes: IntArray) -> IntArray:
        """Return the number of the block in each slot of each network, -1 where a slot executes nothing.

        The layers of these blocks, each `repeats` times, are the layers of the network as written.

        Args:
            genes: genes of n networks of the whole space, shape (n, genes).

        Returns:
            Shape (n, slots).
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
        """Return an empty tuple, because HELP embeds a device by latencies of networks, not of blocks."""
        return ()

    def encode(self, archs: Sequence[Architecture] | NDArray[np.int64], encoding: str) -> np.ndarray:
        """Encode blocks as `one-hot`: one number per block of the space."""
        if encoding != "one-hot":
            raise self.unknown_encoding(encoding)
        return one_hot(self.genes(archs), [self.size])
