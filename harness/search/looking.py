"""What a look at candidates reports while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from latlab.harness.search.scoring import Scorer, Scores

__all__ = ["REACH", "Follow", "Looked", "best_of"]

REACH = 0.1
"""Evolution goes on to candidates that keep the limits with this probability: the device may find them fast enough."""


@dataclass(frozen=True)
class Looked:
    """How far a look at the candidates has come."""

    done: int
    total: int
    """Of candidates in a list, of generations in evolution."""
    unit: str
    scored: int
    best: float | None
    """Best accuracy so far of a candidate that keeps the limits with the asked-for confidence."""


Follow = Callable[[Looked], None]


def best_of(scores: Scores, scorer: Scorer) -> float | None:
    """Return the best accuracy of those candidates that keep the limits with the asked-for confidence, or None."""
    good = scores.accuracy[scores.probability >= scorer.constraints.confidence]
    return float(good.max()) if len(good) else None
