"""What is known of networks under each limit of a search: predicted, and measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import special

from latlab.harness.search.limits import CENTRAL, Constraints, Measured
from latlab.harness.search.result import Latency
from latlab.harness.search.scoring import Genes, Predict

__all__ = ["under_limits"]


def under_limits(
    constraints: Constraints,
    genes: Genes,
    predicts: Sequence[Predict],
    spreads: Sequence[float],
    labels: Sequence[tuple[Measured, ...]] | None = None,
) -> list[tuple[Latency, ...]]:
    """Return what is known of n networks, for each of them one value under each limit.

    Args:
        constraints: with the limits.
        genes: of the networks, shape (n, genes).
        predicts: a fitted predictor for each limit.
        spreads: relative deviation from one session to the next, for each limit.
        labels: of each network under each limit, if they were measured.
    """
    if not len(genes):
        return []
    predictions = [predict(genes) for predict in predicts]
    wide = float(special.ndtri((1 + CENTRAL) / 2))
    found = []
    for row in range(len(genes)):
        latencies = []
        for place, (limit, one) in enumerate(zip(constraints.limits, predictions, strict=True)):
            predicted, low, high = (float(each[row]) for each in (one.mean_ms, one.lower_ms, one.upper_ms))
            latency = Latency(limit.target, limit.max_ms, predicted, low, high, metric=limit.metric)
            if labels is not None:
                label = labels[row][place]
                factor = float(np.exp(wide * label.deviation(spreads[place])))
                latency = replace(
                    latency,
                    measured_ms=label.latency_ms,
                    stderr_ms=label.stderr_ms,
                    sessions=label.sessions,
                    measured_lower_ms=label.latency_ms / factor,
                    measured_upper_ms=label.latency_ms * factor,
                )
            latencies.append(latency)
        found.append(tuple(latencies))
    return found
