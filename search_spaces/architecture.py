"""An architecture: a point of a search space."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Architecture", "ArchitectureError"]


class ArchitectureError(ValueError):
    """An architecture string or its genes do not belong to the space; the message says what would."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """One network of a space: a frozen, hashable value, equal when space and canonical string are equal.

    Make one with `SearchSpace.parse`, `from_genes`, `sample` or `enumerate`, never by hand.
    """

    space: str
    text: str
    genes: tuple[int, ...] = field(compare=False, repr=False)

    def __str__(self) -> str:
        return self.text
