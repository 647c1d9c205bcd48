"""Ratio of two labels from different sessions, with the error that lies between sessions.

A label's error bar holds within its session. From one session to another the whole device may be slower (a warmer
room), and every network shifts a little by itself. Both show in the anchors, small fixed networks that every session
times: with y_as the log-latency of anchor a in session s,

    y_as = a_a + c_s + g_as,   Var g = v,

the residuals of the two-way table estimate v with (anchors - 1)(sessions - 1) degrees of freedom, and the means over
anchors the common shifts c. A network that has not changed differs from one session to another by c_2 - c_1 and two
further draws of g. So

    d = log(new / old) - (c_2 - c_1),   Var d = e_new^2 + e_old^2 + 2 v (1 + 1 / anchors),

where e are the labels' relative standard errors. Student's t takes the degrees of freedom of v. This is a prediction
interval: were the network one of the anchors, d would be its residual (Searle, Casella and McCulloch 1992, Variance
Components, chapter 4, for the table).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

__all__ = ["USUAL_BETWEEN", "SessionShift", "fastest_runs", "session_shift", "unpaired_interval"]

USUAL_BETWEEN = 0.02
"""Standard deviation of g that is taken where no anchors say what it is. On shared machines it was .5 to 2 %."""


class SessionShift(NamedTuple):
    """What the anchors say about two sessions."""

    log_shift: float
    """Logarithm of how much slower the second session is than the first."""
    between: float
    """Standard deviation of a network's log-latency from session to session, apart from the shift."""
    freedom: float
    """Degrees of freedom of `between`; infinite if it is assumed."""
    anchors: int
    """Anchors that both sessions timed; with fewer than two, nothing is known."""


def fastest_runs(passes: Sequence[Sequence[int]]) -> tuple[float, float]:
    """Return the logarithm of the shortest run of all passes, in ns, and its standard error.

    Disturbances only add time. If the passes' shortest runs exceed the undisturbed latency by exponentially distributed
    shares, the least of n is too large by theta / n, and the next one is theta / (n - 1) above it (Renyi 1953, Acta
    Math. Hung. 4, 191-231). So the error is (n - 1) / n of their distance; 0 for a single pass, whose error the scatter
    between sessions has to hold.

    Args:
        passes: samples in ns, at least one pass, with at least one sample in each.
    """
    logs = sorted(math.log(max(1, min(one))) for one in passes)
    count = len(logs)
    return logs[0], (count - 1) / count * (logs[1] - logs[0]) if count > 1 else 0.0


def session_shift(anchors: ArrayLike, first: int, second: int) -> SessionShift:
    """Return the shift from one session to another, and the scatter between sessions.

    Args:
        anchors: log-latencies of shape (anchors, sessions), NaN where there is none.
        first, second: the two sessions' columns. Further sessions sharpen `between`.
    """
    table = np.atleast_2d(np.asarray(anchors, dtype=float))
    both = np.isfinite(table[:, first]) & np.isfinite(table[:, second]) if table.size else np.zeros(0, dtype=bool)
    count = int(both.sum())
    if count < 2:
        return SessionShift(0.0, USUAL_BETWEEN, math.inf, count)
    table = table[both]
    table = table[:, np.isfinite(table).all(axis=0)]
    shift = float(np.mean(np.asarray(anchors)[both, second] - np.asarray(anchors)[both, first]))
    rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    freedom = (count - 1) * (table.shape[1] - 1)
    return SessionShift(shift, math.sqrt(float((rest**2).sum()) / freedom), freedom, count)


def unpaired_interval(
    log_ratio: float, new_error: float, old_error: float, shift: SessionShift, confidence: float
) -> tuple[float, float, float]:
    """Return log(new / old) without the sessions' shift, and the ends of its two one-sided bounds.

    Args:
        log_ratio: of the two labels.
        new_error, old_error: their relative standard errors.
        shift: from the old label's session to the new one's.
        confidence: of each bound by itself.
    """
    own = 1 + 1 / shift.anchors if shift.anchors >= 2 else 1.0
    error = math.sqrt(new_error**2 + old_error**2 + 2 * shift.between**2 * own)
    quantile = special.ndtri(confidence) if math.isinf(shift.freedom) else special.stdtrit(shift.freedom, confidence)
    centre = log_ratio - shift.log_shift
    return centre, centre - float(quantile) * error, centre + float(quantile) * error
