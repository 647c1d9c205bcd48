"""Which networks a search looks at: all of a list, or those that evolution comes to in a space too large to list."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from latlab.harness.architectures import read_archs
from latlab.harness.errors import BadInputError
from latlab.harness.search.accuracy import AccuracySource, Table
from latlab.harness.search.looking import Follow, Looked, best_of
from latlab.harness.search.scoring import Genes, Scorer, Scores
from latlab.search_spaces import SearchSpace

__all__ = ["Candidates", "Evolved", "Listed", "candidates_of"]

LISTED_UP_TO = 1_000_000
"""Greatest size of a finite space that is scored whole."""


class Candidates(Protocol):
    """The networks to look at."""

    @property
    def tie(self) -> float:
        """A candidate counts as better than a measured one if its accuracy is greater by more than this share."""
        ...

    @property
    def extent(self) -> str:
        """Of what they are all, in words."""
        ...

    @property
    def advice(self) -> str:
        """What helps if none keeps the limits, besides another limit: a sentence, or nothing."""
        ...

    def look(self, scorer: Scorer, seed: int, start: Genes | None, follow: Follow | None) -> tuple[Scores, Genes]:
        """Return the scores of all networks that were looked at, and those from which a further look begins.

        Args:
            scorer: scores them.
            seed: of random choices.
            start: from which an earlier look has said to begin; None for the first.
            follow: called from time to time.
        """
        ...

    def admits(self, genes: Genes) -> NDArray[np.bool_]:
        """Return which networks, given as genes (n, genes), may be the answer: shape (n,)."""
        ...


@dataclass(frozen=True)
class Listed:
    """Networks that are all looked at."""

    genes: Genes
    tie: float = 0.0
    extent: str = "of these candidates"
    advice: str = ""

    @cached_property
    def _keys(self) -> frozenset[bytes]:
        return frozenset(row.tobytes() for row in np.ascontiguousarray(self.genes))

    def admits(self, genes: Genes) -> NDArray[np.bool_]:
        return np.array([row.tobytes() in self._keys for row in np.ascontiguousarray(genes)], dtype=bool)

    def look(self, scorer: Scorer, seed: int, start: Genes | None, follow: Follow | None) -> tuple[Scores, Genes]:
        found = scorer(self.genes)
        if follow is not None:
            best = best_of(found, scorer)
            follow(Looked(len(self.genes), len(self.genes), "candidates", scorer.scored, best))
        return found, self.genes[:0]


@dataclass(frozen=True)
class Evolved:
    """Networks to which NSGA-II comes, with the space's own mutation and crossover."""

    space: SearchSpace
    population: int = 100
    generations: int = 500
    tie: float = 1e-3
    """Evolution finds something a little better whenever it goes on: there is no end without a tie."""
    extent: str = "of those that were looked at"
    advice: str = "More --generations look further."

    AGAIN = 5
    """A further look, which begins with the last population, takes this share of the generations."""

    def admits(self, genes: Genes) -> NDArray[np.bool_]:
        return np.ones(len(genes), bool)

    def look(self, scorer: Scorer, seed: int, start: Genes | None, follow: Follow | None) -> tuple[Scores, Genes]:
        from latlab.harness.search.evolution import evolve  # pymoo takes half a second

        drawn = self.space.sample(min(self.population, self.space.size), seed)
        first = self.space.genes([*self.space.references(), *drawn][: self.population])
        generations = self.generations
        if start is not None and len(start):
            first = np.concatenate([start, first])[: self.population]
            generations = max(1, generations // self.AGAIN)
        return evolve(scorer, first, generations, seed, follow)


def candidates_of(
    space: SearchSpace, accuracy: AccuracySource, file: str | Path | None, population: int, generations: int
) -> tuple[Candidates, str]:
    """Return the candidates of a search, and what they are in words.

    Args:
        accuracy: a table's networks are the only ones whose accuracy is known.
        file: architectures, one per line or row (`read_archs`), if the user names them.

    Raises:
        BadInputError: the file cannot be read, or a table knows the accuracy of none of its networks.
    """
    if min(population, generations) < 2:
        raise BadInputError(
            f"evolution takes a population and generations of at least 2, not {min(population, generations)}",
            "Papers take --population 100 and --generations 500.",
        )
    if file is not None:
        genes = np.unique(space.genes(read_archs(space, file)), axis=0)
        if not len(genes):
            raise BadInputError(f"{file} names no network", "Write one architecture per line.")
        unknown = int(np.isnan(accuracy(genes)).sum()) if isinstance(accuracy, Table) else 0
        without = f", {unknown:,} of which have no accuracy" if unknown else ""
        return Listed(genes), f"{len(genes):,} candidates of {Path(file).name}{without}"
    if isinstance(accuracy, Table):
        return Listed(accuracy.genes), f"{len(accuracy.genes):,} networks whose accuracy is known"
    if space.finite and space.size <= LISTED_UP_TO:
        whole = Listed(space.genes(list(space.enumerate())), extent="of the space")
        return whole, f"all {space.size:,} networks of {space.name}"
    return Evolved(space, population, generations), f"{generations} generations of {population} networks"
