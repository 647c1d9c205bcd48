"""Reading a store again and again, while others write it: only rows that are new or not finished are read.

A row of the table of measurements is inserted once, with a growing id, and changes until it is finished. So a look
reads the rows behind the last id, those of the unfinished ones that may have changed, the passes behind the last id,
without their samples, the incidents behind the last id, and the few facts of sessions. A thousand devices cost as much
as what they have stored since the last look. The connection is closed after each look: an open one would keep a
writer from folding its log at its end.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Select, Text, case, cast, func, select

from latlab.harness.dashboard.state import (
    OPEN,
    RATE_S,
    CampaignFacts,
    DeviceState,
    IncidentRow,
    LabelRow,
    Rate,
    SessionState,
)
from latlab.harness.store.dialects import dialect_of
from latlab.harness.store.place import StorePath
from latlab.harness.store.schema import (
    AnchorRow,
    Campaign,
    Fingerprint,
    Incident,
    Measurement,
    PassRow,
    SessionFacts,
)
from latlab.harness.store.store import Store
from latlab.harness.store.vocabulary import Status
from latlab.harness.telemetry.readings import hottest_c
from latlab.harness.text import clean

__all__ = ["ROW_COLUMNS", "StoreWatch", "label_row", "reading", "seconds_of"]

BATCH = 400
"""Ids in one question."""
TURN = 1000
"""Unfinished rows that each look checks in turn, beside those that something points at."""
FRESH_S = 30.0
"""Unfinished rows that began so many seconds ago are checked by each look."""
LATE_IDS = 500
"""A database server may show a row after one with a larger id: so many ids before the last one are read again there."""
SEED_ROWS = 3000
"""Newest rows that rates begin with when the page starts."""
KNOWN_ROWS = 20_000
"""Rows of which it is remembered where they belong, for passes that come later."""
MOST_CHARACTERS = 300
"""Characters of a name or a message that are shown."""

T = TypeVar("T")
LATELY_S = 3600.0
"""The facts of sessions that have stored something within so many seconds are read by each look."""
ALL_FACTS_EVERY = 60
"""Looks between two readings of the facts of all sessions."""

_M, _P, _I, _F = Measurement.__table__.c, PassRow.__table__.c, Incident.__table__.c, SessionFacts.__table__.c
ROW_COLUMNS = (
    _M.id, _M.campaign_id, _M.session, _M.arch, _M.status, _M.latency_ms, _M.stderr_ms, _M.verdict, _M.error,
    _M.started_at, _M.finished_at, _M.same_graph_as, _M.fingerprint_id,
)  # fmt: skip


def seconds_of(text: object) -> float:
    """Return a time of the store in seconds since 1970; 0 for what is no time."""
    try:
        return datetime.fromisoformat(text).timestamp() if isinstance(text, str) else 0.0
    except (ValueError, OverflowError, OSError):
        return 0.0


@contextmanager
def reading(store: Store) -> Iterator[Connection]:
    """Open a connection for one look, and close it behind it. Text that is not UTF-8 is read with marks in it."""
    try:
        with store.reading() as connection, dialect_of(connection).tolerant(connection):
            yield connection
    finally:
        store.close()


class StoreWatch:
    """The state of a store's devices and sessions, as of the last look.

    Args:
        path: of the store.

    Raises:
        StoreError: if there is no such store, or it cannot be read.
    """

    def __init__(self, path: StorePath) -> None:
        self.path = path
        self._store = Store(path, must_exist=True)
        self._forget()
        self.look()

    def _forget(self) -> None:
        self.devices: dict[str, DeviceState] = {}
        self.sessions: dict[tuple[str, int], SessionState] = {}
        self.campaigns: dict[str, CampaignFacts] = {}
        self.incidents: list[IncidentRow] = []
        """The last incidents, the newest last."""
        self._last: dict[str, int] = {}
        self._where: dict[int, tuple[str, int, str]] = {}
        """Campaign, session and network of rows by id, the newest of them."""
        self._taken: dict[int, None] = {}
        """Ids of rows that are counted, the newest of them."""
        self._looks = 0
        self._simulated: dict[str, bool] = {}
        self._marked: dict[str, set[tuple[str, int]]] = {}
        """Sessions by the fingerprints of rows that have come in."""
        self._turn = 0
        self._file: object = None
        self.looked_at = 0.0
        """When the store was last read, in seconds since 1970."""

    def look(self) -> None:
        """Read what has changed since the last look.

        Raises:
            StoreError: if the store cannot be read. What is known stays.
        """
        file = self._identity()
        if file != self._file and self._file is not None:  # another store has taken its place
            self._forget()
        now = time.time()
        with reading(self._store) as connection:
            if self._last and self._top(connection, _M.id) < self._last["rows"]:  # rows were removed
                self._forget()
            self._read_campaigns(connection)
            if not self._last:
                self._begin(connection, now)
            else:
                self._go_on(connection)
            self._read_facts(connection)
            self._read_fingerprints(connection)
        self._file = file
        self.looked_at = time.time()

    def _identity(self) -> object:
        if not isinstance(self.path, Path):
            return str(self.path)
        try:
            facts = self.path.stat()
        except OSError:
            return None
        return facts.st_dev, facts.st_ino

    # The first look

    def _begin(self, connection: Connection, now: float) -> None:
        """Count everything once. One question counts finished rows and lists the others, so that none is missed."""
        self._last = {
            "passes": self._top(connection, _P.id),
            "anchors": self._top(connection, AnchorRow.__table__.c.id),
            "incidents": 0,
            "rows": self._top(connection, _M.id),
        }
        open_id = case((_M.status.in_(OPEN), _M.id), else_=0)
        counted = (
            select(
                _M.campaign_id, _M.session, _M.status, open_id, func.count(), func.min(_M.started_at),
                func.max(_M.finished_at), func.max(_M.id), func.max(_M.fingerprint_id),
            )
            .where(_M.id <= self._last["rows"])
            .group_by(_M.campaign_id, _M.session, _M.status, open_id)
        )  # fmt: skip
        unfinished: list[int] = []
        for campaign, number, status, row_id, count, first, last, newest, mark in connection.execute(counted):
            session = self._session(campaign, number)
            if session is None:
                continue
            session.newest_id = max(session.newest_id, int(newest))
            began = seconds_of(first)
            session.first = min(session.first or began, began)
            session.last_sign = max(session.last_sign, began if row_id else seconds_of(last))
            session.simulated |= self._is_simulated(connection, mark)
            if row_id:
                unfinished.append(int(row_id))
            else:
                session.finished[str(status)] += int(count)
                device = self._device(session)
                if status == Status.OK:
                    device.ok += int(count)
                else:
                    device.failed += int(count)
        for row in self._rows(connection, unfinished):
            self._take(row, is_new=True)
        for device in self.devices.values():  # they come below, in the order of all rows
            device.labels.clear()
            device.rate = Rate()
        for session in self.sessions.values():
            session.label_rate = Rate()
        for session in self.sessions.values():
            device = self._device(session)
            device.simulated |= session.simulated
            if device.session is None or session.newest_id > device.session.newest_id:
                device.session = session
            device.last_sign = max(device.last_sign, session.last_sign)
        newest = select(*ROW_COLUMNS).where(_M.id > self._last["rows"] - SEED_ROWS, _M.id <= self._last["rows"])
        for row in map(label_row, connection.execute(newest.order_by(_M.id))):
            self._remember(row)
            self._taken[row.id] = None
            session = self.sessions.get((row.campaign, row.session))
            if session is not None and (row.latency_ms is not None or row.status not in OPEN):
                self._device(session).labels.append(row)
                if (row.finished or row.started) > now - RATE_S:
                    self._count_rate(row)
        for device in self.devices.values():
            if not device.labels:
                self._read_last_labels(connection, device)
            device.last_error = next((row.error for row in reversed(device.labels) if row.error), "")
        self._read_passes(connection, self._last["passes"] - SEED_ROWS, is_first=True)
        for session in self.sessions.values():
            if session.open:
                session.passes = self._count_passes(connection, session)
        self._read_incidents(connection)

    def _read_last_labels(self, connection: Connection, device: DeviceState) -> None:
        session = device.session
        if session is None:
            return
        query = (
            select(*ROW_COLUMNS)
            .where(_M.campaign_id == session.campaign.id, _M.session == session.number, _M.status.not_in(OPEN))
            .order_by(_M.id.desc())
            .limit(device.labels.maxlen)
        )
        for row in reversed(list(map(label_row, connection.execute(query)))):
            device.labels.append(row)

    @staticmethod
    def _count_passes(connection: Connection, session: SessionState) -> int:
        query = (
            select(func.count())
            .select_from(PassRow.__table__.join(Measurement.__table__, _M.id == _P.measurement_id))
            .where(_M.campaign_id == session.campaign.id, _M.session == session.number)
        )
        return int(connection.execute(query).scalar_one())

    # Later looks

    def _go_on(self, connection: Connection) -> None:
        self._read_incidents(connection)
        self._read_anchors(connection)
        query = select(*ROW_COLUMNS).where(_M.id > self._behind("rows", connection)).order_by(_M.id)
        new = set()
        for row in map(label_row, connection.execute(query)):
            self._last["rows"] = max(self._last["rows"], row.id)
            self._take(row, is_new=row.id not in self._taken)
            new.add(row.id)
        touched = self._read_passes(connection, self._behind("passes", connection))
        for row in self._rows(connection, [one for one in self._to_check(touched) if one not in new]):
            if row.id <= self._last["rows"]:  # later ones are new in the next look
                self._take(row, is_new=False)

    def _to_check(self, touched: Iterable[int]) -> list[int]:
        """Return the unfinished rows that may have changed: with a new pass, just begun, and some of the others."""
        chosen = dict.fromkeys(touched)
        others: list[int] = []
        now = time.time()
        for session in self.sessions.values():
            for row in session.open.values():
                if now - row.started < FRESH_S:
                    chosen[row.id] = None
                else:
                    others.append(row.id)
        if len(others) > TURN:
            self._turn = (self._turn + TURN) % len(others)
            others = (others[self._turn :] + others[: self._turn])[:TURN]
        chosen.update(dict.fromkeys(others))
        return list(chosen)

    def _read_passes(self, connection: Connection, start: int, *, is_first: bool = False) -> set[int]:
        """Take in new passes: who has timed what, when, and how hot it was. Return the rows that they belong to."""
        query = (
            select(_P.measurement_id, func.max(_P.id), func.count(), func.max(_P.at))
            .where(_P.id > start)
            .group_by(_P.measurement_id)
        )
        found = [(int(owner), int(newest), int(count), seconds_of(at)) for owner, newest, count, at in
                 connection.execute(query)]  # fmt: skip
        if not is_first and start < self._last["passes"]:  # ids that are read again were counted already
            found = [one for one in found if one[1] > self._last["passes"]]
        missing = [owner for owner, *_ in found if owner not in self._where]
        for row in self._rows(connection, missing):
            self._remember(row)
        newest_of: dict[str, tuple[int, float, int]] = {}
        for owner, newest, count, at in found:
            self._last["passes"] = max(self._last["passes"], newest)
            known = self._where.get(owner)
            session = self.sessions.get(known[:2]) if known else None
            if session is None:
                continue
            session.pass_rate.add(at, count)
            session.version += 1
            if session.passes is not None and not is_first:
                session.passes += count
            device = self._device(session)
            if at >= device.last_sign:
                device.last_sign, device.session = at, session
            if at >= device.last_pass:
                device.last_pass, device.doing = at, known[2] if known else ""
            session.last_sign = max(session.last_sign, at)
            if newest > newest_of.get(device.name, (0, 0.0, 0))[0]:
                newest_of[device.name] = newest, at, owner
        self._read_temperatures(connection, {one[0]: name for name, one in newest_of.items()})
        return {owner for owner, *_ in found}

    def _read_temperatures(self, connection: Connection, passes: dict[int, str]) -> None:
        for some in _batches(list(passes)):
            query = select(_P.id, cast(_P.telemetry, Text)).where(_P.id.in_(some))
            for row_id, text in connection.execute(query):
                self.devices[passes[row_id]].temperature_c = hottest_c(_table(text).get("after"))

    def _read_anchors(self, connection: Connection) -> None:
        """Take in new passes of anchors, which are a sign of life."""
        anchor = AnchorRow.__table__.c
        query = (
            select(anchor.campaign_id, anchor.session, func.max(anchor.id), func.max(anchor.at))
            .where(anchor.id > self._last["anchors"])
            .group_by(anchor.campaign_id, anchor.session)
        )
        for campaign, number, newest, at in connection.execute(query):
            self._last["anchors"] = max(self._last["anchors"], int(newest))
            session = self._session(campaign, number)
            if session is not None:
                session.last_sign = max(session.last_sign, seconds_of(at))
                device = self._device(session)
                if session.last_sign >= device.last_sign:
                    device.last_sign, device.session = session.last_sign, session

    def _read_incidents(self, connection: Connection) -> None:
        query = select(_I.id, _I.at, _I.device, _I.kind, _I.message).where(_I.id > self._last["incidents"])
        for row_id, at, name, kind, message in connection.execute(query.order_by(_I.id)):
            self._last["incidents"] = max(self._last["incidents"], int(row_id))
            incident = IncidentRow(seconds_of(at), _text(name), _text(kind), _text(message))
            self.incidents.append(incident)
            device = self.devices.setdefault(incident.device, DeviceState(incident.device))
            device.incident = incident
            device.incidents[incident.kind] += 1
        del self.incidents[:-200]

    def _read_campaigns(self, connection: Connection) -> None:
        there = connection.execute(select(func.count()).select_from(Campaign.__table__)).scalar_one()
        if there == len(self.campaigns):
            return
        c = Campaign.__table__.c
        query = select(c.id, c.target, c.space, c.policy_name, cast(c.policy, Text), c.selection, c.seed)
        for key, target, space, name, policy, selection, seed in connection.execute(query):
            self.campaigns[key] = CampaignFacts(
                key, _text(target), _text(space), _text(name), _table(policy), _text(selection), _whole(seed)
            )

    def _read_facts(self, connection: Connection) -> None:
        """Read the facts of the sessions that were measured lately, and now and then of all."""
        query = select(_F.campaign_id, _F.session, cast(_F.facts, Text))
        since = time.time() - LATELY_S
        lately = list({one.campaign.id for one in self.sessions.values() if one.last_sign > since})
        questions = [query] if self._looks % ALL_FACTS_EVERY == 0 else [
            query.where(_F.campaign_id.in_(some)) for some in _batches(lately)
        ]  # fmt: skip
        for campaign, number, text in (row for question in questions for row in connection.execute(question)):
            session = self._session(campaign, number)
            if session is not None and text != session.facts_text:
                session.facts_text, session.facts = text, _table(text)
                session.version += 1
        self._looks += 1

    def _read_fingerprints(self, connection: Connection) -> None:
        """Look up which sessions are of simulated devices."""
        for mark, keys in self._marked.items():
            if self._is_simulated(connection, mark):
                for key in keys:
                    self.sessions[key].simulated = True
                    self._device(self.sessions[key]).simulated = True
        self._marked.clear()

    # One row

    def _take(self, row: LabelRow, *, is_new: bool) -> None:
        """Take in a row as it is now."""
        session = self._session(row.campaign, row.session)
        if session is None:
            return
        self._remember(row)
        self._taken[row.id] = None
        if row.mark and not session.simulated:
            self._marked.setdefault(row.mark, set()).add(session.key)
        session.newest_id = max(session.newest_id, row.id)
        session.first = min(session.first or row.started, row.started)
        before = session.open.get(row.id)
        if row.status not in OPEN and before is None and not is_new:  # it was counted when it was finished
            return
        device = self._device(session)
        if row.latency_ms is not None and (before is None or before.latency_ms is None):
            device.labels.append(row)
            self._count_rate(row)
        if row.status in OPEN:
            if row != before:
                session.open[row.id] = row
                session.version += 1
            if is_new:
                self._is_alive(session, row.started)
            return
        session.open.pop(row.id, None)
        session.finished[row.status] += 1
        session.copied += row.copied
        session.version += 1
        device.ok += row.status == Status.OK
        device.failed += row.status != Status.OK
        if row.status != Status.OK:
            device.last_error = row.error
            device.labels.append(row)
        self._is_alive(session, row.finished)

    def _is_alive(self, session: SessionState, at: float) -> None:
        session.last_sign = max(session.last_sign, at)
        device = self._device(session)
        if at >= device.last_sign:
            device.last_sign, device.session = at, session

    def _count_rate(self, row: LabelRow) -> None:
        session = self.sessions.get((row.campaign, row.session))
        if session is not None and row.latency_ms is not None:
            at = row.finished or row.started  # of one that misses passes only its beginning is known
            session.label_rate.add(at)
            self._device(session).rate.add(at)

    def _remember(self, row: LabelRow) -> None:
        self._where[row.id] = row.campaign, row.session, row.arch
        for known in (self._where, self._taken):
            while len(known) > KNOWN_ROWS:
                del known[next(iter(known))]

    def _session(self, campaign: Any, number: Any) -> SessionState | None:
        facts = self.campaigns.get(campaign)
        if facts is None or not isinstance(number, int):
            return None
        found = self.sessions.get((campaign, number))
        if found is None:
            found = self.sessions[campaign, number] = SessionState(facts, number)
        return found

    def _device(self, session: SessionState) -> DeviceState:
        name = session.campaign.device
        found = self.devices.setdefault(name, DeviceState(name))
        found.targets.add(session.campaign.target)
        return found

    def _is_simulated(self, connection: Connection, mark: object) -> bool:
        if not isinstance(mark, str):
            return False
        if mark not in self._simulated:
            f = Fingerprint.__table__.c
            text = connection.execute(select(cast(f.facts, Text)).where(f.id == mark)).scalar()
            self._simulated[mark] = bool(_table(text).get("simulated"))
        return self._simulated[mark]

    # Questions

    def _rows(self, connection: Connection, ids: Sequence[int]) -> Iterator[LabelRow]:
        for some in _batches(ids):
            yield from map(label_row, connection.execute(select(*ROW_COLUMNS).where(_M.id.in_(some))))

    @staticmethod
    def _top(connection: Connection, column: Any) -> int:
        query: Select[Any] = select(func.coalesce(func.max(column), 0))
        return int(connection.execute(query).scalar_one())

    def _behind(self, what: str, connection: Connection) -> int:
        return self._last[what] - (0 if connection.dialect.name == "sqlite" else LATE_IDS)


def _batches(ids: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(ids), BATCH):
        yield ids[start : start + BATCH]


def label_row(row: Any) -> LabelRow:
    """Return what `ROW_COLUMNS` select."""
    key, campaign, session, arch, status, latency, stderr, verdict, error, started, finished, same, mark = row
    return LabelRow(
        key, campaign, session, _text(arch), _text(status), _number(latency), _number(stderr), _text(verdict),
        _text(error), seconds_of(started), seconds_of(finished), same is not None,
        _text(mark),
    )  # fmt: skip


def _text(value: object) -> str:
    return clean(value, MOST_CHARACTERS) if isinstance(value, str) else ""


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and abs(value) < 1e12 else None


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _table(text: object) -> dict[str, Any]:
    """Return the table in a column of JSON; an empty one for what is none."""
    if isinstance(text, dict):
        return text
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
