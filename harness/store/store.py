"""The store: everything that was measured, in an SQLite file that one controller writes, or in a PostgreSQL server.

A pass (one short run of samples of one network) is committed as soon as it arrives, so that killing the controller
loses at most the pass in progress. A measurement is one row per campaign, session and architecture; the unique
constraint makes a duplicate impossible. Controllers that share a server claim networks before they measure them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import pandas as pd
from sqlalchemy import Connection, delete, select, text, update
from sqlalchemy.orm import Session

from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.store.claims import NOT_TAKEN, TakenError, claim, claim_unfinished, holder, release
from latlab.harness.store.damage import warn_of
from latlab.harness.store.dialects import dialect_of, run
from latlab.harness.store.errors import DamagedError, StoreError
from latlab.harness.store.place import ServerPlace, StorePath, store_path
from latlab.harness.store.recorded import read_anchors, read_facts, read_passes
from latlab.harness.store.schema import (
    AnchorRow,
    Campaign,
    Claim,
    Fingerprint,
    Incident,
    Lease,
    Measurement,
    SessionFacts,
)
from latlab.harness.store.server import StoreServer
from latlab.harness.store.store_file import StoreFile
from latlab.harness.store.streamed_table import StreamedTable
from latlab.harness.store.tables import Question, Tables
from latlab.harness.store.vocabulary import Status
from latlab.harness.targets import Target
from latlab.harness.telemetry.recorded_pass import PassKind, RecordedAnchor, RecordedPass
from latlab.harness.timing_policy import TimingPolicy

__all__ = ["Campaign", "Label", "LeaseToken", "Measurement", "StaleLeaseError", "Store", "StoreError"]


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


Method = TypeVar("Method", bound=Callable[..., Any])


def _again(method: Method) -> Method:
    """Have a method of `Store` run again where its transaction may succeed then (`StoreServer.retry`)."""

    @wraps(method)
    def tried(self: Store, *args: Any, **named: Any) -> Any:
        if not self.is_shared:
            return method(self, *args, **named)
        return self.access.retry(lambda: method(self, *args, **named))

    return tried  # type: ignore[return-value]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


class Store:
    """A store, created by the first write if there is none. Reading needs no lock and writes nothing.

    Damaged rows are left out with a `StoreWarning`.

    Args:
        path: an SQLite file, or the address of a database of a PostgreSQL server
            (`postgresql+psycopg://user@host/database`).
        must_exist: raise `StoreError` if there is no such store.

    Raises:
        StoreError: if the store cannot be used, or is none.
    """

    def __init__(self, path: str | StorePath, *, must_exist: bool = False) -> None:
        place = store_path(path)
        self.access: StoreFile | StoreServer = (
            StoreServer(place, must_exist=must_exist)
            if isinstance(place, ServerPlace)
            else StoreFile(place, must_exist=must_exist)
        )
        self.path = self.access.path
        """Where the store is."""
        self.is_shared = self.access.is_shared
        """Whether several controllers may write at once."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self.access.close()

    def exists(self) -> bool:
        """Return whether there is a store at its place."""
        return self.access.exists()

    def size_bytes(self) -> int:
        """Return the bytes that the store takes; 0 if there is none."""
        return self.access.size_bytes()

    def reading(self) -> AbstractContextManager[Connection]:
        """Open a connection to read with."""
        return self.access.reading()

    def transaction(self) -> AbstractContextManager[Connection]:
        """Open a transaction in plain SQL: committed at the end, undone by an exception.

        Raises:
            StoreError: if the store cannot be written, or its file was deleted or replaced since it was opened.
        """
        return self.access.transaction()

    def session(self) -> AbstractContextManager[Session]:
        """Open a transaction in SQLAlchemy's objects, which take five times longer than plain SQL. Raises as it."""
        return self.access.session()

    def writing(self) -> AbstractContextManager[None]:
        """Measure into the store: into a file nobody else then, into a server others do so, too.

        The lock of a file ends with its process, however it ends.

        Raises:
            LatlabError: if another process measures into the file.
            StoreError: at the end, if the file has been deleted or replaced meanwhile.
        """
        return self.access.writing()

    # Devices

    @_again
    def claim(self, lease: LeaseToken) -> None:
        """Record that a device is used under `lease` from now on.

        Raises:
            StaleLeaseError: if it is older than the newest one.
        """
        with self.session() as session:
            newest = session.get(Lease, (lease.device, lease.folder), with_for_update=True)
            if newest is None:
                session.add(Lease(device=lease.device, folder=lease.folder, token=lease.token))
            elif newest.token > lease.token:
                raise StaleLeaseError(lease.device)
            else:
                newest.token = lease.token
            if not self.is_shared:  # two controllers may have devices of one name
                others = delete(Lease).where(Lease.device == lease.device, Lease.folder != lease.folder)
                session.execute(others)

    def note(self, device: str, kind: str, message: str) -> None:
        """Store an incident of a device.

        Args:
            kind: a short name, such as `lost`.
            message: what happened, in words.
        """
        at = _now()

        def add() -> None:
            with self.session() as session:
                row = Incident(at=at, device=device, kind=kind, message=message)
                if not (self.is_shared and _is_there(session, row)):
                    session.add(row)

        self.access.retry(add)

    @_again
    def incidents(self) -> pd.DataFrame:
        """Return the incidents of all devices, oldest first: columns at, device, kind, message."""
        with self.reading() as connection:
            tables = Tables(connection)
            found = tables.incidents()
        warn_of(self.path, tables.damaged)
        return found

    # Campaigns and measurements

    @_again
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

    @_again
    def fingerprint(self, facts: dict[str, Any]) -> str:
        """Store the facts of a device, if they are new, and return their id."""
        key = _digest(facts)
        with self.session() as session:
            if session.get(Fingerprint, key) is None:
                session.add(Fingerprint(id=key, facts=facts))
        return key

    @_again
    def latest_session(self, campaign: Campaign) -> int:
        """Return the number of the campaign's last session; 0 if it has none."""
        with self.reading() as connection:
            query = text("SELECT coalesce(max(session), 0) FROM measurements WHERE campaign_id = :c")
            return int(connection.execute(query, {"c": campaign.id}).scalar_one())

    @_again
    def begin(self, campaign: Campaign, session_number: int, arch: str, role: str, **fields: Any) -> Measurement:
        """Return the row of an architecture: the one that an earlier run left, or else a new one that is `running`.

        Args:
            fields: further columns to set.

        Raises:
            TakenError: if another controller measures the network.
        """
        key = (campaign.id, session_number, arch)
        with self.transaction() as connection:
            self._claim(connection, key)
            known, order = run(
                connection,
                "SELECT (SELECT id FROM measurements WHERE campaign_id = ? AND session = ? AND arch = ?), "
                "(SELECT count(*) FROM measurements WHERE campaign_id = ? AND session = ?)",
                (*key, *key[:2]),
            ).one()
            if known is not None:
                _update(connection, known, fields)
                return _measurement(connection, known)
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
            row_id = dialect_of(connection).insert(
                connection,
                f"INSERT INTO measurements ({names}) VALUES ({', '.join('?' * len(values))})",
                _to_sql(values),
            )
            row = Measurement(id=row_id, **{**dict.fromkeys(_OPTIONAL), **values})
            row.is_new = True
            return row

    @_again
    def passes(self, measurement_id: int) -> list[RecordedPass]:
        """Return the passes of a measurement, of every kind, in order."""
        with self.reading() as connection:
            found, bad = read_passes(connection, "p.measurement_id = ?", (measurement_id,), "p.number")
        warn_of(self.path, bad)
        return found

    def add_pass(self, measurement_id: int, recorded: RecordedPass, lease: LeaseToken | None = None) -> None:
        """Store one pass of a measurement.

        Args:
            lease: the lease under which the device was used; None if no other controller can use it.

        Raises:
            StaleLeaseError: if another controller has used the device since.
            TakenError: if another controller measures the network, because this one was away.
        """
        at = _now()
        self.access.retry(lambda: self._add_pass(measurement_id, recorded, lease, at))

    def _add_pass(self, measurement_id: int, recorded: RecordedPass, lease: LeaseToken | None, at: str) -> None:
        controller = self.access.controller
        number, conditions = "?", []
        marks: list[Any] = []
        if lease is not None:
            conditions.append("EXISTS (SELECT 1 FROM leases WHERE device = ? AND folder = ? AND token = ?)")
            marks += lease
        if controller is not None:
            conditions.append(NOT_TAKEN)
            marks += [measurement_id, controller]
        if self.is_shared:
            # Another controller may have probed the finished network. And this pass may be there: its commit may have
            # been the last before the server went away.
            number = "greatest(?, coalesce((SELECT max(number) + 1 FROM passes WHERE measurement_id = ?), 0))"
            conditions.append(f"NOT {_SAME_PASS}")
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        sql = (
            "INSERT INTO passes (measurement_id, number, warmup_ns, samples_ns, telemetry, at, kind) "
            f"SELECT ?, {number}, ?, ?, ?, ?, ?{where}"
        )
        with self.transaction() as connection:
            nanoseconds = dialect_of(connection).nanoseconds
            samples = nanoseconds(recorded.samples_ns)
            same = (measurement_id, at, samples) if self.is_shared else ()
            numbers = (recorded.number, measurement_id) if self.is_shared else (recorded.number,)
            raw = (nanoseconds(recorded.warmup_ns), samples, json.dumps(recorded.telemetry))
            values = (measurement_id, *numbers, *raw, at, str(recorded.kind), *marks, *same)
            if run(connection, sql, values).rowcount:
                return
            if self.is_shared and run(connection, f"SELECT {_SAME_PASS}", same).scalar_one():
                return
            self._check_taken(connection, measurement_id)
            assert lease is not None
            raise StaleLeaseError(lease.device)

    @_again
    def reject_pass(self, measurement_id: int, number: int) -> None:
        """Mark a pass as rejected, so that it is no part of a label."""
        with self.transaction() as connection:
            run(
                connection,
                "UPDATE passes SET kind = ? WHERE measurement_id = ? AND number = ?",
                (str(PassKind.REJECTED), measurement_id, number),
            )

    def add_anchor(self, campaign: Campaign, session_number: int, anchor: RecordedAnchor) -> None:
        """Store one pass of an anchor."""
        at = _now()

        def add() -> None:
            with self.session() as session:
                row = AnchorRow(
                    campaign_id=campaign.id,
                    session=session_number,
                    arch=anchor.arch,
                    warmup_ns=anchor.warmup_ns,
                    samples_ns=anchor.samples_ns,
                    telemetry=anchor.telemetry,
                    at=at,
                    ok=anchor.in_line,
                )
                if not (self.is_shared and _is_there(session, row)):
                    session.add(row)

        self.access.retry(add)

    @_again
    def anchors(self, campaign_id: str, session_number: int) -> list[RecordedAnchor]:
        """Return the passes of a session's anchors, in the order in which they were taken."""
        with self.reading() as connection:
            found, bad = read_anchors(connection, campaign_id, session_number)
        warn_of(self.path, bad)
        return found

    @_again
    def anchored_sessions(self, device: str, most: int) -> list[tuple[str, str, int]]:
        """Return the sessions of a device that have timed anchors, at most the `most` latest of each target.

        Returns:
            Target, campaign id and session number of each, the latest first.
        """
        with self.reading() as connection:
            return Tables(connection).anchored_sessions(device, most)

    @_again
    def session_facts(self, campaign_id: str, session_number: int) -> dict[str, Any]:
        """Return the facts of a session as a whole; empty if there are none."""
        with self.reading() as connection:
            found, bad = read_facts(
                connection, "sessions", "campaign_id = ? AND session = ?", (campaign_id, session_number)
            )
        warn_of(self.path, bad)
        return found

    @_again
    def note_session(self, campaign_id: str, session_number: int, **facts: Any) -> None:
        """Add facts to those of a session; facts of the same name are replaced."""
        with self.session() as session:
            found = session.get(SessionFacts, (campaign_id, session_number), with_for_update=True)
            if found is None:
                session.add(SessionFacts(campaign_id=campaign_id, session=session_number, facts=facts))
            else:
                found.facts = {**(found.facts if isinstance(found.facts, dict) else {}), **facts}

    @_again
    def session_passes(self, campaign_id: str, session_number: int) -> list[RecordedPass]:
        """Return all passes of a session's measurements, in the order in which they were taken."""
        with self.reading() as connection:
            found, bad = read_passes(
                connection, "m.campaign_id = ? AND m.session = ?", (campaign_id, session_number), "p.id"
            )
        warn_of(self.path, bad)
        return found

    @_again
    def finish(self, measurement_id: int, status: str, **fields: Any) -> Measurement:
        """Close a running row as `ok` or as a kind of failure; `running` keeps it open with what is known so far.

        Raises:
            TakenError: if another controller measures the network, because this one was away.
        """
        finished_at = None if status == Status.RUNNING else _now()
        with self.transaction() as connection:
            values = {"status": status, "finished_at": finished_at, **fields}
            if not _update(connection, measurement_id, values, self.access.controller):
                self._check_taken(connection, measurement_id)
            row = _measurement(connection, measurement_id)
            if self.access.controller is not None and finished_at is not None:
                release(connection, self.access.controller, measurement_id)
        self.access.fold()
        return row

    @_again
    def relabel(self, labels: Iterable[Label]) -> None:
        """Replace the labels of measurements, and of those that copied them because their graph is the same."""
        sql = (
            "UPDATE measurements SET latency_ms = ?, stderr_ms = ?, low_ms = ?, high_ms = ?, verdict = ?, "
            "metrics = {} WHERE {} = ?"
        )
        values = [(*label, json.dumps(dict(figures)), row_id) for row_id, *label, figures in labels]
        with self.transaction() as connection:
            for column in ("id", "same_graph_as") if values else ():
                run(connection, sql.format(dialect_of(connection).merged_metrics, column), values)
        self.access.fold()

    @_again
    def lose(self, campaign_id: str, session_number: int, reason: str) -> int:
        """Mark the running measurements of a session as `device_lost`, because the device is given up.

        Their passes stay, and `resume` continues them.

        Returns:
            The number of these measurements.
        """
        return self._change_status(campaign_id, session_number, Status.RUNNING, Status.DEVICE_LOST, reason)

    @_again
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
        if self.access.controller is not None and new == Status.DEVICE_LOST:  # others may have such a device, too
            own = select(Claim.arch).where(
                Claim.campaign_id == campaign_id,
                Claim.session == session_number,
                Claim.controller_id == self.access.controller,
            )
            query = query.where(Measurement.arch.in_(own))
        with self.session() as session:
            return int(session.execute(query).rowcount)  # type: ignore[attr-defined]

    # Controllers that share the store

    @_again
    def claim_network(self, campaign: Campaign, session_number: int, arch: str) -> bool:
        """Return whether this controller is to measure a network now: no other one does, and it has no finished row."""
        if self.access.controller is None:
            return True
        with self.transaction() as connection:
            return claim_unfinished(connection, self.access.controller, (campaign.id, session_number, arch))

    def _claim(self, connection: Connection, key: tuple[str, int, str]) -> None:
        """Claim a network before its row is made or continued."""
        if self.access.controller is not None and not claim(connection, self.access.controller, key):
            raise TakenError(key[2], holder(connection, key))

    def _check_taken(self, connection: Connection, measurement_id: int) -> None:
        """Raise `TakenError` if another controller has claimed the network of a measurement."""
        controller = self.access.controller
        if controller is None or run(connection, f"SELECT {NOT_TAKEN}", (measurement_id, controller)).scalar_one():
            return
        row = _measurement(connection, measurement_id)
        raise TakenError(row.arch, holder(connection, (row.campaign_id, row.session, row.arch)))

    # Rows

    @_again
    def rows(self, campaign: Campaign, session_number: int) -> dict[str, Measurement]:
        """Return the rows of one session of a campaign by architecture, in the order of measuring."""
        with self.reading() as connection, Session(connection, expire_on_commit=False) as session:
            query = (
                select(Measurement)
                .where(Measurement.campaign_id == campaign.id, Measurement.session == session_number)
                .order_by(Measurement.order, Measurement.id)  # two controllers may have given one place twice
            )
            return {row.arch: row for row in session.scalars(query)}

    @_again
    def same_graph(self, row: Measurement) -> Measurement | None:
        """Return a finished measurement of the same session whose exported file is the same as the row's, or None."""
        with self.reading() as connection:
            found = run(
                connection,
                "SELECT id FROM measurements WHERE campaign_id = ? AND session = ? AND artifact_sha256 = ? "
                "AND status = 'ok' AND same_graph_as IS NULL AND id != ?",
                (row.campaign_id, row.session, row.artifact_sha256, row.id),
            ).scalar()
            return None if found is None else _measurement(connection, found)

    @_again
    def copy_result(self, measurement_id: int, from_id: int) -> Measurement:
        """Close a row with the result of the measurement that timed the same graph."""
        with self.reading() as connection:
            source = _measurement(connection, from_id)
        result = {name: getattr(source, name) for name in _RESULT}
        return self.finish(measurement_id, Status.OK, same_graph_as=from_id, times_s={}, **result)

    # Tables

    @_again
    def table(
        self,
        *,
        target: str | Collection[str] | None = None,
        space: str | None = None,
        campaign: str | None = None,
        raw: bool = False,
        sustained: bool = False,
        provisional: bool = False,
        only: Collection[str] | None = None,
        networks: int | None = None,
    ) -> pd.DataFrame:
        """Return all finished measurements, failed ones included, one row each: the campaign's facts, then its own.

        Args:
            target: only those of this target, or of these.
            space: only those of this search space.
            campaign: only those of the campaign with this id.
            raw: add a column `passes` with the raw samples in ns, a list per pass.
            sustained: include sustained runs and paired comparisons, which are no labels.
            provisional: include the labels so far of networks that still miss passes, as if they were finished, and add
                a column `provisional` that marks them, and those whose session's drift is still in them.
            only: only these columns, of those that are the same for all stores (`tables.LABELS`, say), and these
                metrics: the times of stages, all metrics and the artifact take most of the time of reading.
            networks: of a target with more finished measurements in a space, only those of about so many networks,
                drawn at random but the same in each call, and only comparable ones (`comparable`).
        """
        asked = Question(target, space, campaign, raw, sustained, provisional, only, networks)
        with self.reading() as connection:
            tables = Tables(connection)
            found = tables.measurements(asked)
        warn_of(self.path, tables.damaged)
        return found

    @_again
    def stream(self, asked: Question, folder: Path) -> StreamedTable:
        """Return measurements as `table` does, in parts, so that many of them take little memory.

        Args:
            asked: the measurements.
            folder: where the parts are kept meanwhile, in a file without a name.
        """
        found = StreamedTable(folder)
        with self.reading() as connection:
            tables = Tables(connection)
            for part in tables.parts(asked):
                found.add(part)
        warn_of(self.path, tables.damaged)
        return found

    @_again
    def failures(self) -> pd.DataFrame:
        """Return the measurements that failed, one row each: columns target, space, arch, status, error."""
        asked = Question(only=("target", "space", "arch", "status", "error"), failures=True)
        with self.reading() as connection:
            tables = Tables(connection)
            found = tables.measurements(asked)
        warn_of(self.path, tables.damaged)
        return found

    @_again
    def finished(self, space: str) -> dict[str, int]:
        """Return the number of finished measurements of each target in a space."""
        with self.reading() as connection:
            return Tables(connection).finished(space)

    @_again
    def labelled(self) -> list[tuple[str, str]]:
        """Return the targets and spaces that have labels."""
        with self.reading() as connection:
            return Tables(connection).pairs()

    @_again
    def campaigns(self) -> pd.DataFrame:
        """Return a row per campaign and session, with the numbers of finished, failed and running measurements."""
        with self.reading() as connection:
            tables = Tables(connection)
            found = tables.sessions()
        warn_of(self.path, tables.damaged)
        return found

    @_again
    def facts(self, fingerprint_id: str) -> dict[str, Any]:
        """Return the facts of a device that `fingerprint` stored under this id; empty if there are none."""
        with self.reading() as connection:
            found, bad = read_facts(connection, "fingerprints", "id = ?", (fingerprint_id,))
        warn_of(self.path, bad)
        return found

    @_again
    def version(self) -> tuple[int, int]:
        """Return two numbers, of which at least one differs whenever anything in the store has changed."""
        with self.reading() as connection:
            others, own = dialect_of(connection).changes(connection)
            return (self.access.times_opened << 32) + others, own

    @_again
    def labels_digest(self, space: str) -> str:
        """Return a text that differs once any label of a space, measured or imported, or of its blocks has changed."""
        measured = """
            SELECT c.target, c.space, m.role, count(*), max(m.id), sum(m.latency_ms), sum(m.stderr_ms),
                   count(CASE WHEN m.status = 'ok' THEN 1 END)
            FROM measurements m JOIN campaigns c ON c.id = m.campaign_id
            WHERE c.space IN (?, ?) AND m.status IN ('ok', 'running') AND m.latency_ms IS NOT NULL
            GROUP BY c.target, c.space, m.role
            ORDER BY c.target, c.space, m.role
        """
        imported = "SELECT id, name, sha256, imported_at FROM sources WHERE space = ? ORDER BY id"
        with self.reading() as connection:
            tables = Tables(connection)
            rows = [*tables.query(measured, (space, f"{space}-blocks")), *tables.query(imported, (space,))]
        return _digest([list(map(repr, row)) for row in rows])


def _is_there(session: Session, row: AnchorRow | Incident) -> bool:
    """Return whether a row is there, whatever its id: its commit may have been the last before the server went away."""
    kind = type(row)
    same = [kind.at == row.at]
    if isinstance(row, AnchorRow):
        same += [AnchorRow.campaign_id == row.campaign_id, AnchorRow.session == row.session, AnchorRow.arch == row.arch]
        same += [AnchorRow.samples_ns == row.samples_ns]
    else:
        same += [Incident.device == row.device, Incident.kind == row.kind, Incident.message == row.message]
    return session.scalar(select(kind.id).where(*same).limit(1)) is not None


_SAME_PASS = "EXISTS (SELECT 1 FROM passes WHERE measurement_id = ? AND at = ? AND samples_ns = ?)"
_JSON = ("artifact", "times_s", "metrics")
_RESULT = ("latency_ms", "stderr_ms", "raw_ms", "low_ms", "high_ms", "verdict", "artifact", "metrics")
"""Columns that a row copies from the measurement of the same graph."""
_OPTIONAL = tuple(column.name for column in Measurement.__table__.columns if column.nullable)


def _table(text: object, column: str) -> dict[str, Any]:
    """Return the table that a JSON column holds."""
    value = json.loads(text) if isinstance(text, str) else text
    if not isinstance(value, dict):
        raise DamagedError(f"the column {column} of a measurement holds no table")
    return value


def _measurement(connection: Connection, row_id: int) -> Measurement:
    values = dict(run(connection, "SELECT * FROM measurements WHERE id = ?", (row_id,)).mappings().one())
    return Measurement(**{name: _table(value, name) if name in _JSON else value for name, value in values.items()})


def _update(connection: Connection, row_id: int, fields: dict[str, Any], controller: str | None = None) -> bool:
    """Set columns of a row, unless another one than the controller has claimed it; return whether they are set."""
    if not fields:
        return True
    assignments = ", ".join(f'"{name}" = ?' for name in fields)
    condition, marks = ("", ()) if controller is None else (f" AND {NOT_TAKEN}", (row_id, controller))
    sql = f"UPDATE measurements SET {assignments} WHERE id = ?{condition}"
    return bool(run(connection, sql, (*_to_sql(fields), row_id, *marks)).rowcount)


def _to_sql(fields: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(json.dumps(value) if isinstance(value, dict) else value for value in fields.values())
