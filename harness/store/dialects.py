"""The dialect of a connection's database, and SQL of the store that is run in it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, CursorResult

from latlab.harness.store.dialect import StoreDialect
from latlab.harness.store.postgresql_dialect import PostgreSQLDialect
from latlab.harness.store.sqlite_dialect import SQLiteDialect

__all__ = ["dialect_of", "run"]

_POSTGRESQL, _SQLITE = PostgreSQLDialect(), SQLiteDialect()


def dialect_of(connection: Connection) -> StoreDialect:
    """Return the dialect of a connection's database."""
    return _POSTGRESQL if connection.dialect.name == "postgresql" else _SQLITE


def run(connection: Connection, text: str, values: Any = ()) -> CursorResult[*tuple[Any, ...]]:
    """Run SQL.

    Args:
        connection: to the database.
        text: the SQL, with `?` for each value.
        values: a tuple, or a list of tuples, for each of which the SQL is run.
    """
    return connection.exec_driver_sql(dialect_of(connection).sql(text), values)
