"""The same networks on two targets: the ratio of their latencies, and which networks change their rank for certain."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

__all__ = ["MedianRatio", "certain_reversals", "median_ratio", "ranks"]


class MedianRatio(NamedTuple):
    """The median of ratios over networks, with a distribution-free interval."""

    ratio: float
    low: float
    high: float


def median_ratio(first: ArrayLike, second: ArrayLike, confidence: float = 0.95) -> MedianRatio:
    """Return the median of second / first, with the interval between two order statistics.

    The number of ratios below the true median is binomial with probability 1/2 (Thompson 1936, Ann. Math. Stat. 7,
    122-128). With too few networks for the confidence, the interval is from the least to the greatest ratio.

    Args:
        first, second: latencies of shape (networks,), at least one, all positive.
        confidence: least probability that the interval holds the median.
    """
    ratios = np.sort(np.asarray(second, dtype=float) / np.asarray(first, dtype=float))
    count = len(ratios)
    at_most = special.bdtr(np.arange(count + 1), count, 0.5)
    below = int(np.searchsorted(at_most, (1 - confidence) / 2))
    place = max(0, below - 1)
    return MedianRatio(float(np.median(ratios)), float(ratios[place]), float(ratios[count - 1 - place]))


def ranks(latencies: ArrayLike) -> NDArray[np.int64]:
    """Return the rank of each network, 1 for the fastest; of equal ones the first has the better rank."""
    order = np.argsort(np.asarray(latencies, dtype=float), kind="stable")
    found = np.empty(len(order), dtype=np.int64)
    found[order] = np.arange(1, len(order) + 1)
    return found


def certain_reversals(
    first: ArrayLike, first_errors: ArrayLike, second: ArrayLike, second_errors: ArrayLike, confidence: float = 0.95
) -> NDArray[np.int64]:
    """Return, for each network, how many others are for certain on the other side of it on the second target.

    A reversal is certain if on each target the two log-latencies differ by more than their standard errors explain,
    with the given confidence on either side.

    Args:
        first, second: latencies on the two targets, shape (networks,).
        first_errors, second_errors: their standard errors, in the same unit.
        confidence: of each comparison.
    """
    signs = []
    limit = float(special.ndtri(0.5 + confidence / 2))
    for latencies, errors in ((first, first_errors), (second, second_errors)):
        latency = np.asarray(latencies, dtype=float)
        relative = np.nan_to_num(np.asarray(errors, dtype=float)) / latency
        logs = np.log(latency)
        gap = logs[:, None] - logs[None, :]
        error = np.sqrt(relative[:, None] ** 2 + relative[None, :] ** 2)
        signs.append(np.where(np.abs(gap) > limit * error, np.sign(gap), 0.0))
    reversed_pairs = signs[0] * signs[1] < 0
    found: NDArray[np.int64] = reversed_pairs.sum(axis=1).astype(np.int64)
    return found
