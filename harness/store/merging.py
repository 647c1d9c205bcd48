"""Merging stores: what several controllers have measured and imported comes into one, and nothing twice.

A measurement is known by its campaign, its architecture and the moment at which it began. So a session that two
stores share is there once, a session that was continued in one of them is taken with its continuation, and sessions
that two controllers measured of the same campaign stand side by side, under numbers of their own.
Damaged rows are left out.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latlab.harness.errors import BadInputError
from latlab.harness.store.copying import copy_sound, copy_store, new_store
from latlab.harness.store.place import ServerPlace, StorePath, store_path
from latlab.harness.store.schema import AnchorRow, Base, Measurement
from latlab.harness.store.store import Store

__all__ = ["Merged", "merge_stores"]

_UNFINISHED = ("running", "device_lost")


@dataclass
class Merged:
    """What a merge has brought together."""

    measurements: int = 0
    """Measurements that were added to those of the first store."""
    known: int = 0
    """Measurements that were there already."""
    sources: int = 0
    renamed: list[tuple[str, str]] = field(default_factory=list)
    """Sources of one name but other content, and the names that they have got."""
    damaged: int = 0
    """Damaged rows, which are left out; a `StoreWarning` for each store names them."""


def merge_stores(stores: Sequence[str | StorePath], into: str | StorePath, *, force: bool = False) -> Merged:
    """Merge stores into a new one, and return what was added to the first.

    Args:
        stores: at least two stores; they stay as they are.
        into: the file to make, or the address of a database without a store.
        force: replace an existing file, or the store in the database.

    Raises:
        BadInputError: there are fewer than two stores, one cannot be read, or the file cannot be written.
    """
    if len(stores) < 2:
        raise BadInputError("a merge takes at least two stores", "To copy one: latlab store copy.")
    into = store_path(into)
    if isinstance(into, ServerPlace):
        with tempfile.TemporaryDirectory(prefix="latlab-") as folder:
            file = Path(folder, "merged.db")
            merged = merge_stores(stores, file)
            copy_store(file, into, force=force)
        return merged
    merged = Merged()
    with new_store(into, force=force) as part:
        for at, one in enumerate(stores):
            with Store(one, must_exist=True) as store:
                if at == 0:
                    merged.damaged += len(copy_sound(store, part, into))
                    continue
                other = part.with_name(part.name + ".other")
                try:
                    merged.damaged += len(copy_sound(store, other, into))
                    _merge(part, other, merged)
                finally:
                    for suffix in ("", "-journal", ".lock"):
                        other.with_name(other.name + suffix).unlink(missing_ok=True)
        part.with_name(part.name + ".lock").unlink(missing_ok=True)
    return merged


def _merge(path: Path, other: Path, merged: Merged) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = _text
        connection.row_factory = sqlite3.Row
        connection.execute("ATTACH ? AS other", (str(other),))
        with connection:
            for table in ("campaigns", "fingerprints"):
                names = _names(table)
                connection.execute(f"INSERT OR IGNORE INTO {table} ({names}) SELECT {names} FROM other.{table}")
            connection.execute(
                "INSERT INTO leases SELECT * FROM other.leases WHERE 1 ON CONFLICT (device, folder) DO UPDATE "
                "SET token = max(token, excluded.token)"
            )
            names = _names("incidents", "id")
            connection.execute(
                f"INSERT INTO incidents ({names}) SELECT {names} FROM other.incidents EXCEPT "
                f"SELECT {names} FROM incidents"
            )
            ids: dict[int, int] = {}
            sessions = connection.execute(
                "SELECT DISTINCT campaign_id, session FROM other.measurements ORDER BY campaign_id, session"
            ).fetchall()
            for campaign, session in sessions:
                _merge_session(connection, campaign, session, ids, merged)
            _link_copies(connection, ids)
            _merge_sources(connection, merged)


def _text(value: bytes) -> str | bytes:
    """Return text as it is in the file; what is not UTF-8 is kept as it is, too."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _names(table: str, *without: str) -> str:
    names = [column.name for column in Base.metadata.tables[table].columns if column.name not in without]
    return ", ".join(f'"{name}"' for name in names)


def _merge_session(
    connection: sqlite3.Connection, campaign: str, session: int, ids: dict[int, int], merged: Merged
) -> None:
    """Add one session of the other store: to the session that it continues, or as one of its own."""
    theirs = connection.execute(
        'SELECT * FROM other.measurements WHERE campaign_id = ? AND session = ? ORDER BY "order", id',
        (campaign, session),
    ).fetchall()
    known = {
        (row["arch"], row["started_at"]): row
        for row in connection.execute("SELECT * FROM measurements WHERE campaign_id = ?", (campaign,))
    }
    shared = [row for row in theirs if (row["arch"], row["started_at"]) in known]
    new = [row for row in theirs if (row["arch"], row["started_at"]) not in known]
    merged.known += len(shared)
    own = {known[row["arch"], row["started_at"]]["session"] for row in shared}
    number = _continued(connection, campaign, own, len(shared)) if shared else None
    is_continued = number is not None
    for row in shared:
        mine = known[row["arch"], row["started_at"]]
        ids[row["id"]] = mine["id"]
        is_further = mine["status"] in _UNFINISHED and row["status"] not in _UNFINISHED
        if is_further or (is_continued and new and row["status"] not in _UNFINISHED):
            _take_over(connection, row, mine["id"])
        _add_passes(connection, row["id"], mine["id"])
    if number is None:
        number = min(own) if shared and not new else _free_number(connection, campaign, session)
    for row in new:
        values = {name: row[name] for name in row.keys() if name != "id"} | {"session": number, "same_graph_as": None}  # noqa: SIM118
        columns = ", ".join(f'"{name}"' for name in values)
        added = connection.execute(
            f"INSERT INTO measurements ({columns}) VALUES ({', '.join('?' * len(values))})", tuple(values.values())
        )
        assert added.lastrowid is not None
        ids[row["id"]] = added.lastrowid
        _add_passes(connection, row["id"], added.lastrowid)
    merged.measurements += len(new)
    _add_anchors(connection, campaign, session, number)
    what = "REPLACE" if is_continued and new else "IGNORE"
    connection.execute(
        f"INSERT OR {what} INTO sessions (campaign_id, session, facts) SELECT campaign_id, ?, facts "
        "FROM other.sessions WHERE campaign_id = ? AND session = ?",
        (number, campaign, session),
    )


def _continued(connection: sqlite3.Connection, campaign: str, own: set[int], shared: int) -> int | None:
    """Return the session that theirs continues: the only one that it shares rows with, and it shares all of them."""
    if len(own) != 1:
        return None
    (number,) = own
    (rows,) = connection.execute(
        "SELECT count(*) FROM measurements WHERE campaign_id = ? AND session = ?", (campaign, number)
    ).fetchone()
    return number if rows == shared else None


def _free_number(connection: sqlite3.Connection, campaign: str, wanted: int) -> int:
    taken = {
        row[0] for row in connection.execute("SELECT session FROM measurements WHERE campaign_id = ?", (campaign,))
    }
    return wanted if wanted not in taken else max(taken) + 1


def _take_over(connection: sqlite3.Connection, row: sqlite3.Row, mine: int) -> None:
    kept = ("id", "session", "campaign_id", "arch", "same_graph_as", "order")
    values: dict[str, Any] = {name: row[name] for name in row.keys() if name not in kept}  # noqa: SIM118
    assignments = ", ".join(f'"{name}" = ?' for name in values)
    connection.execute(f"UPDATE measurements SET {assignments} WHERE id = ?", (*values.values(), mine))


def _add_passes(connection: sqlite3.Connection, theirs: int, mine: int) -> None:
    names = _names("passes", "id", "measurement_id")
    connection.execute(
        f"INSERT OR IGNORE INTO passes (measurement_id, {names}) SELECT ?, {names} FROM other.passes "
        "WHERE measurement_id = ? ORDER BY id",
        (mine, theirs),
    )


def _add_anchors(connection: sqlite3.Connection, campaign: str, session: int, number: int) -> None:
    names = _names(AnchorRow.__tablename__, "id", "session")
    connection.execute(
        f"INSERT INTO anchors (session, {names}) SELECT ?, {names} FROM other.anchors t "
        "WHERE campaign_id = ? AND session = ? AND NOT EXISTS (SELECT 1 FROM main.anchors a "
        "WHERE a.campaign_id = t.campaign_id AND a.arch = t.arch AND a.at = t.at) ORDER BY id",
        (number, campaign, session),
    )


def _link_copies(connection: sqlite3.Connection, ids: dict[int, int]) -> None:
    """Let measurements that share a graph refer to the same one as in their store."""
    found = connection.execute(
        f"SELECT id, same_graph_as FROM other.{Measurement.__tablename__} WHERE same_graph_as IS NOT NULL"
    ).fetchall()
    connection.executemany(
        "UPDATE measurements SET same_graph_as = ? WHERE id = ? AND same_graph_as IS NULL",
        [(ids[same], ids[one]) for one, same in found if same in ids and one in ids],
    )


def _merge_sources(connection: sqlite3.Connection, merged: Merged) -> None:
    for row in connection.execute("SELECT * FROM other.sources ORDER BY id").fetchall():
        name, identity = row["name"], (row["space"], row["sha256"], row["unit"])
        there = {
            one["name"]: (one["space"], one["sha256"], one["unit"])
            for one in connection.execute("SELECT * FROM sources WHERE space = ?", (row["space"],))
        }
        alike = [one for one, content in there.items() if content == identity and _stem(one, name)]
        if alike:
            continue
        if name in there:
            number = next(at for at in range(2, len(there) + 3) if f"{name}-{at}" not in there)
            merged.renamed.append((name, f"{name}-{number}"))
            name = f"{name}-{number}"
        values = {key: row[key] for key in row.keys() if key != "id"} | {"name": name}  # noqa: SIM118
        columns = ", ".join(f'"{key}"' for key in values)
        added = connection.execute(
            f"INSERT INTO sources ({columns}) VALUES ({', '.join('?' * len(values))})", tuple(values.values())
        ).lastrowid
        connection.execute(
            "INSERT OR IGNORE INTO source_archs (space, arch) SELECT a.space, a.arch FROM other.source_labels l "
            "JOIN other.source_archs a ON a.id = l.arch_id WHERE l.source_id = ? ORDER BY a.id",
            (row["id"],),
        )
        connection.execute(
            "INSERT INTO source_labels (source_id, arch_id, latency_ms, stderr_ms) SELECT ?, mine.id, l.latency_ms, "
            "l.stderr_ms FROM other.source_labels l JOIN other.source_archs a ON a.id = l.arch_id "
            "JOIN main.source_archs mine ON mine.space = a.space AND mine.arch = a.arch "
            "WHERE l.source_id = ? ORDER BY mine.id",
            (added, row["id"]),
        )
        merged.sources += 1


def _stem(one: str, name: str) -> bool:
    """Return whether a source's name is `name`, or what an earlier merge has made of it."""
    return one == name or (one.startswith(f"{name}-") and one[len(name) + 1 :].isdigit())
