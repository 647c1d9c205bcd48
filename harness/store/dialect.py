"""What SQLite and PostgreSQL say differently; all other SQL of the store is the same for both.

The SQL of the store has `?` for values. Connections to both give the same values: JSON and arrays as JSON text.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from sqlalchemy import Connection

__all__ = ["StoreDialect"]


class StoreDialect(ABC):
    """How one kind of database says what the store asks for."""

    campaign_order: ClassVar[str]
    """The order in which campaigns were made."""
    arch_bytes: ClassVar[str]
    """The text of an architecture as bytes."""
    merged_metrics: ClassVar[str]
    """The metrics of a row, with those of the value `?` in the place of the same ones."""

    @abstractmethod
    def sql(self, text: str) -> str:
        """Return SQL with the driver's own marks for values."""

    @abstractmethod
    def nanoseconds(self, values: Sequence[int]) -> object:
        """Return samples as a value for SQL."""

    @abstractmethod
    def insert(self, connection: Connection, text: str, values: Sequence[Any]) -> int:
        """Insert one row, and return its id."""

    @abstractmethod
    def rows(self, connection: Connection, text: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return the rows of a query; text that is not UTF-8 has marks for what cannot be read."""

    @abstractmethod
    def plain_rows(self, connection: Connection, text: str, values: Sequence[Any]) -> Sequence[tuple[Any, ...]]:
        """Return the rows of a query as the driver gives them, which is quicker where they are very many."""

    @abstractmethod
    def chunks(
        self, connection: Connection, text: str, values: Sequence[Any], size: int
    ) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows of a query, at most `size` at once; text as `rows`."""

    @abstractmethod
    def chunks_by_id(
        self, connection: Connection, text: str, values: Sequence[Any], key: int, size: int
    ) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows of a query in the order of their ids, which are in the column `key`; `text` ends in WHERE."""

    @abstractmethod
    def tolerant(self, connection: Connection) -> AbstractContextManager[None]:
        """Read text that is not UTF-8 with marks in the place of what cannot be read."""

    @abstractmethod
    def state_index(self, connection: Connection) -> str:
        """Return what makes a query of measurements use the index of their states; "" if there is none."""

    @abstractmethod
    def schema_version(self, connection: Connection) -> int:
        """Return the version of the store's schema."""

    @abstractmethod
    def changes(self, connection: Connection) -> tuple[int, int]:
        """Return two numbers, of which at least one differs whenever anything has changed since."""

    @abstractmethod
    def faults(self, connection: Connection) -> list[str]:
        """Return what the database itself finds wrong with the store."""
