"""What is in a store, and whether it is sound."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from latlab.harness.store.damage import DamagedRow
from latlab.harness.store.dialects import dialect_of
from latlab.harness.store.lock import is_locked
from latlab.harness.store.place import StorePath
from latlab.harness.store.reading import announces_log
from latlab.harness.store.row_check import damaged_rows
from latlab.harness.store.schema import SCHEMA_VERSION, TRANSIENT, Base
from latlab.harness.store.server import StoreServer
from latlab.harness.store.store import Store
from latlab.harness.store.store_file import StoreFile
from latlab.harness.store.tables import Tables

__all__ = ["StoreCheck", "StoreInfo", "check_store", "store_info"]


@dataclass(frozen=True)
class StoreInfo:
    """What is in a store."""

    path: StorePath
    size_bytes: int
    log_bytes: int
    """Size of the log beside a file, which a copy of the file alone would lack."""
    schema: int
    newest_schema: int
    """The version that this latlab writes."""
    rows: dict[str, int]
    """Number of rows of each table."""
    labels: int
    failed: int
    running: int
    first: str | None
    """When the first measurement began, UTC."""
    last: str | None
    targets: dict[str, dict[str, int]]
    """Number of labels by target and space."""
    sources: list[dict[str, Any]]
    """Imported sources: name, space, architectures."""
    versions: list[str]
    """Versions of latlab that measured sessions; older ones than 0.2 did not say theirs."""

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON types."""
        return {**asdict(replace(self, path=Path())), "path": str(self.path)}


@dataclass(frozen=True)
class StoreCheck:
    """What is wrong with a store."""

    file: list[str] = field(default_factory=list)
    """What the database finds wrong with the file, and references to rows that are not there."""
    damaged: list[DamagedRow] = field(default_factory=list)
    running: list[dict[str, Any]] = field(default_factory=list)
    """Sessions with measurements that are not finished, of which nobody is measuring: target, space, session, rows."""

    @property
    def is_sound(self) -> bool:
        """Return whether nothing is damaged; unfinished measurements are no damage."""
        return not self.file and not self.damaged


def store_info(path: str | StorePath) -> StoreInfo:
    """Return what is in a store. Raises `StoreError` if it cannot be read."""
    with Store(path, must_exist=True) as store:
        sessions = store.campaigns()
        targets: dict[str, dict[str, int]] = {}
        for row in sessions.to_dict("records"):
            if row["selection"] not in ("sustain", "compare") and row["ok"]:
                spaces = targets.setdefault(str(row["target"]), {})
                spaces[str(row["space"])] = spaces.get(str(row["space"]), 0) + int(row["ok"])
        with store.reading() as connection:
            tables = Tables(connection)
            rows = {
                name: int(tables.query(f"SELECT count(*) FROM {name}")[0][0])
                for name in sorted(Base.metadata.tables.keys() - set(TRANSIENT))
            }
            version = dialect_of(connection).schema_version(connection)
            sources = tables.query(
                "SELECT name, space, (SELECT count(*) FROM source_labels l WHERE l.source_id = s.id) "
                "FROM sources s ORDER BY space, name"
            )
            versions = _versions(tables)
        return StoreInfo(
            path=store.path,
            size_bytes=store.size_bytes(),
            log_bytes=_log_bytes(store.access),
            schema=version,
            newest_schema=SCHEMA_VERSION,
            rows=rows,
            labels=int(sessions["ok"].sum()),
            failed=int(sessions["failed"].sum()),
            running=int(sessions["running"].sum()),
            first=min(sessions["first"].dropna(), default=None),
            last=max(sessions["last"].dropna(), default=None),
            targets=targets,
            sources=[{"name": name, "space": space, "architectures": count} for name, space, count in sources],
            versions=versions,
        )


def _log_bytes(access: StoreFile | StoreServer) -> int:
    if isinstance(access, StoreServer):
        return 0
    log = access.real_path.with_name(access.real_path.name + "-wal")
    return log.stat().st_size if announces_log(access.real_path) and log.exists() else 0


def _versions(tables: Tables) -> list[str]:
    """Return the versions of latlab that the facts of sessions name."""
    found = set()
    for (facts,) in tables.query("SELECT facts FROM sessions"):
        try:
            version = json.loads(facts).get("latlab")
        except (TypeError, ValueError, AttributeError, RecursionError):
            continue
        if isinstance(version, str):
            found.add(version)
    return sorted(found)


def check_store(path: str | StorePath) -> StoreCheck:
    """Look at every row of a store, and return what is wrong. Raises `StoreError` if it cannot be read at all."""
    with Store(path, must_exist=True) as store, store.reading() as connection:
        file = dialect_of(connection).faults(connection)
        bad = list(damaged_rows(connection))
        running = []
        if _is_free(store):
            columns = ("target", "space", "session", "rows")
            found = Tables(connection).query(
                "SELECT c.target, c.space, m.session, count(*) FROM measurements m JOIN campaigns c "
                "ON c.id = m.campaign_id WHERE m.status IN ('running', 'device_lost') GROUP BY c.id, m.session"
            )
            running = [dict(zip(columns, one, strict=True)) for one in found]
        return StoreCheck(file, bad, running)


def _is_free(store: Store) -> bool:
    """Return whether nobody measures into the store."""
    if isinstance(store.access, StoreServer):
        return not store.access.has_controllers()
    return not is_locked(store.access.real_path)
