"""Encodings that several spaces share: one-hot choices, and chains of blocks as graphs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["chain", "one_hot"]


def one_hot(choices: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """One-hot codes side by side.

    Args:
        choices: integers, n x g; -1 is no choice, encoded as zeros.
        counts: how many values each of the g choices has.

    Returns:
        float32, n x sum(counts).
    """
    encoded = np.zeros((len(choices), sum(counts)), np.float32)
    start = 0
    for column, count in zip(choices.T, counts, strict=True):
        rows = np.flatnonzero(column >= 0)
        encoded[rows, start + column[rows]] = 1
        start += count
    return encoded


def chain(present: np.ndarray, operations: np.ndarray) -> np.ndarray:
    """Graphs of nodes in a row, where absent nodes are bridged.

    Args:
        present: bool, n x v; the first and the last node of each row must be present.
        operations: float32, n x v x o, the operation of each node as one-hot.

    Returns:
        float32, n x v x (v + o): `[..., :v]` is the adjacency, from row to column, `[..., v:]` the
        operations.
    """
    n, v, _ = operations.shape
    adjacency = np.zeros((n, v, v), np.float32)
    last = np.zeros(n, np.intp)
    for node in range(1, v):
        rows = np.flatnonzero(present[:, node])
        adjacency[rows, last[rows], node] = 1
        last[rows] = node
    return np.concatenate([adjacency, operations], axis=2)
