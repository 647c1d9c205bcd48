"""The form in which a predictor sees networks: strings that are the same network when they run are one network."""

from __future__ import annotations

from collections.abc import Sequence

from latlab.predictors import IntArray, Predictor
from latlab.search_spaces import Architecture

__all__ = ["NetworkView"]


class NetworkView:
    """Returns networks as a predictor sees them.

    Networks are exported without their dead edges, unless they are exported as published. So an architecture and its
    canonical form are the same network, and predictors see canonical forms only. The architectures that a predictor
    wants to have measured first are the exception: it sees them as it has named them.

    Args:
        predictor: the predictor.
        as_written: whether networks are exported as published, with their dead edges.
    """

    def __init__(self, predictor: Predictor, as_written: bool) -> None:
        self._space = predictor.space
        self._unchanged = as_written and self._space.can_be_dead
        self._wanted = {arch.genes for arch in predictor.wanted()}

    def __call__(self, arch: Architecture) -> Architecture:
        """Return an architecture as the predictor sees it."""
        return self.all([arch])[0]

    def all(self, archs: Sequence[Architecture]) -> list[Architecture]:
        """Return architectures as the predictor sees them, in the same order."""
        return list(archs) if self._unchanged else self._space.architectures(self.genes(self._space.genes(archs)))

    def genes(self, genes: IntArray) -> IntArray:
        """Return genes of shape (n, genes) as the predictor sees them."""
        if self._unchanged:
            return genes
        canonical = self._space.canonical_genes(genes)
        if self._wanted:
            rows = [number for number, row in enumerate(genes.tolist()) if tuple(row) in self._wanted]
            canonical = canonical.copy()
            canonical[rows] = genes[rows]
        return canonical
