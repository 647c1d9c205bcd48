"""All damaged rows of a store: to name them, and to leave them out of a new store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection

from latlab.harness.store.damage import DamagedRow, damaged
from latlab.harness.store.schema import TRANSIENT, Base
from latlab.harness.store.tables import Tables

__all__ = ["damaged_rows", "remove_damaged"]

_CHUNK = 5_000
_WITHOUT_ROWID = ("source_labels",)
_UPKEEP = (
    "DELETE FROM measurements WHERE campaign_id NOT IN (SELECT id FROM campaigns)",
    "DELETE FROM anchors WHERE campaign_id NOT IN (SELECT id FROM campaigns)",
    "DELETE FROM sessions WHERE campaign_id NOT IN (SELECT id FROM campaigns)",
    "DELETE FROM passes WHERE measurement_id NOT IN (SELECT id FROM measurements)",
    "UPDATE measurements SET fingerprint_id = NULL WHERE fingerprint_id NOT IN (SELECT id FROM fingerprints)",
    "UPDATE measurements SET same_graph_as = NULL WHERE same_graph_as NOT IN (SELECT id FROM measurements)",
    "DELETE FROM source_labels WHERE source_id NOT IN (SELECT id FROM sources)",
    "DELETE FROM source_labels WHERE arch_id NOT IN (SELECT id FROM source_archs)",
)
"""What removes the rows that belong to removed ones, and what refers to these."""


def damaged_rows(connection: Connection) -> Iterator[DamagedRow]:
    """Yield the damaged rows of all tables."""
    for table in (one for one in Base.metadata.tables if one not in TRANSIENT):
        for row, _ in _of_table(connection, table, []):
            yield row


def remove_damaged(connection: Connection) -> list[DamagedRow]:
    """Remove the damaged rows of all tables, with the rows that belong to them, and return the damaged ones.

    Args:
        connection: of a transaction in which nothing was changed yet, in a store that is up to date.
    """
    removed: list[DamagedRow] = []
    connection.exec_driver_sql("BEGIN")  # Python's sqlite3 does so at the first change only, and this is forgotten then
    connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
    for name, table in Base.metadata.tables.items():
        if name in TRANSIENT:
            continue
        keys = [column.name for column in table.primary_key.columns] if name in _WITHOUT_ROWID else ["rowid"]
        found = list(_of_table(connection, name, keys))
        where = " AND ".join(f"{key} IS ?" for key in keys)
        for row, values in found:
            connection.exec_driver_sql(f"DELETE FROM {name} WHERE {where}", values)
            removed.append(row)
    for sql in _UPKEEP if removed else ():
        connection.exec_driver_sql(sql)
    return removed


def _of_table(connection: Connection, table: str, keys: list[str]) -> Iterator[tuple[DamagedRow, tuple[Any, ...]]]:
    """Yield the damaged rows of a table, each with its values of the columns `keys`."""
    columns = [column.name for column in Base.metadata.tables[table].columns]
    primary = [column.name for column in Base.metadata.tables[table].primary_key.columns]
    tables = Tables(connection)
    spaces = dict(tables.query("SELECT id, space FROM campaigns")) if table == "measurements" else None
    names = ", ".join([*(f'"{name}"' for name in columns), *keys])
    for rows in tables.chunks(f"SELECT {names} FROM {table}", _CHUNK):
        values = dict(zip(columns, zip(*(row[: len(columns)] for row in rows), strict=True), strict=True))
        shown = [" ".join(map(str, one)) for one in zip(*(values[key] for key in primary), strict=True)]
        where = None if spaces is None else [spaces.get(one) for one in values["campaign_id"]]
        for place, row in damaged(table, shown, values, where).items():
            yield row, tuple(rows[place][len(columns) :])
