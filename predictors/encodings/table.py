"""Encodings that were computed before, by latlab or by somebody else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from latlab.predictors.base import FloatArray, IntArray

__all__ = ["EncodingTable"]


@dataclass(frozen=True)
class EncodingTable:
    """An encoding that somebody has computed: `vectors` (m, width) of architectures `genes` (m, genes)."""

    name: str
    """The file, for errors."""
    columns: Sequence[str]
    genes: IntArray
    vectors: FloatArray

    @cached_property
    def _row_of(self) -> dict[bytes, int]:
        return {row.tobytes(): number for number, row in enumerate(np.ascontiguousarray(self.genes, np.int64))}

    def rows(self, genes: IntArray) -> NDArray[np.intp]:
        """Return the rows of architectures (n, genes) in the table, -1 for those that it lacks."""
        names = (row.tobytes() for row in np.ascontiguousarray(genes, np.int64))
        return np.array([self._row_of.get(name, -1) for name in names], dtype=np.intp)

    def __call__(self, genes: IntArray) -> FloatArray:
        """Return the vectors of architectures (n, genes).

        Raises:
            ValueError: the table lacks one.
        """
        rows = self.rows(genes)
        if (rows < 0).any():
            lacking = genes[rows < 0]
            raise ValueError(
                f"{self.name} lacks {len(lacking)} of {len(genes)} architectures, the first with the genes "
                f"{lacking[0].tolist()}"
            )
        return self.vectors[rows]
