"""Files of older versions: a reader sees them as if they were up to date. A writer updates them (`migrations`)."""

from __future__ import annotations

from sqlalchemy import Connection, Table

from latlab.harness.store.schema import TRANSIENT, Base

__all__ = ["has_indices", "read_as_new"]

_DEFAULTS = {"raw_ms": "latency_ms"}
"""Columns that older versions lack, and what a reader takes instead; by default it is the column's own default."""


def has_indices(connection: Connection) -> bool:
    """Return whether the store has all indices of this version, which came before a new version of the schema."""
    wanted = {str(index.name) for table in Base.metadata.sorted_tables for index in table.indexes}
    there = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'index'").scalars()
    return wanted <= set(there)


def read_as_new(connection: Connection) -> None:
    """Give an open connection views, of its own, that have the tables and columns which its older store lacks.

    A temporary view hides the table of its name, and nothing is written to the store.
    """
    connection.exec_driver_sql("PRAGMA temp_store = MEMORY")
    for table in Base.metadata.sorted_tables:
        if table.name in TRANSIENT:
            continue
        there = _columns(connection, table)
        missing = [column.name for column in table.columns if column.name not in there]
        if missing:
            own = [f'"{column.name}"' for column in table.columns if column.name in there]
            added = [f'{_default(table, name)} AS "{name}"' for name in missing]
            source = f"FROM main.{table.name}" if there else "WHERE 0"
            connection.exec_driver_sql(f"CREATE TEMP VIEW {table.name} AS SELECT {', '.join(own + added)} {source}")


def _columns(connection: Connection, table: Table) -> set[str]:
    return {str(row[1]) for row in connection.exec_driver_sql(f"PRAGMA main.table_info({table.name})")}


def _default(table: Table, name: str) -> str:
    default = table.columns[name].server_default
    own = "NULL" if default is None else f"'{default.arg}'"  # type: ignore[attr-defined]
    return _DEFAULTS.get(name, own)
