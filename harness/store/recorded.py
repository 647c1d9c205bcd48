"""Passes, anchors and facts of sessions, as the store holds them; damaged ones are left out and reported."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection

from latlab.harness.store.damage import DamagedRow, damaged, without
from latlab.harness.store.tables import Tables
from latlab.harness.telemetry.recorded_pass import PassKind, RecordedAnchor, RecordedPass

__all__ = ["read_anchors", "read_facts", "read_passes"]

_PASS = ["id", "measurement_id", "number", "warmup_ns", "samples_ns", "telemetry", "at", "kind"]
_ANCHOR = ["id", "arch", "warmup_ns", "samples_ns", "telemetry", "at", "ok"]


def read_passes(
    connection: Connection, where: str, values: tuple[Any, ...], order: str
) -> tuple[list[RecordedPass], list[DamagedRow]]:
    """Return passes, and the damaged ones among them.

    Args:
        where: a condition on passes `p` and their measurements `m`, with `?` for `values`.
        order: the column to order them by.
    """
    found = Tables(connection).query(
        f"SELECT {', '.join(f'p.{name}' for name in _PASS)} FROM passes p JOIN measurements m "
        f"ON m.id = p.measurement_id WHERE {where} ORDER BY {order}",
        values,
    )
    bad = _damaged("passes", _PASS, found)
    return [
        RecordedPass(
            json.loads(warmup), json.loads(samples), json.loads(telemetry), number, PassKind(kind), at, measurement_id
        )
        for _, measurement_id, number, warmup, samples, telemetry, at, kind in without(bad, found)
    ], list(bad.values())


def read_anchors(
    connection: Connection, campaign_id: str, session_number: int
) -> tuple[list[RecordedAnchor], list[DamagedRow]]:
    """Return the anchors of a session, and the damaged ones among them."""
    found = Tables(connection).query(
        f"SELECT {', '.join(_ANCHOR)} FROM anchors WHERE campaign_id = ? AND session = ? ORDER BY id",
        (campaign_id, session_number),
    )
    bad = _damaged("anchors", _ANCHOR, found)
    return [
        RecordedAnchor(
            json.loads(warmup), json.loads(samples), json.loads(telemetry), at=at, arch=arch, in_line=bool(ok)
        )
        for _, arch, warmup, samples, telemetry, at, ok in without(bad, found)
    ], list(bad.values())


def read_facts(
    connection: Connection, table: str, where: str, values: tuple[Any, ...]
) -> tuple[dict[str, Any], list[DamagedRow]]:
    """Return the facts of one row of `sessions` or `fingerprints`, empty if there is none, and it if it is damaged."""
    found = Tables(connection).query(f"SELECT facts FROM {table} WHERE {where}", values)
    key = " ".join(map(str, values))
    bad = damaged(table, [key] * len(found), {"facts": [one[0] for one in found]})
    facts = [dict(json.loads(one[0])) for one in without(bad, found)]
    return (facts[0] if facts else {}), list(bad.values())


def _damaged(table: str, names: list[str], rows: list[Any]) -> dict[int, DamagedRow]:
    columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {}
    return damaged(table, columns.get("id", ()), columns)
