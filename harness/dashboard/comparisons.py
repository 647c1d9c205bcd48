"""The page of comparisons: which network was faster, and by how much, newest first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select

from latlab.harness.compare.run import RESULT
from latlab.harness.dashboard.progress import session_state
from latlab.harness.dashboard.state import SessionState
from latlab.harness.dashboard.watch import ROW_COLUMNS, label_row
from latlab.harness.store.schema import Measurement
from latlab.harness.store.vocabulary import Selection
from latlab.harness.text import clean

__all__ = ["comparison_view"]

MOST = 40
MOST_PAIRS = 60

_M = Measurement.__table__.c


def comparison_view(connection: Connection, sessions: Sequence[SessionState], now: float) -> dict[str, Any]:
    """Return the last comparisons; those of older stores have latencies and no verdicts."""
    own = [one for one in sessions if one.campaign.selection == Selection.COMPARE]
    own.sort(key=lambda one: -one.last_sign)
    return {"comparisons": [_comparison(connection, one, now) for one in own[:MOST]]}


def _comparison(connection: Connection, session: SessionState, now: float) -> dict[str, Any]:
    query = (
        select(*ROW_COLUMNS)
        .where(_M.campaign_id == session.campaign.id, _M.session == session.number)
        .order_by(_M.id)
        .limit(MOST_PAIRS)
    )
    result = session.facts.get(RESULT)
    result = result if isinstance(result, dict) else {}
    pairs = result.get("pairs")
    return {
        "target": session.campaign.target,
        "at": session.last_sign,
        "state": session_state(session, now),
        "simulated": session.simulated,
        "status": clean(str(result.get("status", "")), 40),
        "blocks": _number(result.get("blocks")),
        "confidence": _number(result.get("confidence")),
        "models": [
            {"name": one.arch, "ms": one.latency_ms, "status": one.status, "error": one.error}
            for one in map(label_row, connection.execute(query))
        ],
        "pairs": [_pair(one) for one in pairs[:MOST_PAIRS] if isinstance(one, dict)] if isinstance(pairs, list) else [],
    }


def _pair(one: dict[str, Any]) -> dict[str, Any]:
    texts = {name: clean(str(one.get(name, "")), 200) for name in ("first", "second", "verdict")}
    return texts | {name: _number(one.get(f"{name}_percent")) for name in ("second_longer", "low", "high")}


def _number(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None  # type: ignore[arg-type]
