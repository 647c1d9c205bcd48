"""The regression gate against labels of another day: today's labels and those of a baseline store.

The two are not paired, so the error between sessions counts; `statistics.unpaired` takes it from the anchors. As in a
paired comparison, networks and anchors are represented by the shortest runs of their passes, because disturbances only
add time, and CI machines are disturbed. The stores have every run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from latlab.harness.compare.evidence_of_sessions import anchor_levels, fastest_of
from latlab.harness.compare.gate import GateCheck, GateOutcome, outcome_of
from latlab.harness.statistics.unpaired import SessionShift, session_shift, unpaired_interval
from latlab.harness.store.store import Store
from latlab.harness.store.vocabulary import Status

__all__ = ["baseline_checks"]

MOST_SESSIONS = 20
"""Latest sessions of the baseline store whose anchors are read."""
NAMED_FACTS = 4
"""At most so many differing facts are named."""

Row = Mapping[str, Any]
"""A row of `Store.table`."""


def baseline_checks(
    store: Store, frames: Sequence[pd.DataFrame], baseline: Store, limit_percent: float, confidence: float
) -> list[GateCheck]:
    """Return a check of every network and target of today against the baseline's labels of the same name and target.

    All sessions of today count together, and so do all of the day of the baseline's latest label.

    Args:
        store: with today's rows.
        frames: rows of `Store.table`, for each session of today those of the same networks.
        baseline: the store to compare with.
        limit_percent: percent by which a network may be slower.
        confidence: of each verdict.
    """
    checks = []
    for last in _rows(frames[-1]):
        key = (last["target"], last["space"], last["arch"])
        today = [row for frame in frames for row in _rows(frame) if (row["target"], row["space"], row["arch"]) == key]
        checks.append(_check(store, today, baseline, limit_percent, confidence))
    return checks


def _check(store: Store, today: Sequence[Row], baseline: Store, limit_percent: float, confidence: float) -> GateCheck:
    last, where = today[-1], str(baseline.path)
    target, name = str(last["target"]), str(last["arch"])

    def failed(why: str) -> GateCheck:
        return GateCheck(name, where, target, limit_percent, GateOutcome.FAILED, note=why)

    new = [row for row in today if row["status"] == Status.OK]
    if not new:
        return failed(str(last["error"] or last["status"]))
    known = baseline.table(target=target, space=str(last["space"]))
    labels = _rows(known[(known["arch"] == name) & (known["status"] == Status.OK) & (known["latency_ms"] > 0)])
    if not labels:
        return failed(f"{where} has no label of {name} on {target}")
    day = _day(labels[-1])
    old = [row for row in labels if _day(row) == day]
    then = [_session(row) for row in old]
    columns = [anchor_levels(baseline, then), anchor_levels(store, [_session(row) for row in new])]
    others = dict.fromkeys(_session(row) for row in reversed(_rows(known)) if _session(row) not in then)
    columns += [anchor_levels(baseline, [one]) for one in list(others)[:MOST_SESSIONS]]
    names = sorted({anchor for column in columns for anchor in column})
    table = [[column.get(anchor, math.nan) for column in columns] for anchor in names]
    shift = session_shift(table, 0, 1)
    (new_log, new_error), (old_log, old_error) = fastest_of(store, new), fastest_of(baseline, old)
    centre, low, high = unpaired_interval(new_log - old_log, new_error, old_error, shift, confidence)
    outcome = outcome_of(low, high, limit_percent)
    way_out = ""
    if outcome is GateOutcome.UNDECIDED:
        way_out = f"; {_way_out(100 * (math.expm1(high) - math.expm1(low)) / 2, limit_percent, shift, new)}"
    return GateCheck(
        name,
        f"{where} of {day}",
        target,
        limit_percent,
        outcome,
        100 * math.expm1(centre),
        100 * math.expm1(low),
        100 * math.expm1(high),
        f"{_shift_in_words(shift)}; {_facts(store, baseline, new[-1], old[-1])}{way_out}",
    )


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table in the order of measuring."""
    return [dict(row) for _, row in frame.sort_values("id").iterrows()]


def _day(row: Row) -> str:
    return str(row["finished_at"])[:10]


def _session(row: Row) -> tuple[str, int]:
    return str(row["campaign"]), int(row["session"])


def _shift_in_words(shift: SessionShift) -> str:
    if shift.anchors < 2:
        return f"no anchors in common: {100 * shift.between:g} % is assumed as the scatter between sessions"
    percent = 100 * math.expm1(shift.log_shift)
    return (
        f"by {shift.anchors} anchors the device was {abs(percent):.1f} % {'slower' if percent > 0 else 'faster'} than "
        f"then, which is taken out, and networks scatter by {100 * shift.between:.1f} % between sessions"
    )


def _way_out(half_percent: float, limit_percent: float, shift: SessionShift, new: Sequence[Row]) -> str:
    """Return what would decide a check: its interval is too wide for the limit, on a busy machine mostly by itself."""
    disturbed = sum(row["verdict"] == "disturbed" for row in new)
    most = 2 * disturbed > len(new)
    busy = " while nothing else runs on the device (most labels of today were disturbed)" if most else ""
    return (
        f"undecided, because the interval is {half_percent:.1f} % to either side and networks scatter by "
        f"{100 * shift.between:.1f} % between sessions. What would decide it: the same check again{busy}, a limit "
        f"above {limit_percent + half_percent:.0f} %, or both files side by side, which takes the sessions out: "
        f"`latlab compare OLD NEW --fail-if-slower {limit_percent:g}%`"
    )


def _facts(store: Store, baseline: Store, row: Row, old: Row) -> str:
    """Return whether the device's facts are the same on both days."""
    now, then = (one_store.facts(str(one["fingerprint_id"])) for one_store, one in ((store, row), (baseline, old)))
    names: Sequence[str] = sorted(name for name in {*now, *then} if now.get(name) != then.get(name))
    same_file = ", and the file is the same" if row["artifact_sha256"] == old["artifact_sha256"] else ""
    if not names:
        return f"the device's facts agree{same_file}"
    more = f" and {len(names) - NAMED_FACTS} more" if len(names) > NAMED_FACTS else ""
    return f"the device's facts differ in {', '.join(names[:NAMED_FACTS])}{more}{same_file}"
