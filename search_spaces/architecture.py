"""The architecture, a point of a search space, the error for strings and genes that name none, and edges of cells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Architecture", "ArchitectureError", "CellEdge"]


LONGEST = 1000
"""Most characters of an error's message."""


class ArchitectureError(ValueError):
    """The error for a string or genes that belong to no architecture of a space; its message says what would.

    A message that quotes something very long is cut in its middle.
    """

    def __init__(self, message: str) -> None:
        if len(message) > LONGEST:
            message = f"{message[: LONGEST // 2]}...{message[-LONGEST // 2 :]}"
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network of a space, as a frozen, hashable value; two are equal when space and canonical string are equal.

    `SearchSpace.parse`, `from_genes`, `sample` and `enumerate` make valid ones; do not call the constructor.
    """

    space: str
    """Name of the space."""
    text: str
    """Canonical string."""
    genes: tuple[int, ...] = field(compare=False, repr=False)
    """The choices as integers, in an order that the space defines."""

    def __str__(self) -> str:
        return self.text


class CellEdge(NamedTuple):
    """An edge of a cell with an operation: it leads from one node to another."""

    source: int
    node: int
    operation: str
    live: bool
    """Whether a path from the cell's input to its output goes through it."""
