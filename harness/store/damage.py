"""Rows with values that latlab does not write: edited by hand, damaged on a disk, or written by a newer version.

Whoever reads rows leaves such ones out, says so once, and shows the rest. A value is damaged if it is of another type
than its column, or if nothing that is measured can have it: numbers have bounds, words come from a vocabulary, an
architecture is one of its search space.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache, lru_cache
from typing import Any, NamedTuple, TypeGuard

from sqlalchemy import JSON, Boolean, Float, Integer
from sqlalchemy.types import TypeDecorator

from latlab.harness.errors import BadInputError
from latlab.harness.importers.units import LATENCY_MS
from latlab.harness.statistics.verdicts import KINDS as VERDICTS
from latlab.harness.store.errors import StoreWarning
from latlab.harness.store.place import StorePath
from latlab.harness.store.schema import Base
from latlab.harness.store.vocabulary import FAILURES, USER_MODEL_SPACE, Role, Status
from latlab.harness.targets import Target
from latlab.harness.telemetry.recorded_pass import PassKind
from latlab.search_spaces import UnknownSpaceError, get

__all__ = ["DamagedRow", "damaged", "warn_of", "without"]

_SHOWN = 5
"""Most damaged rows that one warning names."""
_DATES = ("at", "started_at", "finished_at", "created_at", "imported_at")
_NUMBER_TABLES = ("metrics", "times_s")
_MOST_NS = 1e6 * LATENCY_MS[1]
_PLAIN_NS = re.compile(r"\[(?:0|[1-9]\d{0,14})(?:, (?:0|[1-9]\d{0,14}))*\]", re.ASCII)
_NUMBER = re.compile(r" \((?:[2-9]|[1-9]\d+)\)\Z", re.ASCII)
"""What a comparison puts behind the name of a network that it got more than once."""
_LARGEST = 1e18
"""Largest number in a table of numbers: bytes, counts and operations have no unit that they share."""
_INT64 = 2**63
_BOUNDS: dict[str, tuple[float, float]] = {
    "latency_ms": LATENCY_MS,
    "raw_ms": LATENCY_MS,
    "stderr_ms": (0, LATENCY_MS[1]),
    "low_ms": (-LATENCY_MS[1], LATENCY_MS[1]),
    "high_ms": (-LATENCY_MS[1], LATENCY_MS[1]),
    "session": (1, 1e9),
    "order": (0, 1e9),
    "number": (0, 1e9),
}
"""Least and largest value of columns."""
_WORDS: dict[tuple[str, str], tuple[str, frozenset[str]]] = {
    ("measurements", "status"): ("a status", FAILURES.union(Status)),
    ("measurements", "role"): ("a role", frozenset(Role)),
    ("measurements", "verdict"): ("a verdict", frozenset(VERDICTS)),
    ("passes", "kind"): ("a kind of pass", frozenset(PassKind)),
}
"""What the values of a column are, and all of them."""
_LONG_TEXTS = ("error", "message", "origin", "citation", "notes")
_LONGEST, _LONGEST_LONG = 10_000, 10_000_000
"""Most characters of a text, and of one of `_LONG_TEXTS`, which people and devices write."""
_LONGEST_TARGET = 300
_ANCHOR_SPACE = "nasbench201"


class DamagedRow(NamedTuple):
    """A row with a value that latlab does not write."""

    table: str
    row: str
    """Its key, in words."""
    reason: str

    def __str__(self) -> str:
        return f"{self.table} row {self.row} ({self.reason})"


def warn_of(path: StorePath, rows: Sequence[DamagedRow], what: str = "left out") -> None:
    """Give one warning of damaged rows.

    Args:
        path: the store.
        rows: its damaged rows; there need not be any.
        what: what is done with them.
    """
    if rows:
        named = ", ".join(map(str, rows[:_SHOWN])) + (f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else "")
        many = f"{len(rows)} damaged rows, which are" if len(rows) > 1 else "a damaged row, which is"
        warnings.warn(
            f"the store {path} has {many} {what}: {named}. `latlab store check {path}` lists all.",
            StoreWarning,
            stacklevel=3,
        )


def damaged(
    table: str,
    keys: Sequence[object],
    columns: Mapping[str, Sequence[object]],
    spaces: Sequence[str | None] | None = None,
) -> dict[int, DamagedRow]:
    """Return the damaged ones of some rows, by place.

    Args:
        table: name of the table in the store.
        keys: each row's key.
        columns: values of some of the table's columns as they are in the file; JSON as text.
        spaces: the search space of each measurement, which its campaign says; None where it is not known.
    """
    found: dict[int, DamagedRow] = {}
    kinds = _kinds_of(table)
    for name, values in columns.items():
        kind = kinds[name]
        if not kind.all_right(values):
            for place, value in enumerate(values):
                if place not in found and not kind.is_right(value):
                    reason = f"{name} is {_quoted(value)}, not {kind.words}"
                    found[place] = DamagedRow(table, _quoted(keys[place]), reason)
    if table == "measurements" and {"status", "latency_ms"} <= set(columns):
        for place, (status, ms) in enumerate(zip(columns["status"], columns["latency_ms"], strict=True)):
            if status == Status.OK and ms is None and place not in found:
                found[place] = DamagedRow(table, _quoted(keys[place]), "a finished measurement has no latency")
    if "arch" in columns:
        found |= _no_networks(table, keys, columns, spaces, found)
    return found


def without(places: Iterable[int], values: Sequence[Any]) -> list[Any]:
    """Return the values at all other places."""
    left_out = set(places)
    return [value for place, value in enumerate(values) if place not in left_out]


def _no_networks(
    table: str,
    keys: Sequence[object],
    columns: Mapping[str, Sequence[Any]],
    spaces: Sequence[str | None] | None,
    known: Mapping[int, DamagedRow],
) -> dict[int, DamagedRow]:
    """Return the rows whose architecture is none of their search space. Each distinct one is parsed once."""
    archs = columns["arch"]
    if table == "anchors":
        spaces = [_ANCHOR_SPACE] * len(archs)
    spaces = columns.get("space", spaces)
    if spaces is None:
        return {}
    pairs = list(zip(spaces, archs, strict=True))
    wrong = {
        (space, arch)
        for space, arch in set(pairs)
        if _is_text(space) and _is_text(arch) and len(arch) <= _LONGEST and not _is_network(space, arch)
    }
    if not wrong:
        return {}
    return {
        place: DamagedRow(table, _quoted(keys[place]), f"arch is {_quoted(pair[1])}, no architecture of {pair[0]}")
        for place, pair in enumerate(pairs)
        if pair in wrong and place not in known
    }


@lru_cache(maxsize=50_000)
def _is_network(space: str, arch: str) -> bool:
    """Return whether a text is an architecture, as far as it can be told: its search space may not be installed."""
    if space == USER_MODEL_SPACE:
        return True
    try:
        get(space).parse(_NUMBER.sub("", arch))
    except UnknownSpaceError:
        return True
    except Exception:  # whatever a search space of somebody else raises: nothing can be done with this text
        return False
    return True


class _Kind(NamedTuple):
    """What the values of a column are."""

    words: str
    is_right: Callable[[object], bool]
    """Checks one value."""
    all_right: Callable[[Sequence[Any]], bool]
    """Checks many at once, which is quicker. It may say no where each is right."""


@cache
def _kinds_of(table: str) -> dict[str, _Kind]:
    """Return what the values of each of a table's columns are."""
    return {
        column.name: _kind(table, column.name, _plain(column.type), bool(column.nullable))
        for column in Base.metadata.tables[table].columns
    }


def _plain(kind: object) -> object:
    return kind.impl if isinstance(kind, TypeDecorator) else kind


def _kind(table: str, name: str, kind: object, nullable: bool) -> _Kind:
    if name in _BOUNDS or isinstance(kind, Integer | Float):
        return _numbers(isinstance(kind, Integer), _BOUNDS.get(name), nullable)
    if (table, name) in _WORDS:
        words, known = _WORDS[table, name]
        return _Kind(
            words,
            lambda value: _is_text(value) and value in known,
            lambda values: _are(values, str) and known.issuperset(values),
        )
    if not isinstance(kind, JSON | Boolean) and name not in _DATES and (table, name) != ("campaigns", "target"):
        return _texts(_LONGEST_LONG if name in _LONG_TEXTS else _LONGEST, nullable)
    words, is_right = _other(name, kind)
    if nullable:
        is_right = _or_none(is_right)
    return _Kind(words, is_right, lambda values: all(map(is_right, values)))


def _other(name: str, kind: object) -> tuple[str, Callable[[object], bool]]:
    if name == "target":
        return "a target", _is_target
    if name in _DATES:
        return "a date", _is_date
    if name in _NUMBER_TABLES:
        return "a table of numbers", _is_number_table
    if isinstance(kind, JSON):
        return ("nanoseconds", _is_nanoseconds) if name.endswith("_ns") else ("a table", _is_table)
    return "yes or no", _is_yes_or_no


def _numbers(whole: bool, bounds: tuple[float, float] | None, nullable: bool) -> _Kind:
    words = "a whole number" if whole else "a number"
    words += f" from {bounds[0]:g} to {bounds[1]:g}" if bounds else ""
    low, high = bounds or (-_INT64 if whole else -sys.float_info.max, _INT64 if whole else sys.float_info.max)
    types = (int,) if whole else (int, float)

    def is_right(value: Any) -> bool:
        return type(value) in types and low <= value <= high

    def all_right(values: Sequence[Any]) -> bool:
        there = [one for one in values if one is not None] if nullable else values
        return not there or (_are(there, *types) and low <= min(there) and max(there) <= high)

    return _Kind(words, _or_none(is_right) if nullable else is_right, all_right)


def _texts(longest: int, nullable: bool) -> _Kind:
    def is_right(value: object) -> bool:
        return _is_text(value) and len(value) <= longest

    def all_right(values: Sequence[Any]) -> bool:
        there = [one for one in values if one is not None] if nullable else values
        return not there or (_are(there, str) and max(map(len, there)) <= longest)

    return _Kind(f"text of at most {longest:,} characters", _or_none(is_right) if nullable else is_right, all_right)


def _or_none(is_right: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or is_right(value)


def _are(values: Sequence[object], *types: type) -> bool:
    return set(map(type, values)).issubset(types)


def _is_text(value: object) -> TypeGuard[str]:
    return type(value) is str


def _is_yes_or_no(value: object) -> bool:
    return value in (0, 1)


def _is_target(value: object) -> bool:
    if not _is_text(value) or len(value) > _LONGEST_TARGET:
        return False
    try:
        return str(Target.parse(value)) == value
    except BadInputError:
        return False


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
    return isinstance(read, dict) and all(
        one is None or (isinstance(one, int | float) and abs(one) <= _LARGEST) for one in read.values()
    )


def _is_nanoseconds(value: object) -> bool:
    if isinstance(value, str) and _PLAIN_NS.fullmatch(value):
        return True  # as latlab writes them, and several times quicker
    read = _json(value)
    return isinstance(read, list) and (not read or (_are(read, int) and min(read) >= 0 and max(read) <= _MOST_NS))


def _quoted(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
