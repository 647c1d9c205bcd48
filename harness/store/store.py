"""Everything measured, in one SQLite file that only the controller writes.

A pass (one short run of samples of one network) is committed as soon as it is there, so killing the controller
loses at most the pass in flight. A measurement is one row per campaign, session and architecture; the unique
constraint makes a duplicate impossible.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from sqlalchemy import (
    Connection,
    create_engine,
    event,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool
from sqlalchemy.schema import CreateColumn

from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.store.schema import (
    SCHEMA_VERSION,
    AnchorRow,
    Base,
    Campaign,
    Fingerprint,
    Incident,
    Lease,
    Measurement,
    PassRow,
    SessionFacts,
)
from latlab.harness.store.vocabulary import Status
from latlab.harness.targets import Target
from latlab.harness.telemetry.recorded_pass import PassKind, RecordedAnchor, RecordedPass
from latlab.harness.timing_policy import TimingPolicy

__all__ = ["Campaign", "Label", "LeaseToken", "Measurement", "StaleLeaseError", "Store", "StoreError"]

APPLICATION_ID = 0x6C61746C  # "latl": tells our files from other people's SQLite files


class LeaseToken(NamedTuple):
    """Under which a device is used: the worker's folder counts them up (`latlab.agents.workspace.lease`)."""

    device: str
    folder: str
    token: int


class Label(NamedTuple):
    """What is said of a measurement that has ended."""

    measurement_id: int
    latency_ms: float
    stderr_ms: float
    low_ms: float
    high_ms: float
    verdict: str


class StaleLeaseError(LatlabError):
    """Another controller has used the device since: what this one has to say of it is not believed."""

    def __init__(self, device: str) -> None:
        super().__init__(
            f"device {device} has been taken over by another controller; its results are not stored any more",
            "Run one latlab at a time on a device; the same command continues.",
        )


class StoreError(BadInputError):
    """The store cannot be read or written; the message names the file."""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


class Store:
    """A store file, made where there is none.

    One controller at a time writes: `writing()` takes a lock that the operating system frees when the process ends,
    however it ends. Reading needs no lock. Threads may share a store: they take turns on its one connection, which
    for SQLite is quicker than connections that wait for one another.
    """

    def __init__(self, path: str | Path, *, must_exist: bool = False) -> None:
        self.path = Path(path)
        if must_exist and not self.path.exists():
            raise StoreError(f"there is no store {self.path}", "Measure something first, or name another with --store.")
        self._check_file()
        self._lock = threading.RLock()
        self._engine = create_engine(
            f"sqlite:///{self.path}",
            connect_args={"timeout": 30, "check_same_thread": False},
            poolclass=StaticPool,
        )
        event.listen(self._engine, "connect", _on_connect)
        with self._explained():
            self._open()

    def _check_file(self) -> None:
        if self.path.is_dir():
            raise StoreError(f"the store {self.path} is a folder", "Name a file, for example latlab.db.")
        if not self.path.parent.is_dir():
            raise StoreError(f"the folder {self.path.parent} of the store {self.path.name} does not exist")
        if not self.path.exists() and not os.access(self.path.parent, os.W_OK):
            raise StoreError(f"the folder {self.path.parent} of the store {self.path.name} cannot be written")
        try:
            if self.path.exists() and self.path.stat().st_size:
                with self.path.open("rb") as file:
                    if file.read(16) != b"SQLite format 3\0":
                        raise StoreError(
                            f"{self.path} is not a latlab store (not an SQLite file)",
                            "Name another file with --store; this one was left as it is.",
                        )
        except OSError as error:
            raise StoreError(f"cannot read the store {self.path}: {error.strerror}") from error

    def _open(self) -> None:
        with self._engine.connect() as connection:
            if self._tables(connection) == 0:
                # The lock comes before the second look, and everything or nothing is made: another process may be
                # making the same store, and this one may be killed.
                connection.rollback()
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                if self._tables(connection) == 0:
                    Base.metadata.create_all(connection)
                    connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
                    connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
                connection.commit()
            version = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
            if connection.exec_driver_sql("PRAGMA application_id").scalar_one() != APPLICATION_ID:
                raise StoreError(f"{self.path} is an SQLite file of another program", "Name another file with --store.")
            if version > SCHEMA_VERSION:
                raise StoreError(f"{self.path} was written by a newer latlab (schema {version})", "Update latlab.")
            if version < SCHEMA_VERSION:
                if not os.access(self.path, os.W_OK):
                    raise StoreError(
                        f"{self.path} was written by an older latlab and has to be updated, but it is read-only",
                        "Make it writable, or work on a copy.",
                    )
                _update_schema(connection)
                connection.commit()

    @staticmethod
    def _tables(connection: Connection) -> int:
        return int(connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one())

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what SQLite says into an error that names the file and the way out."""
        try:
            yield
        except DBAPIError as error:
            said = str(error.orig)
            code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF  # without what SQLite's extended codes add
            if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
                raise StoreError(
                    f"cannot write the store {self.path}: the disk is full or broken ({said})",
                    "Free some space, then run the same command again: it continues where it stopped.",
                ) from error
            if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or "no such" in said:  # a table or column
                raise StoreError(
                    f"the store {self.path} is damaged: {said}",
                    f"Recover what is there with `sqlite3 {self.path} .recover`, or name another with --store.",
                ) from error
            raise StoreError(f"cannot use the store {self.path}: {said}") from error

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """A transaction: committed at the end, undone by an exception."""
        with (
            self._lock,
            self._explained(),
            Session(self._engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """As `session`, in plain SQL: a fifth of the time, for what is done for every pass."""
        with self._lock, self._explained(), self._engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the store for measuring. Raises `LatlabError` where another process holds it."""
        import fcntl

        lock = self.path.with_name(self.path.name + ".lock")
        try:
            file = lock.open("a+")
        except OSError as error:
            raise StoreError(f"cannot lock the store {self.path}: {error.strerror}") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                holder = file.read(20).strip() or "unknown"
                raise LatlabError(
                    f"the store {self.path} is being written by another latlab (process {holder})",
                    "Wait for it to end, or measure into another file with --store.",
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    # Devices

    def claim(self, lease: LeaseToken) -> None:
        """Note that a device is used under `lease` from now on. Raises `StaleLeaseError` where it is an old one."""
        with self.session() as session:
            newest = session.get(Lease, lease.device)
            if newest is None:
                session.add(Lease(device=lease.device, folder=lease.folder, token=lease.token))
                return
            if newest.folder == lease.folder and newest.token > lease.token:
                raise StaleLeaseError(lease.device)
            newest.folder, newest.token = lease.folder, lease.token

    def note(self, device: str, kind: str, message: str) -> None:
        """Keep an incident."""
        with self.session() as session:
            session.add(Incident(at=_now(), device=device, kind=kind, message=message))

    def incidents(self) -> pd.DataFrame:
        """What happened to devices, oldest first: at, device, kind, message."""
        with self._lock, self._explained(), self._engine.connect() as connection:
            return _frame(connection, "SELECT at, device, kind, message FROM incidents ORDER BY id", {})

    # Campaigns and measurements

    def campaign(
        self,
        target: Target,
        space: str,
        policy: TimingPolicy,
        seed: int,
        selection: str,
        options: dict[str, Any] | None = None,
    ) -> Campaign:
        """The campaign of these, made where there is none. The same command finds its campaign again."""
        options = options or {}
        identity = [str(target), space, policy.hash(), seed, selection, options]
        key = _digest(identity)
        with self.session() as session:
            campaign = session.get(Campaign, key)
            if campaign is None:
                campaign = Campaign(
                    id=key,
                    target=str(target),
                    space=space,
                    policy_name=policy.name,
                    policy_hash=policy.hash(),
                    policy=asdict(policy),
                    seed=seed,
                    selection=selection,
                    options=options,
                    created_at=_now(),
                )
                session.add(campaign)
        return campaign

    def fingerprint(self, facts: dict[str, Any]) -> str:
        """The id under which a device's facts stand."""
        key = _digest(facts)
        with self.session() as session:
            if session.get(Fingerprint, key) is None:
                session.add(Fingerprint(id=key, facts=facts))
        return key

    def latest_session(self, campaign: Campaign) -> int:
        """Number of the campaign's last session; 0 where it has none."""
        with self.session() as session:
            query = text("SELECT coalesce(max(session), 0) FROM measurements WHERE campaign_id = :c")
            return int(session.execute(query, {"c": campaign.id}).scalar_one())

    def begin(self, campaign: Campaign, session_number: int, arch: str, role: str, **fields: Any) -> Measurement:
        """The running row of an architecture: a new one, or the one that an earlier run left."""
        key = (campaign.id, session_number, arch)
        with self.transaction() as connection:
            known = connection.exec_driver_sql(
                "SELECT id FROM measurements WHERE campaign_id = ? AND session = ? AND arch = ?", key
            ).scalar()
            if known is not None:
                _update(connection, known, fields)
                return _measurement(connection, known)
            order = connection.exec_driver_sql(
                "SELECT count(*) FROM measurements WHERE campaign_id = ? AND session = ?", key[:2]
            ).scalar_one()
            values = {
                "campaign_id": campaign.id,
                "session": session_number,
                "arch": arch,
                "role": role,
                "status": Status.RUNNING.value,
                "order": order,
                "artifact": {},
                "times_s": {},
                "metrics": {},
                "verdict": "",
                "started_at": _now(),
                **fields,
            }
            names = ", ".join(f'"{name}"' for name in values)
            done = connection.exec_driver_sql(
                f"INSERT INTO measurements ({names}) VALUES ({', '.join('?' * len(values))})", _to_sql(values)
            )
            row = Measurement(id=done.lastrowid, **{**dict.fromkeys(_OPTIONAL), **values})
            row.is_new = True
            return row

    def passes(self, measurement_id: int) -> list[RecordedPass]:
        """Return the passes of a measurement, of every kind, in order."""
        with self.session() as session:
            query = select(PassRow).where(PassRow.measurement_id == measurement_id).order_by(PassRow.number)
            return [_recorded(row) for row in session.scalars(query)]

    def add_pass(self, measurement_id: int, recorded: RecordedPass, lease: LeaseToken | None = None) -> None:
        """Keep one pass of a measurement.

        Args:
            lease: the lease under which the device was used; None where no other controller can have it.

        Raises:
            StaleLeaseError: where another controller has used the device since.
        """
        raw = map(json.dumps, (recorded.warmup_ns, recorded.samples_ns, recorded.telemetry))
        values = (measurement_id, recorded.number, *raw, _now(), str(recorded.kind))
        sql = (
            "INSERT INTO passes (measurement_id, number, warmup_ns, samples_ns, telemetry, at, kind) "
            "SELECT ?, ?, ?, ?, ?, ?, ?"
        )
        if lease is not None:
            sql += " WHERE EXISTS (SELECT 1 FROM leases WHERE device = ? AND folder = ? AND token = ?)"
        with self.transaction() as connection:
            if not connection.exec_driver_sql(sql, (*values, *(lease or ()))).rowcount:
                assert lease is not None
                raise StaleLeaseError(lease.device)

    def reject_pass(self, measurement_id: int, number: int) -> None:
        """Keep a pass out of labels."""
        with self.transaction() as connection:
            connection.exec_driver_sql(
                "UPDATE passes SET kind = ? WHERE measurement_id = ? AND number = ?",
                (str(PassKind.REJECTED), measurement_id, number),
            )

    def add_anchor(self, campaign: Campaign, session_number: int, anchor: RecordedAnchor) -> None:
        """Keep one pass of an anchor."""
        with self.session() as session:
            session.add(
                AnchorRow(
                    campaign_id=campaign.id,
                    session=session_number,
                    arch=anchor.arch,
                    warmup_ns=anchor.warmup_ns,
                    samples_ns=anchor.samples_ns,
                    telemetry=anchor.telemetry,
                    at=_now(),
                    ok=anchor.in_line,
                )
            )

    def anchors(self, campaign_id: str, session_number: int) -> list[RecordedAnchor]:
        """Return the anchors of a session, in order."""
        with self.session() as session:
            query = select(AnchorRow).where(AnchorRow.campaign_id == campaign_id, AnchorRow.session == session_number)
            return [
                RecordedAnchor(row.warmup_ns, row.samples_ns, row.telemetry, at=row.at, arch=row.arch, in_line=row.ok)
                for row in session.scalars(query.order_by(AnchorRow.id))
            ]

    def session_facts(self, campaign_id: str, session_number: int) -> dict[str, Any]:
        """What is known of a session as a whole; empty where nothing was noted."""
        with self.session() as session:
            found = session.get(SessionFacts, (campaign_id, session_number))
            return dict(found.facts) if found else {}

    def note_session(self, campaign_id: str, session_number: int, **facts: Any) -> None:
        """Add to what is known of a session."""
        with self.session() as session:
            found = session.get(SessionFacts, (campaign_id, session_number))
            if found is None:
                session.add(SessionFacts(campaign_id=campaign_id, session=session_number, facts=facts))
            else:
                found.facts = {**found.facts, **facts}

    def session_passes(self, campaign_id: str, session_number: int) -> list[RecordedPass]:
        """Return all passes of a session's measurements, in the order in which they were taken."""
        with self.session() as session:
            query = select(PassRow).join(Measurement, Measurement.id == PassRow.measurement_id)
            query = query.where(Measurement.campaign_id == campaign_id, Measurement.session == session_number)
            return [_recorded(row) for row in session.scalars(query.order_by(PassRow.id))]

    def finish(self, measurement_id: int, status: str, **fields: Any) -> Measurement:
        """Close a running row as `ok` or as a kind of failure; `running` keeps it open with what is known so far."""
        finished_at = None if status == Status.RUNNING else _now()
        with self.transaction() as connection:
            _update(connection, measurement_id, {"status": status, "finished_at": finished_at, **fields})
            return _measurement(connection, measurement_id)

    def relabel(self, labels: Iterable[Label]) -> None:
        """Give measurements, and those of the same graph, other labels."""
        sql = "UPDATE measurements SET latency_ms = ?, stderr_ms = ?, low_ms = ?, high_ms = ?, verdict = ? WHERE {} = ?"
        values = [(*label, row_id) for row_id, *label in labels]
        with self.transaction() as connection:
            for column in ("id", "same_graph_as") if values else ():
                connection.exec_driver_sql(sql.format(column), values)

    def lose(self, campaign_id: str, session_number: int, reason: str) -> int:
        """Call what is running `device_lost`: the device is given up. Their passes stay. How many they are."""
        return self._change_status(campaign_id, session_number, Status.RUNNING, Status.DEVICE_LOST, reason)

    def resume(self, campaign: Campaign, session_number: int) -> dict[str, Measurement]:
        """As `rows`, after what was lost with its device is `running` again, to be gone on with."""
        self._change_status(campaign.id, session_number, Status.DEVICE_LOST, Status.RUNNING, None)
        return self.rows(campaign, session_number)

    def _change_status(self, campaign_id: str, session_number: int, old: str, new: str, error: str | None) -> int:
        query = (
            update(Measurement)
            .where(
                Measurement.campaign_id == campaign_id,
                Measurement.session == session_number,
                Measurement.status == old,
            )
            .values(status=new, error=error, finished_at=None if new == Status.RUNNING else _now())
        )
        with self.session() as session:
            return int(session.execute(query).rowcount)  # type: ignore[attr-defined]

    def rows(self, campaign: Campaign, session_number: int) -> dict[str, Measurement]:
        """Rows of one session of a campaign by architecture, in order of measurement."""
        with self.session() as session:
            query = (
                select(Measurement)
                .where(Measurement.campaign_id == campaign.id, Measurement.session == session_number)
                .order_by(Measurement.order)
            )
            return {row.arch: row for row in session.scalars(query)}

    def same_graph(self, row: Measurement) -> Measurement | None:
        """A finished measurement, in the same session, of another network whose exported file is the same."""
        with self.transaction() as connection:
            found = connection.exec_driver_sql(
                "SELECT id FROM measurements WHERE campaign_id = ? AND session = ? AND artifact_sha256 = ? "
                "AND status = 'ok' AND same_graph_as IS NULL AND id != ?",
                (row.campaign_id, row.session, row.artifact_sha256, row.id),
            ).scalar()
            return None if found is None else _measurement(connection, found)

    def copy_result(self, measurement_id: int, from_id: int) -> Measurement:
        """Close a row with the result of the measurement that timed the same graph."""
        with self.transaction() as connection:
            source = _measurement(connection, from_id)
        result = {name: getattr(source, name) for name in _RESULT}
        return self.finish(measurement_id, Status.OK, same_graph_as=from_id, times_s={}, **result)

    # Tables

    def table(
        self, *, target: str | None = None, space: str | None = None, raw: bool = False, sustained: bool = False
    ) -> pd.DataFrame:
        """All finished measurements, one row each: the campaign's facts, then the measurement's.

        Args:
            sustained: with those under sustained load, which are no labels.
            raw: with a column `passes`, the raw samples in ns: a list per pass.
        """
        sql = """
            SELECT c.target, c.space, m.arch, m.latency_ms, m.stderr_ms, m.low_ms, m.high_ms, m.raw_ms, m.verdict,
                   m.status, m.role, m.session, m."order",
                   c.policy_name AS policy, c.policy_hash, c.seed, c.selection,
                   coalesce(json_extract(c.options, '$.as_written'), 0) AS as_written, m.artifact_sha256,
                   m.fingerprint_id, m.same_graph_as, m.error, m.started_at, m.finished_at, m.times_s, m.metrics,
                   m.artifact, m.id, c.id AS campaign,
                   coalesce(json_extract(f.facts, '$.simulated'), 0) = 1 AS simulated
            FROM measurements m JOIN campaigns c ON c.id = m.campaign_id
            LEFT JOIN fingerprints f ON f.id = m.fingerprint_id
        """
        which = "WHERE m.status != 'running'"
        if not sustained:
            which += " AND c.selection != 'sustain'"
        parameters: dict[str, str] = {}
        for name, value in (("target", target), ("space", space)):
            if value is not None:
                which += f" AND c.{name} = :{name}"
                parameters[name] = value
        with self._lock, self._explained(), self._engine.connect() as connection:
            frame = _frame(connection, f"{sql} {which} ORDER BY m.id", parameters)
            frame["simulated"] = frame["simulated"].astype(bool)
            for name in ("times_s", "metrics"):
                parts = [json.loads(value) for value in frame.pop(name)]
                for key in sorted({key for row in parts for key in row}):
                    frame[key] = [row.get(key) for row in parts]
            if raw:
                frame["passes"] = pd.Series(self._raw_passes(connection, frame, which, parameters), dtype=object)
        return frame

    @staticmethod
    def _raw_passes(
        connection: Connection, frame: pd.DataFrame, which: str, parameters: dict[str, str]
    ) -> list[list[list[int]]]:
        samples: dict[int, list[list[int]]] = {}
        query = text(
            "SELECT p.measurement_id, p.samples_ns FROM passes p JOIN measurements m ON m.id = p.measurement_id "
            f"JOIN campaigns c ON c.id = m.campaign_id {which} AND p.kind = '{PassKind.LABEL}' "
            "ORDER BY p.measurement_id, p.number"
        )
        for measurement_id, values in connection.execute(query, parameters):
            samples.setdefault(measurement_id, []).append(json.loads(values))
        shared = frame["same_graph_as"]
        owners = [int(s) if pd.notna(s) else int(i) for i, s in zip(frame["id"], shared, strict=True)]
        return [samples.get(owner, []) for owner in owners]

    def campaigns(self) -> pd.DataFrame:
        """One row per campaign and session: how much was measured, failed and left running."""
        sql = """
            SELECT c.target, c.space, c.policy_name AS policy, c.selection, c.seed, m.session,
                   sum(m.status = 'ok') AS ok, sum(m.status NOT IN ('ok', 'running')) AS failed,
                   sum(m.status = 'running') AS running, min(m.started_at) AS first, max(m.finished_at) AS last,
                   c.id AS campaign, coalesce(max(json_extract(f.facts, '$.simulated')), 0) AS simulated
            FROM measurements m JOIN campaigns c ON c.id = m.campaign_id
            LEFT JOIN fingerprints f ON f.id = m.fingerprint_id
            GROUP BY c.id, m.session ORDER BY min(m.id)
        """
        with self._lock, self._explained(), self._engine.connect() as connection:
            return _frame(connection, sql, {})

    def facts(self, fingerprint_id: str) -> dict[str, Any]:
        with self.session() as session:
            found = session.get(Fingerprint, fingerprint_id)
            return dict(found.facts) if found else {}

    def close(self) -> None:
        self._engine.dispose()


_JSON = ("artifact", "times_s", "metrics")
_RESULT = ("latency_ms", "stderr_ms", "raw_ms", "low_ms", "high_ms", "verdict", "artifact", "metrics")
"""What a measurement of the same graph has found."""
_OPTIONAL = tuple(column.name for column in Measurement.__table__.columns if column.nullable)


def _recorded(row: PassRow) -> RecordedPass:
    return RecordedPass(
        row.warmup_ns, row.samples_ns, row.telemetry, row.number, PassKind(row.kind), row.at, row.measurement_id
    )


def _measurement(connection: Connection, row_id: int) -> Measurement:
    values = dict(connection.exec_driver_sql("SELECT * FROM measurements WHERE id = ?", (row_id,)).mappings().one())
    return Measurement(**{name: json.loads(value) if name in _JSON else value for name, value in values.items()})


def _update(connection: Connection, row_id: int, fields: dict[str, Any]) -> None:
    if fields:
        assignments = ", ".join(f'"{name}" = ?' for name in fields)
        connection.exec_driver_sql(f"UPDATE measurements SET {assignments} WHERE id = ?", (*_to_sql(fields), row_id))


def _to_sql(fields: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(json.dumps(value) if isinstance(value, dict) else value for value in fields.values())


def _frame(connection: Connection, sql: str, parameters: dict[str, str]) -> pd.DataFrame:
    result = connection.execute(text(sql), parameters)
    return pd.DataFrame.from_records([tuple(row) for row in result], columns=list(result.keys()))


def _update_schema(connection: Connection) -> None:
    """Brings a store of an older version up to date: what came later are tables, and columns that may be empty."""
    Base.metadata.create_all(connection)
    for table in Base.metadata.sorted_tables:
        there = {row[1] for row in connection.exec_driver_sql(f"PRAGMA table_info({table.name})")}
        for column in table.columns:
            if column.name not in there:
                definition = CreateColumn(column).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {definition}")
    connection.exec_driver_sql("UPDATE measurements SET raw_ms = latency_ms WHERE raw_ms IS NULL")
    connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _on_connect(connection: sqlite3.Connection, _: object) -> None:
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")
