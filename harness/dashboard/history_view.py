"""The page of history: one network on one target, session by session, with what has become slower marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, select

from latlab.harness.compare.history import Change, changes
from latlab.harness.dashboard.quality_view import NO_LABELS, pairs_of
from latlab.harness.dashboard.state import SessionState
from latlab.harness.dashboard.watch import seconds_of
from latlab.harness.store.schema import Campaign, Measurement
from latlab.harness.store.store import Store
from latlab.harness.store.vocabulary import Status
from latlab.harness.text import clean

__all__ = ["LIMIT_PERCENT", "HistoryView"]

LIMIT_PERCENT = 3.0
"""A change of less is not marked."""
MOST_NETWORKS = 200
"""Networks to choose from, those of most sessions."""
MOST_POINTS = 200
"""Newest labels of the network."""
MOST_KEPT = 2000
"""Sessions whose anchors are kept."""
AT_ONCE = 8
"""Networks whose histories are looked through for regressions in one go; the others have their turn in the next."""
MOST_LOOKED = 5000
"""Networks of which it is remembered how often they became slower."""

_M, _C = Measurement.__table__.c, Campaign.__table__.c


class HistoryView:
    """Histories of the networks in a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._anchors: dict[tuple[str, int], dict[str, float]] = {}
        self._looked: dict[tuple[str, str, str], tuple[int, int | None]] = {}
        """Sessions of a network that were looked through, and in how many of them it became slower."""

    def view(self, sessions: Sequence[SessionState], params: Mapping[str, str], now: float) -> dict[str, Any]:
        """Return the targets and spaces, their networks, and the history of the one that `params` name."""
        pairs = pairs_of(sessions)
        several = [one for one in pairs if one["sessions"] > 1] or pairs
        key = params.get("target", ""), params.get("space", "")
        chosen = next((one for one in pairs if (one["target"], one["space"]) == key), several[0] if several else None)
        if chosen is None:
            return {"pairs": [], "chosen": None, "networks": [], "points": []}
        target, space = chosen["target"], chosen["space"]
        live = {one.key for one in sessions if one.is_current(now)}
        self._anchors = {one: levels for one, levels in self._anchors.items() if one not in live}
        networks = self._networks(target, space)
        self._look_through(target, space, networks)
        slower = [one["arch"] for one in networks if one["slower"]]
        arch = params.get("arch") or next(iter([*slower, *(one["arch"] for one in networks)]), "")
        rows, found = self._changes(target, space, arch)
        self._anchors = dict(list(self._anchors.items())[-MOST_KEPT:])
        return {
            "pairs": pairs[:500],
            "chosen": {"target": target, "space": space, "arch": clean(arch, 2000)},
            "networks": networks,
            "limit_percent": LIMIT_PERCENT,
            "points": [_point(row, change) for row, change in zip(rows, found, strict=True)],
        }

    def _look_through(self, target: str, space: str, networks: Sequence[dict[str, Any]]) -> None:
        """Say of each network how often it became slower; None if that is not known yet."""
        left = AT_ONCE
        for one in networks:
            key = target, space, one["arch"]
            sessions, slower = self._looked.get(key, (0, None))
            if sessions != one["sessions"] and one["sessions"] > 1 and left:
                left -= 1
                slower = sum(change is not None and change.kind == "slower" for change in self._changes(*key)[1])
                self._looked.pop(key, None)
                self._looked[key] = one["sessions"], slower
                while len(self._looked) > MOST_LOOKED:
                    del self._looked[next(iter(self._looked))]
            one["slower"] = slower

    def _changes(self, target: str, space: str, arch: str) -> tuple[list[dict[str, Any]], list[Change | None]]:
        rows = self._rows(target, space, arch)
        return rows, changes(self._store, rows, LIMIT_PERCENT, self._anchors)

    def _networks(self, target: str, space: str) -> list[dict[str, Any]]:
        count = func.count()  # a campaign measures a network once in each session
        query = (
            select(_M.arch, count, func.max(_M.id))
            .select_from(Measurement.__table__.join(Campaign.__table__, _C.id == _M.campaign_id))
            .where(_C.target == target, _C.space == space, _C.selection.not_in(NO_LABELS), _M.status == Status.OK.value)
            .group_by(_M.arch)
            .order_by(count.desc(), func.max(_M.id).desc())
            .limit(MOST_NETWORKS)
        )
        with self._store.reading() as connection:
            return [{"arch": clean(str(arch), 2000), "sessions": n} for arch, n, _ in connection.execute(query)]

    def _rows(self, target: str, space: str, arch: str) -> list[dict[str, Any]]:
        """Return the last label of the network in each session, the oldest first."""
        names = ("id", "campaign_id", "session", "latency_ms", "low_ms", "high_ms", "verdict", "finished_at",
                 "same_graph_as")  # fmt: skip
        query = (
            select(*(getattr(_M, name) for name in names))
            .select_from(Measurement.__table__.join(Campaign.__table__, _C.id == _M.campaign_id))
            .where(
                _C.target == target, _C.space == space, _C.selection.not_in(NO_LABELS),
                _M.arch == arch, _M.status == Status.OK.value, _M.latency_ms > 0,
            )
            .order_by(_M.id.desc())
            .limit(MOST_POINTS)
        )  # fmt: skip
        with self._store.reading() as connection:
            found = [dict(zip(names, row, strict=True)) for row in connection.execute(query)]
        return [{**row, "campaign": row["campaign_id"]} for row in found[::-1]]


def _point(row: Mapping[str, Any], change: Change | None) -> dict[str, Any]:
    return {
        "at": seconds_of(row["finished_at"]),
        "ms": row["latency_ms"],
        "low": row["low_ms"],
        "high": row["high_ms"],
        "session": row["session"],
        "verdict": clean(str(row["verdict"] or ""), 40),
        "change": None if change is None else vars(change),
    }
