"""The page about one session: its progress, its labels in the order of measuring, and the learning curve."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sqlalchemy import Connection, select

from latlab.harness.active_learning.learning_notes import CURVE
from latlab.harness.dashboard.progress import session_json
from latlab.harness.dashboard.state import OPEN, SessionState
from latlab.harness.dashboard.watch import ROW_COLUMNS, label_row
from latlab.harness.statistics.verdicts import KINDS
from latlab.harness.store.schema import Measurement
from latlab.harness.store.vocabulary import Status

__all__ = ["session_view"]

MOST_LABELS = 1500
"""Newest labels of a session that are drawn."""
MOST_FAILURES = 20
MOST_POINTS = 200

_M = Measurement.__table__.c


def session_view(connection: Connection, session: SessionState, now: float) -> dict[str, Any]:
    """Return what there is to show of a session."""
    query = (
        select(*ROW_COLUMNS)
        .where(_M.campaign_id == session.campaign.id, _M.session == session.number)
        .order_by(_M.id.desc())
        .limit(MOST_LABELS)
    )
    rows = list(map(label_row, connection.execute(query)))[::-1]
    failures = [one for one in rows if one.status not in (*OPEN, Status.OK)]
    drift = session.facts.get("drift_percent")
    return {
        "line": session_json(session, now),
        "labels": [
            {"arch": one.arch, "ms": one.latency_ms, "error_ms": one.stderr_ms, "status": one.status,
             "verdict": one.verdict, "at": one.finished or one.started}
            for one in rows if one.latency_ms is not None
        ],
        "left_out": max(0, sum(session.finished.values()) + len(session.open) - len(rows)),
        "verdicts": _verdicts(Counter(one.verdict for one in rows if one.status == Status.OK)),
        "failures": [{"arch": one.arch, "kind": one.status, "error": one.error, "at": one.finished}
                     for one in failures[::-1][:MOST_FAILURES]],
        "drift_percent": drift if isinstance(drift, int | float) else None,
        "curve": learning_curve(session.facts),
    }  # fmt: skip


def _verdicts(counts: Counter[str]) -> dict[str, int]:
    return {kind or "good": counts[kind] for kind in KINDS if counts.get(kind)}


def learning_curve(facts: dict[str, Any]) -> list[dict[str, float | None]]:
    """Return the points of a learning curve that a session's facts hold: n, loo_spearman and so on."""
    found = facts.get(CURVE)
    points = []
    for one in found[:MOST_POINTS] if isinstance(found, list) else []:
        if isinstance(one, dict) and isinstance(one.get("n"), int):
            names = ("loo_spearman", "loo_mape_percent", "holdout_spearman")
            points.append(
                {"n": one["n"]}
                | {name: one[name] if isinstance(one.get(name), int | float) else None for name in names}
            )
    return points
