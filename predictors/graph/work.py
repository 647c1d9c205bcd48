"""The work of a graph as numbers: quantities of each kind of kernel, in which latency is close to linear."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np

from latlab.predictors.base import FloatArray
from latlab.predictors.graph.kernel import KINDS, Kernel

__all__ = ["COMPUTING", "QUANTITIES", "Column", "Work", "columns_of", "matrix", "work_of"]

QUANTITIES = ("start", "macs", "narrow in", "narrow out", "weights", "moved")
"""Starts; 10^9 multiply-accumulates; the same divided by the channels in, and out, in units of eight: with few channels
a processor's vectors stay partly empty, and partial sums are stored more often; 10^6 bytes of constants; 10^6 bytes of
other inputs and of outputs."""
COMPUTING = {"conv", "pointwise", "depthwise", "grouped", "deconv", "linear", "matmul", "rnn", "pool"}
"""Kinds that multiply and add (a pool only adds)."""
LANES = 8
MOST_KERNELS = 100_000
LARGEST = 1 << 60
"""Most kernels of a work that is read, and the largest number in one: far more than any device executes."""
Column = tuple[str, str]
"""A kind and a quantity."""


@dataclass(frozen=True)
class Work:
    """The work of one graph: its distinct kernels, and how often each is executed."""

    kernels: tuple[Kernel, ...]
    counts: tuple[int, ...]

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of its kernels."""
        return frozenset(kernel.kind for kernel in self.kernels)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole graph, without those of pools."""
        pairs = zip(self.kernels, self.counts, strict=True)
        return sum(count * kernel.macs for kernel, count in pairs if kernel.base != "pool")

    def to_json(self) -> list[dict[str, Any]]:
        """Return a table for each distinct kernel: its count, and those of its fields that are not the usual ones."""
        usual = Kernel("other", "")
        return [
            {"count": count}
            | {
                one.name: getattr(kernel, one.name)
                for one in fields(Kernel)
                if one.name == "kind" or getattr(kernel, one.name) != getattr(usual, one.name)
            }
            for kernel, count in zip(self.kernels, self.counts, strict=True)
        ]

    @classmethod
    def from_json(cls, values: object) -> Work:
        """Return the work that `to_json` described.

        Raises:
            ValueError: `values` describes none.
        """
        if not isinstance(values, list) or not 0 < len(values) <= MOST_KERNELS:
            raise ValueError("the kernels of a graph are a list that is not empty")
        kernels, counts = [], []
        for one in values:
            known = dict(one) if isinstance(one, dict) else {}
            counts.append(known.pop("count", 0))
            words = known.get("kind", ""), known.setdefault("operator", "")
            numbers = [value for name, value in known.items() if name not in ("kind", "operator")] + counts[-1:]
            if not all(type(word) is str for word in words) or words[0].removesuffix(" int8") not in KINDS:
                raise ValueError(f"{one!r:.80} is no kernel")
            if (
                not all(type(value) is int and 0 <= value <= LARGEST for value in (*numbers, counts[-1]))
                or not counts[-1]
            ):
                raise ValueError(f"{one!r:.80} is no kernel")
            try:
                kernels.append(Kernel(**known))
            except TypeError:
                raise ValueError(f"{one!r:.80} is no kernel") from None
        return cls(tuple(kernels), tuple(counts))


def work_of(kernels: Iterable[Kernel]) -> Work:
    """Return the work of a graph that executes these kernels."""
    found = Counter(kernels)
    return Work(tuple(found), tuple(found.values()))


@lru_cache(1 << 16)
def quantities(kernel: Kernel) -> tuple[float, ...]:
    """Return the quantities of one execution of a kernel, in the order of `QUANTITIES`."""
    start, weights = float(kernel.steps), kernel.width * kernel.params / 1e6
    moved = kernel.width * (kernel.in_elements + kernel.out_elements) / 1e6
    if kernel.base == "view":
        return start, 0.0, 0.0, 0.0, 0.0, 0.0
    if kernel.base not in COMPUTING:
        return start, 0.0, 0.0, 0.0, 0.0, moved + weights
    macs = kernel.macs / 1e9
    wide = kernel.base in ("pool", "depthwise")  # one sum per channel: no channels to be few
    into, out = (0.0, 0.0) if wide else (macs * LANES / max(width, 1) for width in _channels(kernel))
    return start, macs, into, out, weights, moved


def _channels(kernel: Kernel) -> tuple[int, int]:
    return kernel.in_channels, kernel.out_channels


def columns_of(works: Sequence[Work]) -> list[Column]:
    """Return all columns that some kernel of these graphs fills, in a fixed order."""
    kinds = sorted({kind for work in works for kind in work.kinds})
    every = [(kind, name) for kind in kinds for name in QUANTITIES]
    filled = {
        (kernel.kind, name)
        for work in works
        for kernel in work.kernels
        for name, value in zip(QUANTITIES, quantities(kernel), strict=True)
        if value
    }
    return [column for column in every if column in filled]


def matrix(work: Work, columns: dict[Column, int]) -> FloatArray:
    """Return the quantities of each distinct kernel, all its executions together: shape (kernels, columns).

    Args:
        work: the graph.
        columns: the place of each column; a kernel's column that is not among them is left out.
    """
    rows = np.zeros((len(work.kernels), len(columns)))
    for row, kernel, count in zip(rows, work.kernels, work.counts, strict=True):
        for name, value in zip(QUANTITIES, quantities(kernel), strict=True):
            at = columns.get((kernel.kind, name))
            if at is not None:
                row[at] = count * value
    return rows
