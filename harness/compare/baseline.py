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

from latlab.harness.compare.gate import GateCheck, GateOutcome, outcome_of
from latlab.harness.statistics.unpaired import fastest_runs, session_shift, unpaired_interval
from latlab.harness.store.store import Store
from latlab.harness.store.vocabulary import Status
from latlab.harness.telemetry.recorded_pass import PassKind

__all__ = ["baseline_checks"]

MOST_SESSIONS = 20
"""Latest sessions of the baseline store whose anchors are read."""
NAMED_FACTS = 4
"""At most so many differing facts are named."""


def baseline_checks(
    store: Store, rows: pd.DataFrame, baseline: Store, limit_percent: float, confidence: float
) -> list[GateCheck]:
    """Return a check of every row of today against the latest label of the same name and target in the baseline.

    Args:
        store: with today's rows.
        rows: of `Store.table`, one for each network and target.
        baseline: the store to compare with.
        limit_percent: percent by which a network may be slower.
        confidence: of each verdict.
    """
    return [
        _check(store, row, baseline, limit_percent, confidence) for row in (dict(one) for _, one in rows.iterrows())
    ]


def _check(store: Store, row: Mapping[str, Any], baseline: Store, limit_percent: float, confidence: float) -> GateCheck:
    target, name = str(row["target"]), str(row["arch"])
    known = baseline.table(target=target, space=str(row["space"]))
    labels = known[(known["arch"] == name) & (known["status"] == Status.OK) & (known["latency_ms"] > 0)]
    where = str(baseline.path)
    if row["status"] != Status.OK:
        return GateCheck(
            name, where, target, limit_percent, GateOutcome.FAILED, note=str(row["error"] or row["status"])
        )
    if labels.empty:
        note = f"{where} has no label of {name} on {target}"
        return GateCheck(name, where, target, limit_percent, GateOutcome.FAILED, note=note)
    old = dict(labels.sort_values("id").iloc[-1])
    today, then = (str(row["campaign"]), int(row["session"])), (str(old["campaign"]), int(old["session"]))
    columns = [_anchors(baseline, *then), _anchors(store, *today)]
    columns += [_anchors(baseline, *one) for one in _sessions(known) if one != then]
    names = sorted({anchor for column in columns for anchor in column})
    table = [[column.get(anchor, math.nan) for column in columns] for anchor in names]
    shift = session_shift(table, 0, 1)
    (new_log, new_error), (old_log, old_error) = _label(store, row), _label(baseline, old)
    centre, low, high = unpaired_interval(new_log - old_log, new_error, old_error, shift, confidence)
    shifted = 100 * math.expm1(shift.log_shift)
    if shift.anchors >= 2:
        note = (
            f"by {shift.anchors} anchors the device was {abs(shifted):.1f} % {'slower' if shifted > 0 else 'faster'} "
            f"than then, which is taken out, and networks scatter by {100 * shift.between:.1f} % between sessions"
        )
    else:
        note = f"no anchors in common: {100 * shift.between:g} % is assumed as the scatter between sessions"
    return GateCheck(
        name,
        f"{where} of {str(old['finished_at'])[:10]}",
        target,
        limit_percent,
        outcome_of(low, high, limit_percent),
        100 * math.expm1(centre),
        100 * math.expm1(low),
        100 * math.expm1(high),
        f"{note}; {_facts(store, baseline, row, old)}",
    )


def _label(store: Store, row: Mapping[str, Any]) -> tuple[float, float]:
    """Return the logarithm of a label by its shortest runs, in ns, and its relative standard error."""
    owner = row["same_graph_as"]
    passes = store.passes(int(row["id"] if owner is None or owner != owner else owner))
    return fastest_runs([one.samples_ns for one in passes if one.kind == PassKind.LABEL])


def _sessions(known: pd.DataFrame) -> list[tuple[str, int]]:
    """Return the (campaign, session) pairs of a table, the latest first."""
    pairs = known.sort_values("id", ascending=False)[["campaign", "session"]].drop_duplicates()
    return [(str(campaign), int(number)) for campaign, number in pairs.head(MOST_SESSIONS).itertuples(index=False)]


def _anchors(store: Store, campaign: str, session: int) -> dict[str, float]:
    """Return the log-latencies of a session's anchors by name."""
    found: dict[str, list[list[int]]] = {}
    for one in store.anchors(campaign, session):
        found.setdefault(one.arch, []).append(one.samples_ns)
    return {name: fastest_runs(passes)[0] for name, passes in found.items()}


def _facts(store: Store, baseline: Store, row: Mapping[str, Any], old: Mapping[str, Any]) -> str:
    """Return whether the device's facts are the same on both days."""
    now, then = (one_store.facts(str(one["fingerprint_id"])) for one_store, one in ((store, row), (baseline, old)))
    names: Sequence[str] = sorted(name for name in {*now, *then} if now.get(name) != then.get(name))
    same_file = ", and the file is the same" if row["artifact_sha256"] == old["artifact_sha256"] else ""
    if not names:
        return f"the device's facts agree{same_file}"
    more = f" and {len(names) - NAMED_FACTS} more" if len(names) > NAMED_FACTS else ""
    return f"the device's facts differ in {', '.join(names[:NAMED_FACTS])}{more}{same_file}"
