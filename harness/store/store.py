"""The store: everything that was measured, in one SQLite file that only the controller writes.

A pass (one short run of samples of one network) is committed as soon as it arrives, so that killing the controller
loses at most the pass in progress. A measurement is one row per campaign, session and architecture; the unique
constraint makes a duplicate impossible.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
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
from latlab.harness.statistics.distribution import throughput_per_s
from latlab.harness.store.provisional import PROVISIONAL_SQL
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

APPLICATION_ID = 0x6C61746C  # "latl": distinguishes our files from other SQLite files


class LeaseToken(NamedTuple):
    """The lease under which a device is used; the worker counts its token (`latlab.agents.workspace.lease`)."""

    device: str
    folder: str
    token: int


class Label(NamedTuple):
    """The label of a measurement: its latency with the error bar, and the verdict on it."""

    measurement_id: int
    latency_ms: float
    stderr_ms: float
    low_ms: float
    high_ms: float
    verdict: str
    distribution: Mapping[str, float]
    """Figures of `statistics.distribution`, which join the metrics of the row."""


class StaleLeaseError(LatlabError):
    """Raised if another controller has used the device since, so that results of this one are not stored any more."""

    def __init__(self, device: str) -> None:
        super().__init__(
            f"device {device} has been taken over by another controller; its results are not stored any more",
            "Run one latlab at a time on a device; the same command continues.",
        )


class StoreError(BadInputError):
    """Raised if the store cannot be read or written; the message names the file."""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


class Store:
    """A store file, created if there is none.

    One controller at a time writes: `writing()` takes a lock that the operating system frees when the process ends,
    however it ends. Reading needs no lock. Threads may share a store: they take turns on its one connection, which
    for SQLite is quicker than several connections that wait for one another.

    Args:
        path: of the SQLite file.
        must_exist: raise `StoreError` if there is no such file.

    Raises:
        StoreError: if the file cannot be read or written, or is no store.
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
                # Look again under the lock, and make all tables or none: another process may be making the same store,
                # and this one may be killed.
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
        """Turn an error of SQLite into one that names the file and says what to do."""
        try:
            yield
        except (_DamagedError, json.JSONDecodeError) as error:
            reason = str(error) if isinstance(error, _DamagedError) else f"a value is not JSON ({error})"
            raise StoreError(
                f"the store {self.path} is damaged, or a newer latlab has written it: {reason}",
                "Update latlab, restore a copy of the file, or name another with --store.",
            ) from error
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
        """Open a transaction in SQLAlchemy's objects: committed at the end, undone by an exception."""
        with (
            self._lock,
            self._explained(),
            Session(self._engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Open a transaction in plain SQL, which takes a fifth of the time of `session`: for work on every pass."""
        with self._lock, self._explained(), self._engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the store's lock, so that no other process measures into it.

        Raises:
            LatlabError: if another process holds it.
        """
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
        """Record that a device is used under `lease` from now on.

        Raises:
            StaleLeaseError: if it is older than the newest one.
        """
        with self.session() as session:
            newest = session.get(Lease, lease.device)
            if newest is None:
                session.add(Lease(device=lease.device, folder=lease.folder, token=lease.token))
                return
            if newest.folder == lease.folder and newest.token > lease.token:
                raise StaleLeaseError(lease.device)
            newest.folder, newest.token = lease.folder, lease.token

    def note(self, device: str, kind: str, message: str) -> None:
        """Store an incident of a device.

        Args:
            kind: a short name, such as `lost`.
            message: what happened, in words.
        """
        with self.session() as session:
            session.add(Incident(at=_now(), device=device, kind=kind, message=message))

    def incidents(self) -> pd.DataFrame:
        """Return the incidents of all devices, oldest first: columns at, device, kind, message."""
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
        """Return the campaign with these properties, created if there is none: a repeated command finds its campaign.

        Args:
            selection: how its networks are chosen (`vocabulary.Selection`).
            options: further settings that change labels, such as the way of exporting.
        """
        if not -(2**63) <= seed < 2**63:
            raise BadInputError(f"the seed must be a whole number of at most 64 bits, not {seed}")
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
        """Store the facts of a device, if they are new, and return their id."""
        key = _digest(facts)
        with self.session() as session:
            if session.get(Fingerprint, key) is None:
                session.add(Fingerprint(id=key, facts=facts))
        return key

    def latest_session(self, campaign: Campaign) -> int:
        """Return the number of the campaign's last session; 0 if it has none."""
        with self.session() as session:
            query = text("SELECT coalesce(max(session), 0) FROM measurements WHERE campaign_id = :c")
            return int(session.execute(query, {"c": campaign.id}).scalar_one())

    def begin(self, campaign: Campaign, session_number: int, arch: str, role: str, **fields: Any) -> Measurement:
        """Return the row of an architecture: the one that an earlier run left, or else a new one that is `running`.

        Args:
            fields: further columns to set.
        """
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
        """Store one pass of a measurement.

        Args:
            lease: the lease under which the device was used; None if no other controller can use it.

        Raises:
            StaleLeaseError: if another controller has used the device since.
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
        """Mark a pass as rejected, so that it is no part of a label."""
        with self.transaction() as connection:
            connection.exec_driver_sql(
                "UPDATE passes SET kind = ? WHERE measurement_id = ? AND number = ?",
                (str(PassKind.REJECTED), measurement_id, number),
            )

    def add_anchor(self, campaign: Campaign, session_number: int, anchor: RecordedAnchor) -> None:
        """Store one pass of an anchor."""
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
        """Return the passes of a session's anchors, in the order in which they were taken."""
        with self.session() as session:
            query = select(AnchorRow).where(AnchorRow.campaign_id == campaign_id, AnchorRow.session == session_number)
            rows = list(session.scalars(query.order_by(AnchorRow.id)))
            for row in rows:
                _check_raw(f"anchor {row.id}", row.warmup_ns, row.samples_ns, row.telemetry)
        return [
            RecordedAnchor(row.warmup_ns, row.samples_ns, row.telemetry, at=row.at, arch=row.arch, in_line=row.ok)
            for row in rows
        ]

    def session_facts(self, campaign_id: str, session_number: int) -> dict[str, Any]:
        """Return the facts of a session as a whole; empty if there are none."""
        with self.session() as session:
            found = session.get(SessionFacts, (campaign_id, session_number))
            return dict(_table(found.facts, "facts")) if found else {}

    def note_session(self, campaign_id: str, session_number: int, **facts: Any) -> None:
        """Add facts to those of a session; facts of the same name are replaced."""
        with self.session() as session:
            found = session.get(SessionFacts, (campaign_id, session_number))
            if found is None:
                session.add(SessionFacts(campaign_id=campaign_id, session=session_number, facts=facts))
            else:
                found.facts = {**_table(found.facts, "facts"), **facts}

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
        """Replace the labels of measurements, and of those that copied them because their graph is the same."""
        sql = (
            "UPDATE measurements SET latency_ms = ?, stderr_ms = ?, low_ms = ?, high_ms = ?, verdict = ?, "
            "metrics = json_patch(metrics, ?) WHERE {} = ?"
        )
        values = [(*label, json.dumps(dict(figures)), row_id) for row_id, *label, figures in labels]
        with self.transaction() as connection:
            for column in ("id", "same_graph_as") if values else ():
                connection.exec_driver_sql(sql.format(column), values)

    def lose(self, campaign_id: str, session_number: int, reason: str) -> int:
        """Mark the running measurements of a session as `device_lost`, because the device is given up.

        Their passes stay, and `resume` continues them.

        Returns:
            The number of these measurements.
        """
        return self._change_status(campaign_id, session_number, Status.RUNNING, Status.DEVICE_LOST, reason)

    def resume(self, campaign: Campaign, session_number: int) -> dict[str, Measurement]:
        """Set the measurements of a session that were lost with their device to `running`, and return all `rows`."""
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
        """Return the rows of one session of a campaign by architecture, in the order of measuring."""
        with self.session() as session:
            query = (
                select(Measurement)
                .where(Measurement.campaign_id == campaign.id, Measurement.session == session_number)
                .order_by(Measurement.order)
            )
            return {row.arch: row for row in session.scalars(query)}

    def same_graph(self, row: Measurement) -> Measurement | None:
        """Return a finished measurement of the same session whose exported file is the same as the row's, or None."""
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
        self,
        *,
        target: str | None = None,
        space: str | None = None,
        raw: bool = False,
        sustained: bool = False,
        provisional: bool = False,
    ) -> pd.DataFrame:
        """Return all finished measurements, failed ones included, one row each: the campaign's facts, then its own.

        Args:
            target: only those of this target.
            space: only those of this search space.
            raw: add a column `passes` with the raw samples in ns, a list per pass.
            sustained: include sustained runs and paired comparisons, which are no labels.
            provisional: include the labels so far of networks that still miss passes, as if they were finished, and add
                a column `provisional` that marks them, and those whose session's drift is still in them.
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
        if provisional:
            which = "WHERE (m.status != 'running' OR m.latency_ms IS NOT NULL)"
            status = "CASE WHEN m.status = 'running' THEN 'ok' ELSE m.status END AS status"
            sql = sql.replace("m.status", status, 1)
            sql = sql.replace("m.finished_at", "coalesce(m.finished_at, m.started_at) AS finished_at", 1)
            sql = sql.replace(" AS simulated", f" AS simulated, {PROVISIONAL_SQL} AS provisional")
            sql += " LEFT JOIN sessions s ON s.campaign_id = m.campaign_id AND s.session = m.session "
        if not sustained:
            which += " AND c.selection NOT IN ('sustain', 'compare')"
        parameters: dict[str, str] = {}
        for name, value in (("target", target), ("space", space)):
            if value is not None:
                which += f" AND c.{name} = :{name}"
                parameters[name] = value
        with self._lock, self._explained(), self._engine.connect() as connection:
            frame = _frame(connection, f"{sql} {which} ORDER BY m.id", parameters)
            frame["simulated"] = frame["simulated"].astype(bool)
            if provisional:
                frame["provisional"] = frame["provisional"].fillna(0).astype(bool)
            labels = pd.to_numeric(frame.loc[frame["status"] == Status.OK, "latency_ms"], errors="coerce")
            if not (labels.notna() & (labels.abs() < float("inf"))).all():
                raise _DamagedError("a finished measurement has no latency")
            for name in ("times_s", "metrics"):
                parts = [_table(value, name) for value in frame.pop(name)]
                for key in sorted({key for row in parts for key in row}):
                    frame[key] = [row.get(key) for row in parts]
            frame["throughput_per_s"] = [
                throughput_per_s(target, ms) if status == Status.OK else None
                for target, ms, status in zip(frame["target"], frame["latency_ms"], frame["status"], strict=True)
            ]
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
        """Return a row per campaign and session, with the numbers of finished, failed and running measurements."""
        sql = f"""
            SELECT c.target, c.space, c.policy_name AS policy, c.selection, c.seed, m.session,
                   sum(m.status = 'ok') AS ok, sum(m.status NOT IN ('ok', 'running')) AS failed,
                   sum(m.status = 'running') AS running, coalesce(sum({PROVISIONAL_SQL}), 0) AS provisional,
                   min(m.started_at) AS first, max(m.finished_at) AS last,
                   c.id AS campaign, coalesce(max(json_extract(f.facts, '$.simulated')), 0) AS simulated,
                   CASE WHEN c.selection IN ('sustain', 'compare') THEN json_group_array(m.arch) END AS networks
            FROM measurements m JOIN campaigns c ON c.id = m.campaign_id
            LEFT JOIN fingerprints f ON f.id = m.fingerprint_id
            LEFT JOIN sessions s ON s.campaign_id = m.campaign_id AND s.session = m.session
            GROUP BY c.id, m.session ORDER BY min(m.id)
        """
        with self._lock, self._explained(), self._engine.connect() as connection:
            frame = _frame(connection, sql, {})
        # Labels are listed elsewhere; of what makes no label, this is the only place that names the networks.
        frame["networks"] = pd.Series(
            [None if names is None else list(dict.fromkeys(json.loads(names))) for names in frame["networks"]],
            dtype=object,
        )
        return frame

    def facts(self, fingerprint_id: str) -> dict[str, Any]:
        """Return the facts of a device that `fingerprint` stored under this id; empty if there are none."""
        with self.session() as session:
            found = session.get(Fingerprint, fingerprint_id)
            return dict(found.facts) if found else {}

    def version(self) -> tuple[int, int]:
        """Return two numbers, of which at least one differs whenever anything in the store has changed."""
        with self.transaction() as connection:
            others = connection.exec_driver_sql("PRAGMA data_version").scalar_one()  # other connections' commits
            return int(others), int(connection.exec_driver_sql("SELECT total_changes()").scalar_one())

    def labels_digest(self, space: str) -> str:
        """Return a text that differs once any label of a space, measured or imported, or of its blocks has changed."""
        measured = """
            SELECT c.target, c.space, m.role, count(*), max(m.id), sum(m.latency_ms), sum(m.stderr_ms),
                   sum(m.status = 'ok')
            FROM measurements m JOIN campaigns c ON c.id = m.campaign_id
            WHERE c.space IN (?, ?) AND m.status IN ('ok', 'running') AND m.latency_ms IS NOT NULL
            GROUP BY c.target, c.space, m.role
            ORDER BY c.target, c.space, m.role
        """
        imported = "SELECT id, name, sha256, imported_at FROM sources WHERE space = ? ORDER BY id"
        with self.transaction() as connection:
            rows = connection.exec_driver_sql(measured, (space, f"{space}-blocks")).all()
            rows = [*rows, *connection.exec_driver_sql(imported, (space,)).all()]
        return _digest([list(row) for row in rows])

    def close(self) -> None:
        """Close the connection to the file."""
        self._engine.dispose()


_JSON = ("artifact", "times_s", "metrics")
_RESULT = ("latency_ms", "stderr_ms", "raw_ms", "low_ms", "high_ms", "verdict", "artifact", "metrics")
"""Columns that a row copies from the measurement of the same graph."""
_OPTIONAL = tuple(column.name for column in Measurement.__table__.columns if column.nullable)


class _DamagedError(Exception):
    """A value in the file is not what latlab writes there."""


def _recorded(row: PassRow) -> RecordedPass:
    place = f"pass {row.number} of measurement {row.measurement_id}"
    if row.kind not in list(PassKind):
        raise _DamagedError(f"{place} is of the unknown kind {row.kind!r:.40}")
    _check_raw(place, row.warmup_ns, row.samples_ns, row.telemetry)
    return RecordedPass(
        row.warmup_ns, row.samples_ns, row.telemetry, row.number, PassKind(row.kind), row.at, row.measurement_id
    )


def _check_raw(place: str, warmup_ns: object, samples_ns: object, telemetry: object) -> None:
    for samples in (warmup_ns, samples_ns):
        if not isinstance(samples, list) or not all(type(one) is int for one in samples):
            raise _DamagedError(f"{place} has samples that are no whole numbers")
    if not isinstance(telemetry, dict):
        raise _DamagedError(f"{place} has no telemetry")


def _table(text: object, column: str) -> dict[str, Any]:
    """Return the table that a JSON column holds."""
    value = json.loads(text) if isinstance(text, str) else text
    if not isinstance(value, dict):
        raise _DamagedError(f"the column {column} of a measurement holds no table")
    return value


def _measurement(connection: Connection, row_id: int) -> Measurement:
    values = dict(connection.exec_driver_sql("SELECT * FROM measurements WHERE id = ?", (row_id,)).mappings().one())
    return Measurement(**{name: _table(value, name) if name in _JSON else value for name, value in values.items()})


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
    """Update a store of an older version; newer versions only added tables, and columns that may be empty."""
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
