"""Mutation and crossover, of one choice and of many architectures at once, that several spaces share."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
from numpy.typing import NDArray

__all__ = ["another", "change_one_gene", "other_choice", "uniform_crossover"]

Genes = NDArray[np.int64]


def other_choice(values: Sequence[int], value: int, rng: Random) -> int:
    """Return one of `values` other than `value`, drawn uniformly."""
    return rng.choice([other for other in values if other != value])


def another(values: Genes, count: int, rng: np.random.Generator) -> Genes:
    """Return for each of `values`, which are from 0 to `count` - 1, another one of these, drawn uniformly."""
    return (values + rng.integers(1, count, size=values.shape)) % count


def change_one_gene(genes: Genes, count: int, rng: np.random.Generator) -> Genes:
    """Return a neighbour of each row of genes, all of which are from 0 to `count` - 1: shape (n, genes)."""
    rows, places = np.arange(len(genes)), rng.integers(genes.shape[1], size=len(genes))
    found = genes.copy()
    found[rows, places] = another(genes[rows, places], count, rng)
    return found


def uniform_crossover(a: Genes, b: Genes, rng: np.random.Generator) -> Genes:
    """Return children of the rows of `a` and `b` that have each gene from a random parent: shape (n, genes)."""
    return np.where(rng.random(a.shape) < 0.5, a, b)
