"""Encodings that several spaces share: one-hot choices, and graphs of blocks in a row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["chain", "one_hot"]


def one_hot(choices: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Return the one-hot codes of g choices side by side.

    Args:
        choices: integers, n x g; -1 means no choice and is encoded as zeros.
        counts: number of values that each of the g choices has.

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
    """Return graphs whose nodes form a row; an edge bridges the nodes that are absent.

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
