"""The choice of the candidates that a round of a search measures."""

from __future__ import annotations

import numpy as np

from latlab.harness.search.looking import REACH
from latlab.harness.search.scoring import Scores

__all__ = ["finalists_to_measure"]

APART = 0.1
"""Uncertain networks of one round differ in their probability by this, so that each teaches something."""


def finalists_to_measure(candidates: Scores, confidence: float, best: float | None, size: int) -> list[int]:
    """Return the rows of the candidates to measure next.

    First the most accurate one that keeps the limits with the asked-for confidence. Then those from which most
    accuracy is to be expected beyond it, P(limits kept) x gain (Gardner et al. 2014, Bayesian optimization with
    inequality constraints), each with another probability: a network near the limit may turn out to be fast enough.
    At last the next most accurate ones that keep the limits.

    Args:
        candidates: not measured yet.
        confidence: the asked-for probability.
        best: accuracy of the best measured network that keeps the limits; None if there is none.
        size: number of networks.
    """
    accuracy, probability = candidates.accuracy, candidates.probability
    base = -np.inf if best is None else best
    sure = np.flatnonzero((probability >= confidence) & (accuracy > base))
    sure = sure[np.lexsort((-probability[sure], -accuracy[sure]))]
    chosen = [int(row) for row in sure[:1]]
    if chosen:
        base = float(accuracy[chosen[0]])
    reachable = np.flatnonzero((probability >= REACH) & (accuracy > base) & (probability < confidence))
    floor = base if np.isfinite(base) else float(accuracy[reachable].min(initial=0.0)) - 1e-9
    gain = probability[reachable] * (accuracy[reachable] - floor)
    while len(chosen) < size and len(reachable):
        pick = int(reachable[np.argmax(gain)])
        chosen.append(pick)
        apart = np.abs(probability[reachable] - probability[pick]) > APART
        reachable, gain = reachable[apart], gain[apart]
    chosen += [int(row) for row in sure[1:]][: size - len(chosen)]
    if not chosen and best is None:  # nothing is likely: the likeliest ones say whether anything is possible
        order = np.argsort(-probability, kind="stable")
        chosen = [int(row) for row in order[:size] if probability[row] > 0]
    return chosen
