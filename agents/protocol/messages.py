"""The wire: one JSON object a line, the same in both directions, and checks of what came over it.

A request is {"id": n, "verb": ..., ...}; its reply {"id": n, "ok": true, ...} or
{"id": n, "ok": false, "error": {"kind": K, "message": M}} with K in `KINDS`. One request at a time.
Lines are only ever parsed as JSON, and bounded in length, so that neither side can exhaust or run the other.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Sequence
from typing import Any, NoReturn

from latlab.agents.protocol.errors import AgentError

__all__ = [
    "MAX_LINE",
    "PROTOCOL",
    "SHA256",
    "SUFFIX",
    "WHO",
    "Fields",
    "LineBuffer",
    "LineTooLongError",
    "decode",
    "encode",
    "shortened",
]

PROTOCOL = 1
"""Both sides must speak the same version: the controller ships the worker."""
MAX_LINE = 4 << 20
"""Bytes in a line. 100,000 samples of a second each take 1.1 MB."""
SHA256 = re.compile(r"[0-9a-f]{64}")
SUFFIX = re.compile(r"\.[a-z0-9]{1,16}")
"""Names on the device are made of these two and nothing else, so no name can leave the work folder."""
WHO = re.compile(r"[A-Za-z0-9@._:+-][A-Za-z0-9@._:+ -]{0,99}")
"""Who uses a device, for a person: USER@HOST, a space, and which process there. Nothing that a shell or JSON heeds."""


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100
_SHORT.maxlong = 60


class LineTooLongError(ValueError):
    """More than `MAX_LINE` bytes came without a line break."""


class LineBuffer:
    """Cuts a stream of bytes into lines."""

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._bytes = bytearray()
        self._searched = 0

    def feed(self, data: bytes) -> None:
        self._bytes += data

    def pop(self) -> bytes | None:
        """The next whole line without its break, or None. Raises `LineTooLongError`."""
        at = self._bytes.find(b"\n", self._searched)
        if at < 0:
            self._searched = len(self._bytes)
            if self._searched > self._limit:
                raise LineTooLongError(f"a line of more than {self._limit} bytes")
            return None
        if at > self._limit:
            raise LineTooLongError(f"a line of {at} bytes; at most {self._limit} are allowed")
        line = bytes(self._bytes[:at])
        del self._bytes[: at + 1]
        self._searched = 0
        return line


def encode(message: dict[str, Any]) -> bytes:
    """A line, ASCII only. Raises `ValueError` for what JSON has no word for (NaN)."""
    try:
        return json.dumps(message, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"
    except ValueError as error:
        raise ValueError("JSON has no word for NaN and infinity") from error


def decode(line: bytes) -> dict[str, Any]:
    """The object in a line. Raises `ValueError` when there is none, or more than one could be meant."""
    try:
        message = json.loads(
            line.decode("utf-8"), parse_constant=_reject, parse_float=_finite, object_pairs_hook=_named_once
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(message, dict):
        raise ValueError("not a JSON object")
    return message


def _reject(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # 1e999: it could not be written as JSON again
        raise ValueError(f"{text[:40]} is no number")
    return number


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name is given twice")
    return table


class Fields:
    """A message from the other side: each getter checks type and range, or raises "bad_request"."""

    def __init__(self, message: dict[str, Any]) -> None:
        self._message = message

    def integer(self, name: str, low: int, high: int) -> int:
        value = self._message.get(name)
        if type(value) is not int or not low <= value <= high:
            raise _bad(name, f"a whole number from {low} to {high}", value)
        return value

    def number(self, name: str, low: float, high: float) -> float:
        value = self._message.get(name)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
            raise _bad(name, f"a number from {low} to {high}", value)
        return float(value)

    def optional_integer(self, name: str, low: int, high: int) -> int | None:
        """As `integer`; None where the field is missing or null."""
        return None if self._message.get(name) is None else self.integer(name, low, high)

    def optional_number(self, name: str, low: float, high: float) -> float | None:
        """As `number`; None where the field is missing or null."""
        return None if self._message.get(name) is None else self.number(name, low, high)

    def optional_text(self, name: str, form: re.Pattern[str]) -> str | None:
        """As `text`; None where the field is missing or null."""
        return None if self._message.get(name) is None else self.text(name, form)

    def text(self, name: str, form: re.Pattern[str]) -> str:
        value = self._message.get(name)
        if not isinstance(value, str) or not form.fullmatch(value):
            raise _bad(name, f"text of the form {form.pattern}", value)
        return value

    def integers(self, name: str, low: int, high: int, most: int) -> list[int]:
        """A list of at most `most` whole numbers."""
        value = self._message.get(name)
        if not isinstance(value, list) or len(value) > most or not _all_integers(value, low, high):
            raise _bad(name, f"a list of at most {most} whole numbers from {low} to {high}", value)
        return value

    def optional_integers(self, name: str, low: int, high: int, most: int) -> list[int] | None:
        """As `integers`; None where the field is missing or null."""
        return None if self._message.get(name) is None else self.integers(name, low, high, most)

    def boolean(self, name: str) -> bool:
        value = self._message.get(name)
        if not isinstance(value, bool):
            raise _bad(name, "true or false", value)
        return value

    def string(self, name: str, most: int) -> str:
        """Text of at most `most` characters."""
        value = self._message.get(name)
        if not isinstance(value, str) or len(value) > most:
            raise _bad(name, f"text of at most {most} characters", value)
        return value

    def optional_string(self, name: str, most: int) -> str | None:
        """As `string`; None where the field is missing or null."""
        return None if self._message.get(name) is None else self.string(name, most)

    def strings(self, name: str, most: int, longest: int) -> list[str]:
        """A list of at most `most` texts of at most `longest` characters."""
        value = self._message.get(name)
        good = isinstance(value, list) and all(isinstance(one, str) and len(one) <= longest for one in value)
        if not isinstance(value, list) or not good or len(value) > most:
            raise _bad(name, f"a list of at most {most} texts of at most {longest} characters", value)
        return value

    def __contains__(self, name: object) -> bool:
        """Whether the field is there, for those that need not be."""
        return name in self._message

    def table(self, name: str) -> dict[str, Any]:
        value = self._message.get(name)
        if not isinstance(value, dict):
            raise _bad(name, "an object", value)
        return value

    def optional_table(self, name: str) -> dict[str, Any] | None:
        """As `table`; None where the field is missing or null."""
        return None if self._message.get(name) is None else self.table(name)

    def tables(self, name: str, most: int) -> list[dict[str, Any]]:
        """A list of at most `most` objects."""
        value = self._message.get(name)
        if not isinstance(value, list) or len(value) > most or not all(isinstance(one, dict) for one in value):
            raise _bad(name, f"a list of at most {most} objects", value)
        return value


def _all_integers(values: Sequence[object], low: int, high: int) -> bool:
    return all(type(value) is int and low <= value <= high for value in values)  # bool is not int here


def shortened(value: object) -> str:
    """As `repr`, for a person, of something that may be huge or deeply nested."""
    text = _SHORT.repr(value)
    return f"{text[:80]}..." if len(text) > 80 else text


def _bad(name: str, wanted: str, got: object) -> AgentError:
    return AgentError("bad_request", f"field {name!r} must be {wanted}, not {shortened(got)}")
