"""The latency of one network on one target over weeks: where it became slower, and where faster.

Each session is compared with the last level: the first session, until a session is slower or faster than it by more
than a limit, with confidence; then that session is the new level, so that one change is marked once. As in the gate
against a baseline, what the anchors say of whole sessions is taken out, and the scatter between sessions is part of the
interval (`statistics.unpaired`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from latlab.harness.compare.evidence_of_sessions import anchor_levels, fastest_of
from latlab.harness.compare.gate import GateOutcome, outcome_of
from latlab.harness.statistics.unpaired import session_shift, unpaired_interval
from latlab.harness.store.store import Store

__all__ = ["CONFIDENCE", "Change", "changes"]

CONFIDENCE = 0.999
"""Of each mark by itself: of a thousand sessions without a change, one or two are marked."""
MOST_SESSIONS = 20
"""Sessions whose anchors show the scatter between sessions."""
MOST_LOG = 20.0
"""Logarithms of ratios beyond this are said as this."""

Session = tuple[str, int]
"""Campaign id and number."""


@dataclass(frozen=True)
class Change:
    """A session against the level before it: percent by which the network is slower, with its interval."""

    level: int
    """Place of the session that is the level."""
    percent: float
    low_percent: float
    high_percent: float
    anchors: int
    """Anchors that both sessions timed; below two, the scatter between sessions is assumed."""
    kind: str
    """`slower` or `faster` by more than the limit, with confidence; else empty."""


def changes(
    store: Store,
    rows: Sequence[Mapping[str, Any]],
    limit_percent: float,
    known: dict[Session, dict[str, float]] | None = None,
) -> list[Change | None]:
    """Return how each label compares with the level before it; None for the first, and for those without passes.

    Args:
        store: with the passes and the anchors.
        rows: finished labels of one network on one target, a row of `Store.table` for each session, the oldest first.
        limit_percent: a smaller change is not marked.
        known: keeps the levels of anchors by session between two calls.
    """
    known = {} if known is None else known
    sessions = [(str(row["campaign"]), int(row["session"])) for row in rows]
    for one in sessions:
        if one not in known:
            known[one] = anchor_levels(store, [one])
    found: list[Change | None] = []
    level: tuple[int, float, float] | None = None
    for place, row in enumerate(rows):
        try:
            log_ns, error = fastest_of(store, [row])
        except IndexError:  # imported, or its passes are damaged
            found.append(None)
            continue
        if level is None:
            level = place, log_ns, error
            found.append(None)
            continue
        start, old_log, old_error = level
        others = [one for one in dict.fromkeys(sessions) if one not in (sessions[start], sessions[place])]
        columns = [known[one] for one in (sessions[start], sessions[place], *others[-MOST_SESSIONS:])]
        names = sorted({anchor for column in columns for anchor in column})
        shift = session_shift([[column.get(anchor, math.nan) for column in columns] for anchor in names], 0, 1)
        centre, low, high = unpaired_interval(log_ns - old_log, error, old_error, shift, CONFIDENCE)
        kind = ""
        if outcome_of(low, high, limit_percent) is GateOutcome.SLOWER:
            kind = "slower"
        elif outcome_of(-high, -low, limit_percent) is GateOutcome.SLOWER:
            kind = "faster"
        percent, least, most = (100 * math.expm1(min(value, MOST_LOG)) for value in (centre, low, high))
        found.append(Change(start, percent, least, most, shift.anchors, kind))
        if kind:
            level = place, log_ns, error
    return found
