"""Tables of a store's measurements and campaigns: they read the rows and columns that a question needs, no others."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from latlab.harness.statistics.distribution import throughput_per_s
from latlab.harness.store.damage import DamagedRow, damaged, without
from latlab.harness.store.provisional import CORRECTED_AT
from latlab.harness.store.vocabulary import Selection, Status
from latlab.harness.telemetry.recorded_pass import PassKind

__all__ = ["LABELS", "Tables", "tolerant"]

LABELS = (
    "target", "space", "arch", "latency_ms", "stderr_ms", "status", "role", "session", "policy_hash", "selection",
    "as_written", "campaign", "simulated",
)  # fmt: skip
"""The columns that a predictor needs of its labels."""
_OF_CAMPAIGN = {
    "target": "target", "space": "space", "policy": "policy_name", "policy_hash": "policy_hash", "seed": "seed",
    "selection": "selection",
}  # fmt: skip
_OF_ROW = {
    name: name
    for name in (
        "arch", "latency_ms", "stderr_ms", "low_ms", "high_ms", "raw_ms", "verdict", "status", "role", "session",
        "order", "artifact_sha256", "fingerprint_id", "same_graph_as", "error", "started_at", "finished_at", "artifact",
        "id",
    )
} | {"campaign": "campaign_id"}  # fmt: skip
_ORDER = (
    "target", "space", "arch", "latency_ms", "stderr_ms", "low_ms", "high_ms", "raw_ms", "verdict", "status", "role",
    "session", "order", "policy", "policy_hash", "seed", "selection", "as_written", "artifact_sha256", "fingerprint_id",
    "same_graph_as", "error", "started_at", "finished_at", "artifact", "id", "campaign", "simulated",
)  # fmt: skip
_JSON = ("times_s", "metrics")
_NUMBERS = ("latency_ms", "stderr_ms", "low_ms", "high_ms", "raw_ms")
_FEW = ("campaign_id", "role", "status", "verdict", "fingerprint_id")
"""Columns of few different values, of which each is kept once."""
_CHUNK = 5_000
_NO_LABELS = (Selection.SUSTAIN, Selection.COMPARE)


@contextlib.contextmanager
def tolerant(connection: Connection) -> Iterator[None]:
    """Read text that is not UTF-8 with marks in the place of what cannot be read; it takes longer."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    driver.text_factory = lambda data: data.decode("utf-8", "replace")
    try:
        yield
    finally:
        driver.text_factory = str


@dataclass
class Tables:
    """Reads tables of one connection, and collects the damaged rows that it leaves out."""

    connection: Connection
    damaged: list[DamagedRow] = field(default_factory=list)

    def measurements(
        self,
        *,
        target: str | None,
        space: str | None,
        raw: bool,
        sustained: bool,
        only: Collection[str] | None,
        failures: bool = False,
        provisional: bool = False,
    ) -> pd.DataFrame:
        """Return finished measurements. Arguments and columns: `Store.table`; `failures`: only those that failed."""
        campaigns = self._campaigns(target, space, sustained)
        wanted = [name for name in _ORDER if only is None or name in only]
        need = {"id", "status", "latency_ms", "campaign_id", *([] if only is not None else _JSON)}
        need |= {_OF_ROW[name] for name in wanted if name in _OF_ROW}
        need |= {"fingerprint_id"} if "simulated" in wanted else set()
        need |= {"same_graph_as"} if raw else set()
        need |= {"session", "started_at", "finished_at"} if provisional else set()
        rows = self._rows(sorted(need), campaigns, target is None and space is None, failures, provisional)
        marks = self._provisional(rows) if provisional else []
        frame = pd.DataFrame(index=range(len(rows["id"])))
        simulated = self._simulated() if "simulated" in wanted else {}
        for name in wanted:
            if name in _OF_ROW:
                values: Sequence[Any] = rows[_OF_ROW[name]]
            elif name == "simulated":
                values = [simulated.get(one, False) for one in rows["fingerprint_id"]]
            else:
                values = [campaigns[one][name] for one in rows["campaign_id"]]
            kind = float if name in _NUMBERS else bool if name == "simulated" else None
            frame[name] = pd.Series(values, index=frame.index, dtype=kind)
        if provisional:
            frame["provisional"] = pd.Series(marks, index=frame.index, dtype=bool)
        if only is None:
            for name in _JSON:
                self._spread(frame, rows[name])
            frame["throughput_per_s"] = [
                throughput_per_s(where, ms) if status == Status.OK else None
                for where, ms, status in zip(frame["target"], rows["latency_ms"], rows["status"], strict=True)
            ]
        if raw:
            owners = [
                own if same is None else same for own, same in zip(rows["id"], rows["same_graph_as"], strict=True)
            ]
            samples = self._samples(owners)
            frame["passes"] = pd.Series([samples.get(owner, []) for owner in owners], dtype=object)
        return frame

    def sessions(self) -> pd.DataFrame:
        """Return a row per campaign and session. Columns: `Store.campaigns`."""
        campaigns = self._campaigns(None, None, sustained=True)
        found = self.query(
            "SELECT campaign_id, session, sum(status = 'ok'), sum(status NOT IN ('ok', 'running')), "
            "sum(status = 'running'), min(started_at), max(finished_at), max(fingerprint_id), "
            "sum(status = 'running' AND latency_ms IS NOT NULL) "
            "FROM measurements GROUP BY campaign_id, session"
        )
        uncorrected = self._uncorrected()
        first = dict(self.query("SELECT campaign_id, min(id) FROM measurements GROUP BY campaign_id"))
        simulated = self._simulated()
        bad = damaged("measurements", [one[0] for one in found], {"session": [one[1] for one in found]})
        self.damaged += bad.values()
        rows = [
            {
                **{name: campaigns[campaign][name] for name in ("target", "space", "policy", "selection", "seed")},
                "session": session, "ok": int(ok or 0), "failed": int(failed or 0), "running": int(running or 0),
                "first": begin if isinstance(begin, str) else None, "last": end if isinstance(end, str) else None,
                "campaign": campaign, "simulated": int(simulated.get(mark, False)),
                "provisional": int(so_far or 0) + self._uncorrected_labels(campaign, session, uncorrected),
                "networks": self._networks(campaign, session, campaigns[campaign]["selection"]),
            }
            for campaign, session, ok, failed, running, begin, end, mark, so_far in sorted(
                without(bad, found), key=lambda one: (first.get(one[0], 0), one[1])
            )
            if campaign in campaigns
        ]  # fmt: skip
        names = ["target", "space", "policy", "selection", "seed", "session", "ok", "failed", "running", "first"]
        return pd.DataFrame(rows, columns=[*names, "last", "campaign", "simulated", "provisional", "networks"])

    def _networks(self, campaign: str, session: int, selection: str) -> list[str] | None:
        """Return what was run in a session that makes no labels; None for others, whose labels are listed elsewhere."""
        if selection not in _NO_LABELS:
            return None
        sql = "SELECT DISTINCT arch FROM measurements WHERE campaign_id = ? AND session = ? ORDER BY id"
        return [str(one[0]) for one in self.query(sql, (campaign, session))]

    def _uncorrected(self) -> dict[tuple[str, int], str]:
        """Return the sessions whose labels may have drift in them, with the time until which it was removed, or ""."""
        found = dict.fromkeys(self.query("SELECT DISTINCT campaign_id, session FROM anchors"), "")
        known = self.query("SELECT campaign_id, session, facts FROM sessions")
        bad = damaged("sessions", [one[:2] for one in known], {"facts": [one[2] for one in known]})
        self.damaged += bad.values()
        for campaign, session, text in without(bad, known):
            facts = json.loads(text)
            if facts.get("drift") is None or (campaign, session) not in found:
                continue
            if facts.get(CORRECTED_AT) is None:  # an older latlab has removed it, and did not say when
                del found[campaign, session]
            else:
                found[campaign, session] = str(facts[CORRECTED_AT])
        return found

    def _uncorrected_labels(self, campaign: str, session: int, uncorrected: Mapping[tuple[str, int], str]) -> int:
        until = uncorrected.get((campaign, session))
        if until is None:
            return 0
        sql = (
            "SELECT count(*) FROM measurements WHERE campaign_id = ? AND session = ? AND status = 'ok' "
            "AND latency_ms IS NOT NULL AND coalesce(finished_at, '') > ?"
        )
        return int(self.query(sql, (campaign, session, until))[0][0])

    def _provisional(self, rows: dict[str, list[Any]]) -> list[bool]:
        """Return which rows are provisional labels, and make those that still run look like finished ones."""
        uncorrected = self._uncorrected()
        marks = []
        for place, (status, ms, campaign, session, finished) in enumerate(
            zip(
                *(rows[name] for name in ("status", "latency_ms", "campaign_id", "session", "finished_at")), strict=True
            )
        ):
            until = uncorrected.get((campaign, session))
            running = status == Status.RUNNING
            marks.append(
                ms is not None and (running or (status == Status.OK and until is not None and until < (finished or "")))
            )
            if running:
                rows["status"][place] = str(Status.OK)
                rows["finished_at"][place] = rows["started_at"][place]
        return marks

    def incidents(self) -> pd.DataFrame:
        """Return the incidents of all devices. Columns: `Store.incidents`."""
        names = ["id", "at", "device", "kind", "message"]
        found = self._columns(f"SELECT {', '.join(names)} FROM incidents ORDER BY id", (), names)
        bad = damaged("incidents", found["id"], found)
        self.damaged += bad.values()
        return pd.DataFrame({name: without(bad, found[name]) for name in names[1:]})

    def pairs(self) -> list[tuple[str, str]]:
        """Return the targets and spaces that have labels, in the order of their campaigns."""
        there = self.query(
            "SELECT target, space FROM campaigns c WHERE selection NOT IN ('sustain', 'compare') AND EXISTS "
            "(SELECT 1 FROM measurements m WHERE m.campaign_id = c.id AND m.latency_ms IS NOT NULL) ORDER BY c.rowid"
        )
        return [(str(target), str(space)) for target, space in dict.fromkeys(there)]

    def _campaigns(self, target: str | None, space: str | None, sustained: bool) -> dict[str, dict[str, Any]]:
        """Return the facts of campaigns, by id."""
        names = ["id", *_OF_CAMPAIGN.values(), "options"]
        found = self._columns(
            f"SELECT {', '.join(names)} FROM campaigns "
            "WHERE target = coalesce(?, target) AND space = coalesce(?, space)",
            (target, space),
            names,
        )
        bad = damaged("campaigns", found["id"], found)
        self.damaged += bad.values()
        campaigns = {}
        for place, key in enumerate(found["id"]):
            if place not in bad and (sustained or found["selection"][place] not in _NO_LABELS):
                facts = {name: found[column][place] for name, column in _OF_CAMPAIGN.items()}
                options = json.loads(found["options"][place])
                campaigns[key] = {**facts, "as_written": int(bool(options.get("as_written") or 0))}
        return campaigns

    def _rows(
        self,
        names: list[str],
        campaigns: Mapping[str, Any],
        everything: bool,
        failures: bool,
        provisional: bool,
    ) -> dict[str, list[Any]]:
        """Return the undamaged finished measurements of some campaigns, as columns."""
        quoted = ", ".join(f'"{name}"' for name in names)
        state = "NOT IN ('ok', 'running')" if failures else "!= 'running'"
        where = "(status != 'running' OR latency_ms IS NOT NULL)" if provisional else f"status {state}"
        values: tuple[str, ...] = ()
        if failures:  # a scan of the index by_state finds the few
            where = f"id IN (SELECT id FROM measurements INDEXED BY by_state WHERE {where})"
            where = where if self._has_index() else f"status {state}"
        elif not everything:
            where += f" AND campaign_id IN ({', '.join('?' * len(campaigns))})"
            values = tuple(campaigns)
        sql = f"SELECT {quoted} FROM measurements WHERE {where} ORDER BY id"
        return self._columns(sql, values, names, campaigns)

    def _has_index(self) -> bool:
        return bool(self.query("SELECT count(*) FROM main.sqlite_master WHERE name = 'by_state'")[0][0])

    def _columns(
        self, sql: str, values: tuple[Any, ...], names: list[str], campaigns: Mapping[str, Any] | None = None
    ) -> dict[str, list[Any]]:
        """Return the result of a query as columns; with `campaigns`, of measurements of these without damaged ones."""
        try:
            return self._read(sql, values, names, campaigns)
        except (OperationalError, sqlite3.OperationalError) as error:
            if "decode to UTF-8" not in str(error):
                raise
        with tolerant(self.connection):
            return self._read(sql, values, names, campaigns)

    def _read(
        self, sql: str, values: tuple[Any, ...], names: list[str], campaigns: Mapping[str, Any] | None
    ) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {name: [] for name in names}
        known: dict[Any, Any] = {}
        bad_rows: list[DamagedRow] = []
        cursor = self.connection.connection.cursor()
        cursor.execute(sql, values)
        while rows := cursor.fetchmany(_CHUNK):
            chunk: dict[str, Sequence[Any]] = dict(zip(names, zip(*rows, strict=True), strict=True))
            if campaigns is not None:
                bad = damaged("measurements", chunk["id"], chunk)
                bad_rows += bad.values()
                skip = set(bad) | {p for p, one in enumerate(chunk["campaign_id"]) if one not in campaigns}
                if skip:
                    chunk = {name: without(skip, column) for name, column in chunk.items()}
            for name, column in chunk.items():
                found[name] += [known.setdefault(one, one) for one in column] if name in _FEW else column
        self.damaged += bad_rows
        return found

    def query(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """Return the rows of a query as tuples; text that is not UTF-8 has marks for what cannot be read."""
        try:
            return [tuple(row) for row in self.connection.exec_driver_sql(sql, values)]
        except (OperationalError, sqlite3.OperationalError) as error:
            if "decode to UTF-8" not in str(error):
                raise
        with tolerant(self.connection):
            return [tuple(row) for row in self.connection.exec_driver_sql(sql, values)]

    def chunks(self, sql: str, size: int) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows of a query, at most `size` at once; text that is not UTF-8 as `query`."""
        with tolerant(self.connection):
            cursor = self.connection.connection.cursor()
            cursor.execute(sql)
            while rows := cursor.fetchmany(size):
                yield list(rows)

    def _simulated(self) -> dict[str, bool]:
        """Return which devices' facts say that they are simulated, by fingerprint."""
        found = self.query("SELECT id, facts FROM fingerprints")
        bad = damaged("fingerprints", [one[0] for one in found], {"facts": [one[1] for one in found]})
        self.damaged += bad.values()
        return {key: json.loads(facts).get("simulated") in (True, 1) for key, facts in without(bad, found)}

    def _spread(self, frame: pd.DataFrame, texts: Iterable[str]) -> None:
        """Add a column for every key of the tables that a JSON column holds."""
        columns: dict[str, list[Any]] = {}
        for place, text in enumerate(texts):
            for key, value in json.loads(text).items():
                if key not in columns:
                    columns[key] = [None] * len(frame)
                columns[key][place] = value
        for key in sorted(columns):
            frame[key] = columns[key]

    def _samples(self, owners: Collection[int]) -> dict[int, list[list[int]]]:
        """Return the samples of the labels' passes, a list per pass, by measurement."""
        samples: dict[int, list[list[int]]] = {}
        distinct = sorted(set(owners))
        for start in range(0, len(distinct), _CHUNK):
            some = distinct[start : start + _CHUNK]
            found = self.query(
                "SELECT id, measurement_id, samples_ns FROM passes WHERE kind = ? AND measurement_id IN "
                f"({', '.join('?' * len(some))}) ORDER BY measurement_id, number",
                (str(PassKind.LABEL), *some),
            )
            bad = damaged("passes", [one[0] for one in found], {"samples_ns": [one[2] for one in found]})
            self.damaged += bad.values()
            for _, owner, values in without(bad, found):
                samples.setdefault(owner, []).append(json.loads(values))
        return samples
