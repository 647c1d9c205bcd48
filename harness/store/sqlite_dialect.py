"""What is particular to stores in SQLite."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from latlab.harness.store.dialect import StoreDialect

__all__ = ["SQLiteDialect"]


class SQLiteDialect(StoreDialect):
    """SQLite: values have marks of the form `?`, and a text may hold any bytes."""

    campaign_order = "rowid"
    arch_bytes = "CAST(arch AS BLOB)"
    merged_metrics = "json_patch(metrics, ?)"

    def sql(self, text: str) -> str:
        """Return SQL as it is."""
        return text

    def nanoseconds(self, values: Sequence[int]) -> object:
        """Return samples as JSON."""
        return json.dumps(values)

    def insert(self, connection: Connection, text: str, values: Sequence[Any]) -> int:
        """Insert one row, and return its id."""
        return int(connection.exec_driver_sql(text, tuple(values)).lastrowid)

    def rows(self, connection: Connection, text: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        try:
            return [tuple(row) for row in connection.exec_driver_sql(text, tuple(values))]
        except (OperationalError, sqlite3.OperationalError) as error:
            if not _is_unreadable(error):
                raise
        with self.tolerant(connection):
            return [tuple(row) for row in connection.exec_driver_sql(text, tuple(values))]

    def plain_rows(self, connection: Connection, text: str, values: Sequence[Any]) -> Sequence[tuple[Any, ...]]:
        """Return the rows of a query as the driver gives them."""
        cursor = connection.connection.cursor()
        cursor.execute(text, tuple(values))
        return cursor.fetchall()

    def chunks(
        self, connection: Connection, text: str, values: Sequence[Any], size: int
    ) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows of a query, at most `size` at once."""
        with self.tolerant(connection):
            cursor = connection.connection.cursor()
            cursor.execute(text, tuple(values))
            while rows := cursor.fetchmany(size):
                yield list(rows)

    def chunks_by_id(
        self, connection: Connection, text: str, values: Sequence[Any], key: int, size: int
    ) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows of a query in the order of their ids; marked text only once some has been found unreadable."""
        last = -(2**63)
        with contextlib.ExitStack() as stack:
            for at_last in (False, True):
                try:
                    cursor = connection.connection.cursor()
                    cursor.execute(f"{text} AND id > ? ORDER BY id", (*values, last))
                    while rows := list(cursor.fetchmany(size)):
                        last = rows[-1][key]
                        yield rows
                    return
                except (OperationalError, sqlite3.OperationalError) as error:
                    if at_last or not _is_unreadable(error):
                        raise
                stack.enter_context(self.tolerant(connection))

    def tolerant(self, connection: Connection) -> AbstractContextManager[None]:
        """Read text that is not UTF-8 with marks in the place of what cannot be read; it takes longer."""
        return _tolerant(connection)

    def state_index(self, connection: Connection) -> str:
        """Return the clause that names the index, which older stores lack."""
        found = connection.exec_driver_sql("SELECT count(*) FROM main.sqlite_master WHERE name = 'by_state'")
        return " INDEXED BY by_state" if found.scalar_one() else ""

    def schema_version(self, connection: Connection) -> int:
        """Return the version in the file's header."""
        return int(connection.exec_driver_sql("PRAGMA main.user_version").scalar_one())

    def changes(self, connection: Connection) -> tuple[int, int]:
        """Return a number for other connections' commits, and one for those of this connection."""
        others = int(connection.exec_driver_sql("PRAGMA data_version").scalar_one())
        return others, int(connection.exec_driver_sql("SELECT total_changes()").scalar_one())

    def faults(self, connection: Connection) -> list[str]:
        """Return what SQLite finds wrong with the file, and references to rows that are not there."""
        said = [str(one) for one in connection.exec_driver_sql("PRAGMA main.integrity_check").scalars()]
        found = [one for one in said if one != "ok"]
        for table, row, parent, _ in connection.exec_driver_sql("PRAGMA main.foreign_key_check").all():
            found.append(f"{table} row {row} belongs to a row of {parent} that is not there")
        return found


@contextlib.contextmanager
def _tolerant(connection: Connection) -> Iterator[None]:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    driver.text_factory = lambda data: data.decode("utf-8", "replace")
    try:
        yield
    finally:
        driver.text_factory = str


def _is_unreadable(error: Exception) -> bool:
    return "decode to UTF-8" in str(error)
