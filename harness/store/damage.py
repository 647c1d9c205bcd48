"""Rows with values that latlab does not write: edited by hand, damaged on a disk, or written by a newer version.

Whoever reads rows leaves such ones out, says so once, and shows the rest.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import JSON, Boolean, Float, Integer

from latlab.harness.store.errors import StoreWarning
from latlab.harness.store.schema import Base
from latlab.harness.store.vocabulary import Status
from latlab.harness.telemetry.recorded_pass import PassKind

__all__ = ["DamagedRow", "damaged", "warn_of", "without"]

_SHOWN = 5
"""Most damaged rows that one warning names."""
_DATES = ("at", "started_at", "finished_at", "created_at", "imported_at")
_NUMBER_TABLES = ("metrics", "times_s")
_INT64 = 2**63


class DamagedRow(NamedTuple):
    """A row with a value that latlab does not write."""

    table: str
    row: str
    """Its key, in words."""
    reason: str

    def __str__(self) -> str:
        return f"{self.table} row {self.row} ({self.reason})"


def warn_of(path: Path, rows: Sequence[DamagedRow]) -> None:
    """Give one warning of the rows that are left out."""
    if rows:
        named = ", ".join(map(str, rows[:_SHOWN])) + (f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else "")
        many = f"{len(rows)} damaged rows, which are" if len(rows) > 1 else "a damaged row, which is"
        warnings.warn(
            f"the store {path} has {many} left out: {named}. `latlab store check {path}` lists all.",
            StoreWarning,
            stacklevel=3,
        )


def damaged(table: str, keys: Sequence[object], columns: Mapping[str, Sequence[object]]) -> dict[int, DamagedRow]:
    """Return the damaged ones of some rows, by place.

    Args:
        table: name of the table in the store.
        keys: each row's key.
        columns: values of some of the table's columns as they are in the file; JSON as text.
    """
    found: dict[int, DamagedRow] = {}
    kinds = _kinds_of(table)
    for name, values in columns.items():
        words, is_right, types = kinds[name]
        there = set(map(type, values))
        if there <= types and not (float in there and (math.inf in values or -math.inf in values)):
            continue  # that is all there is to know of these, and quicker than to look at one after the other
        if not all(map(is_right, values)):
            for place, value in enumerate(values):
                if place not in found and not is_right(value):
                    reason = f"{name} is {_quoted(value)}, not {words}"
                    found[place] = DamagedRow(table, _quoted(keys[place]), reason)
    if table == "measurements" and {"status", "latency_ms"} <= set(columns):
        for place, (status, ms) in enumerate(zip(columns["status"], columns["latency_ms"], strict=True)):
            if status == Status.OK and ms is None and place not in found:
                found[place] = DamagedRow(table, _quoted(keys[place]), "a finished measurement has no latency")
    return found


def without(places: Iterable[int], values: Sequence[Any]) -> list[Any]:
    """Return the values at all other places."""
    left_out = set(places)
    return [value for place, value in enumerate(values) if place not in left_out]


@cache
def _kinds_of(table: str) -> dict[str, _Kind]:
    """Return for each column of a table what its values are."""
    return {
        column.name: _kind(table, column.name, column.type, bool(column.nullable))
        for column in Base.metadata.tables[table].columns
    }


class _Kind(NamedTuple):
    """What the values of a column are."""

    words: str
    is_right: Callable[[object], bool]
    """Checks one value."""
    types: frozenset[type] = frozenset()
    """Types of which every value is right that is not infinite."""


def _kind(table: str, name: str, kind: object, nullable: bool) -> _Kind:
    found = _kind_of_value(table, name, kind)
    if not nullable:
        return found
    return _Kind(found.words, _or_none(found.is_right), found.types | {type(None)} if found.types else found.types)


def _kind_of_value(table: str, name: str, kind: object) -> _Kind:
    if name in _DATES:
        return _Kind("a date", _is_date)
    if (table, name) == ("passes", "kind"):
        return _Kind("a kind of pass", set(PassKind).__contains__)
    if name in _NUMBER_TABLES:
        return _Kind("a table of numbers", _is_number_table)
    if isinstance(kind, JSON):
        return _Kind("whole numbers", _is_whole_numbers) if name.endswith("_ns") else _Kind("a table", _is_table)
    if isinstance(kind, Boolean):
        return _Kind("yes or no", _is_yes_or_no)
    if isinstance(kind, Integer):
        return _Kind("a whole number", _is_whole, frozenset({int}))
    if isinstance(kind, Float):
        return _Kind("a number", _is_number, frozenset({int, float}))
    return _Kind("text", _is_text, frozenset({str}))


def _or_none(is_right: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or is_right(value)


def _is_text(value: object) -> bool:
    return type(value) is str


def _is_whole(value: object) -> bool:
    return type(value) is int


def _is_yes_or_no(value: object) -> bool:
    return value in (0, 1)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _is_date(value: object) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def _json(value: object) -> object:
    if not isinstance(value, str):
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def _is_table(value: object) -> bool:
    return isinstance(_json(value), dict)


def _is_number_table(value: object) -> bool:
    read = _json(value)
    return isinstance(read, dict) and all(one is None or isinstance(one, int | float) for one in read.values())


def _is_whole_numbers(value: object) -> bool:
    read = _json(value)
    return isinstance(read, list) and all(type(one) is int and abs(one) < _INT64 for one in read)


def _quoted(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
