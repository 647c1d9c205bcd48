"""How alike two kernels deviate from costs that are linear in their quantities.

    k(g, h) = 1 if g = h,    ALIKE exp(-|q_g - q_h|^2 / (2 OCTAVES^2)) if they are of one kind,    0 otherwise

with q the binary logarithms of what decides which loop a runtime chooses and how well it fills the processor's vectors
and caches: channels in and out, positions, window, and values read. A kernel that was measured takes what its labels
have shown; one that is half as large takes part of it. This is the covariance of a Gaussian process (Rasmussen and
Williams, 2006, section 4.2.1) and so positive semi-definite for any kernels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from latlab.predictors.base import FloatArray
from latlab.predictors.graph.kernel import Kernel

__all__ = ["similarity"]

ALIKE = 0.7
"""The share of a deviation that kernels of the same kind and almost the same sizes have in common."""
OCTAVES = 1.5
"""Length scale: sizes that differ by so many factors of two have 61 % of that in common."""


def similarity(some: Sequence[Kernel], others: Sequence[Kernel]) -> FloatArray:
    """Return the correlation of the deviations of kernels, shape (some, others)."""
    found = np.zeros((len(some), len(others)))
    rows, columns = _by_kind(some), _by_kind(others)
    for kind, at in rows.items():
        if kind in columns:
            here, there = _sizes([some[i] for i in at]), _sizes([others[j] for j in columns[kind]])
            squares = np.square(here[:, None] - there[None]).sum(axis=2)
            found[np.ix_(at, columns[kind])] = ALIKE * np.exp(-squares / (2 * OCTAVES**2))
    place = {kernel: j for j, kernel in enumerate(others)}
    for i, kernel in enumerate(some):
        if kernel in place:
            found[i, place[kernel]] = 1.0
    return found


def _by_kind(kernels: Sequence[Kernel]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for at, kernel in enumerate(kernels):
        found.setdefault(kernel.kind, []).append(at)
    return found


def _sizes(kernels: Sequence[Kernel]) -> FloatArray:
    sizes = [
        (
            kernel.in_channels,
            kernel.out_channels,
            kernel.out_elements / max(kernel.out_channels, 1),
            kernel.kernel,
            kernel.in_elements,
        )
        for kernel in kernels
    ]
    return np.log2(1.0 + np.array(sizes, np.float64))
