"""What is particular to stores in PostgreSQL."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection

from latlab.harness.store.dialect import StoreDialect

__all__ = ["SCHEMA", "PostgreSQLDialect"]

SCHEMA = "latlab"
"""The schema of the store's tables, so that a database may hold other things, too."""
_numbers = itertools.count()


class PostgreSQLDialect(StoreDialect):
    """PostgreSQL through psycopg: values have marks of the form `%s`, and the server gives large results in parts."""

    campaign_order = "created_at, id"
    arch_bytes = "convert_to(arch, 'UTF8')"
    merged_metrics = "(metrics::jsonb || ?::jsonb)::json"

    def sql(self, text: str) -> str:
        """Return SQL with psycopg's marks for values."""
        return _marked(text)

    def nanoseconds(self, values: Sequence[int]) -> object:
        """Return samples as an array of PostgreSQL."""
        return f"{{{','.join(map(str, values))}}}"

    def insert(self, connection: Connection, text: str, values: Sequence[Any]) -> int:
        """Insert one row, and return its id."""
        return int(connection.exec_driver_sql(_marked(f"{text} RETURNING id"), tuple(values)).scalar_one())

    def rows(self, connection: Connection, text: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        return [tuple(row) for row in connection.exec_driver_sql(_marked(text), tuple(values))]

    def plain_rows(self, connection: Connection, text: str, values: Sequence[Any]) -> Sequence[tuple[Any, ...]]:
        """Return the rows of a query as the driver gives them."""
        cursor = connection.connection.cursor()
        cursor.execute(_marked(text), tuple(values))
        return cursor.fetchall()

    def chunks(
        self, connection: Connection, text: str, values: Sequence[Any], size: int
    ) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows of a query, at most `size` at once, which the server keeps until they are asked for."""
        cursor: Any = connection.connection.cursor(name=f"latlab_{next(_numbers)}")
        with cursor:
            cursor.execute(_marked(text), tuple(values))
            while rows := cursor.fetchmany(size):
                yield list(rows)

    def chunks_by_id(
        self, connection: Connection, text: str, values: Sequence[Any], key: int, size: int
    ) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows of a query in the order of their ids."""
        return self.chunks(connection, f"{text} ORDER BY id", values, size)

    def tolerant(self, connection: Connection) -> AbstractContextManager[None]:
        """Do nothing: the server takes no text that cannot be read."""
        return nullcontext()

    def state_index(self, connection: Connection) -> str:
        """Return nothing: the server chooses its indices by itself."""
        return ""

    def schema_version(self, connection: Connection) -> int:
        """Return the version that the migrations have noted."""
        return int(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one())

    def changes(self, connection: Connection) -> tuple[int, int]:
        """Return numbers of the snapshot, which differs once any transaction has begun to write or has ended since."""
        low, high, under_way = str(connection.exec_driver_sql("SELECT txid_current_snapshot()").scalar_one()).split(":")
        return int(high), int(low) << 32 | zlib.crc32(under_way.encode())

    def faults(self, connection: Connection) -> list[str]:
        """Return nothing: the server checks types and references of each row that it takes."""
        return []


@lru_cache(maxsize=500)
def _marked(text: str) -> str:
    return text.replace("%", "%%").replace("?", "%s")
