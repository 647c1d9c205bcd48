"""How long a device will still take: from the passes that it has taken and the time that they took, or nothing."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["LEAST_PASSES", "LEAST_S", "Remaining", "remaining"]

LEAST_PASSES = 8
"""Fewest passes from which a rate is told."""
LEAST_S = 3.0
"""Fewest seconds from which a rate is told."""


class Remaining(NamedTuple):
    """The seconds that are left: at least, if every network is content with the fewest passes; and at most."""

    least_s: float
    most_s: float


def remaining(passes: int, seconds: float, networks: int, fewest: int, most: int) -> Remaining | None:
    """Return how long the passes that are left will take, at the pace until now; None as long as there is no ground.

    A policy adds passes to networks whose interval is wide, so that only a range is known.

    Args:
        passes: passes of networks so far.
        seconds: time since the first of them, with all that happened in between (loading, anchors, rests).
        networks: networks that are timed in all; those that fail, or copy another's label, are left out.
        fewest, most: passes of a network.
    """
    if passes < LEAST_PASSES or seconds < LEAST_S or not networks or not fewest:
        return None
    left = max(0, fewest * networks - passes)
    most_left = max(0, most * networks - passes)
    if not most_left:
        return None
    pace = seconds / passes
    return Remaining(left * pace, most_left * pace)
