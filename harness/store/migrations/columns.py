"""Columns and tables for migrations. They do not follow `schema.py`: a migration stays what it was."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

__all__ = [
    "add_missing_columns",
    "create_missing_index",
    "create_missing_table",
    "json",
    "nanoseconds",
    "number",
    "text",
    "whole",
]


def text(name: str, *, nullable: bool = False, **more: Any) -> sa.Column[Any]:
    """Return a column of text, ordered by bytes."""
    kind = sa.String().with_variant(sa.String(collation="C"), "postgresql")
    return sa.Column(name, kind, nullable=nullable, **more)


def whole(name: str, *, nullable: bool = False, **more: Any) -> sa.Column[Any]:
    """Return a column of whole numbers of 64 bits."""
    return sa.Column(name, sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=nullable, **more)


def number(name: str, *, nullable: bool = True) -> sa.Column[Any]:
    """Return a column of numbers."""
    return sa.Column(name, sa.Double(), nullable=nullable)


def json(name: str, **more: Any) -> sa.Column[Any]:
    """Return a column of tables as JSON."""
    return sa.Column(name, sa.JSON(), nullable=False, **more)


def nanoseconds(name: str) -> sa.Column[Any]:
    """Return a column of samples."""
    return sa.Column(name, sa.JSON().with_variant(ARRAY(sa.BigInteger), "postgresql"), nullable=False)


def create_missing_table(name: str, *parts: Any, **options: Any) -> None:
    """Make a table, unless the store has it: stores of one version before 5 may differ."""
    op.create_table(name, *parts, if_not_exists=True, **options)


def add_missing_columns(table: str, *columns: sa.Column[Any]) -> None:
    """Add those of some columns that a table lacks."""
    there = {one["name"] for one in sa.inspect(op.get_bind()).get_columns(table)}
    for column in columns:
        if column.name not in there:
            op.add_column(table, column)


def create_missing_index(name: str, table: str, columns: list[str], **options: Any) -> None:
    """Make an index, unless the store has it."""
    op.create_index(name, table, columns, if_not_exists=True, **options)
