"""What has to be said about labels that cannot all be right: misuse shows in them before it shows in predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from latlab.predictors.base import FloatArray, IntArray

__all__ = ["contradicted", "few_networks", "same_latency", "two_units"]

LEAST = 5
"""Fewest labels from which something is said."""
SHOWN = 3
"""Most contradicted labels that are named."""
DISCOUNTED, FACTOR, ERRORS = 0.4, 1.3, 4.0
"""A label is contradicted if its weight is below the first number, if it is off by the second, and by that many
standard deviations."""
GAP, TIMES = 5.0, 3.0
"""Labels are in two units if two groups of them are this factor apart, and this many times the largest step within."""


def same_latency(log_latency: FloatArray, genes: IntArray) -> str:
    """Return a sentence if all labels of different networks are equal, else an empty one."""
    if len(log_latency) < LEAST or np.ptp(log_latency) > 1e-9 or _distinct(genes) < LEAST:
        return ""
    return (
        f"All {len(log_latency)} labels are {np.exp(log_latency[0]):.4g} ms, although the networks differ. Nothing can "
        "be learned from them: check that each label is the time of its own network."
    )


def few_networks(genes: IntArray) -> str:
    """Return a sentence if most labels are of networks that have another label, else an empty one."""
    distinct = _distinct(genes)
    if len(genes) < LEAST or distinct > len(genes) / 2:
        return ""
    return (
        f"The {len(genes)} labels are of only {distinct} different network{'s' if distinct > 1 else ''}. Further "
        "labels of the same network say little: measure others."
    )


def _distinct(genes: IntArray) -> int:
    return len(np.unique(genes, axis=0))


def two_units(log_latency: FloatArray, log_expected: FloatArray) -> str:
    """Return a sentence if the labels fall into two groups that are a large factor apart, else an empty one.

    Args:
        log_latency: labels, shape (n,).
        log_expected: what a typical device takes for the same networks, up to a factor, shape (n,).
    """
    if len(log_latency) < LEAST:
        return ""
    ratio = np.sort(log_latency - log_expected)
    steps = np.diff(ratio)
    at = int(np.argmax(steps))
    above = len(ratio) - at - 1
    others = np.delete(steps, at)
    # One label alone is an outlier, which `contradicted` names.
    if min(above, at + 1) < 2 or steps[at] < np.log(GAP) or steps[at] < TIMES * others.max():
        return ""
    factor = np.exp(np.median(ratio[at + 1 :]) - np.median(ratio[: at + 1]))
    return (
        f"{above} of the {len(ratio)} labels are about {factor:.2g} times as large as the others, more than these "
        "networks differ on any known device. Are they in two units, or from two devices or settings?"
    )


def contradicted(
    names: Sequence[str], log_latency: FloatArray, log_others: FloatArray, deviation: FloatArray, weight: FloatArray
) -> tuple[str, ...]:
    """Return a sentence for each label that the others contradict, the worst first.

    Args:
        names: the networks.
        log_latency: their labels, shape (n,).
        log_others: what the other labels say of each, shape (n,).
        deviation: standard deviations of the difference, shape (n,).
        weight: how much each label counts, 1 for an ordinary one, shape (n,).
    """
    if len(log_latency) < LEAST:
        return ()
    off = log_latency - log_others
    wrong: NDArray[np.bool_] = (weight < DISCOUNTED) & (np.abs(off) > np.log(FACTOR))
    wrong &= np.abs(off) > ERRORS * deviation
    order = [int(i) for i in np.argsort(-np.abs(off)) if wrong[i]]
    found = [
        f"The label of {names[i]}, {np.exp(log_latency[i]):.3g} ms, is {np.exp(abs(off[i])):.2g} times as "
        f"{'large' if off[i] > 0 else 'small'} as the other labels say ({np.exp(log_others[i]):.3g} ms), so it counts "
        "little. Measure it again, or leave it out."
        for i in order[:SHOWN]
    ]
    if len(order) > SHOWN:
        found.append(f"The other labels contradict {len(order) - SHOWN} more labels, too.")
    return tuple(found)
