"""Messages: one JSON object per line in both directions, and checks of what was received.

A request is {"id": n, "verb": ..., ...}; its reply {"id": n, "ok": true, ...} or
{"id": n, "ok": false, "error": {"kind": K, "message": M}} with K in `KINDS`. There is one request at a time.
Lines are parsed as JSON and nothing else, and are bounded in length. So neither side can exhaust the other, or make it
run code.
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
    "IDLE_S",
    "MAX_IDLE_S",
    "MAX_LINE",
    "OWNER",
    "PROTOCOL",
    "SHA256",
    "SUFFIX",
    "VERB",
    "WHO",
    "Fields",
    "LineBuffer",
    "LineTooLongError",
    "decode",
    "decode_request",
    "encode",
    "failed",
    "shortened",
]

PROTOCOL = 1
"""Version of the protocol. Both sides need the same one, which is easy, because the controller ships the worker."""
IDLE_S = 120.0
"""Seconds without a request after which a worker ends, unless `hello` sets `idle_s`."""
MAX_IDLE_S = 86400.0
"""The largest `idle_s` that a `hello` may set, in seconds."""
MAX_LINE = 4 << 20
"""Most bytes in a line. 100,000 samples of a second each take 1.1 MB."""
SHA256 = re.compile(r"[0-9a-f]{64}")
VERB = re.compile(r"[a-z0-9_-]{1,32}")
OWNER = re.compile(r"[0-9a-f]{32}")
SUFFIX = re.compile(r"\.[a-z0-9]{1,16}")
"""File names on the device consist of a hash and a suffix of these forms, so no name can leave the work folder."""
WHO = re.compile(r"[A-Za-z0-9@._:+-][A-Za-z0-9@._:+ -]{0,99}")
"""Form of the device's user, as people read it: USER@HOST, a space, the process there. No character of it is special
in a shell or in JSON.
"""


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100
_SHORT.maxlong = 60


class LineTooLongError(ValueError):
    """Raised when a line is longer than the `LineBuffer` allows."""


class LineBuffer:
    """A buffer that cuts a stream of bytes into lines.

    Args:
        limit: most bytes in a line.
    """

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._bytes = bytearray()
        self._searched = 0

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self._bytes += data

    def pop(self) -> bytes | None:
        """Return the next whole line without its line break, or None if there is none yet.

        Raises:
            LineTooLongError: if the line is longer than the limit, whole or not.
        """
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
    """Return a message as a line of ASCII, with its line break.

    Raises:
        ValueError: for a value that JSON cannot express, such as NaN.
    """
    try:
        return json.dumps(message, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"
    except ValueError as error:
        raise ValueError("JSON has no word for NaN and infinity") from error


def decode(line: bytes) -> dict[str, Any]:
    """Return the JSON object in a line.

    Raises:
        ValueError: if the line is no JSON object, names a field twice, or holds a number that is not finite.
    """
    try:
        message = json.loads(
            line.decode("utf-8"), parse_constant=_reject, parse_float=_finite, object_pairs_hook=_named_once
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(message, dict):
        raise ValueError("not a JSON object")
    return message


def decode_request(line: bytes) -> Fields:
    """Return the fields of a request.

    Raises:
        AgentError: "bad_request", if the line is no message.
    """
    try:
        return Fields(decode(line))
    except ValueError as error:
        raise AgentError("bad_request", f"not a request: {error}") from None


def failed(number: int | None, failure: AgentError) -> dict[str, Any]:
    """Return the reply that says that request `number` failed, or one whose number could not be read (None)."""
    return {"id": number, "ok": False, "error": {"kind": failure.kind, "message": failure.message}}


def _reject(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # such as 1e999, which `encode` could not write again
        raise ValueError(f"{text[:40]} is no number")
    return number


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name is given twice")
    return table


class Fields:
    """The fields of a received message. Each method returns one field, after a check of its type and range.

    Raises:
        AgentError: "bad_request" if the field is missing or does not pass the check; every method but `in` does.
    """

    def __init__(self, message: dict[str, Any]) -> None:
        self._message = message

    def integer(self, name: str, low: int, high: int) -> int:
        """Return a whole number from `low` to `high`."""
        value = self._message.get(name)
        if type(value) is not int or not low <= value <= high:
            raise _bad(name, f"a whole number from {low} to {high}", value)
        return value

    def number(self, name: str, low: float, high: float) -> float:
        """Return a number from `low` to `high`."""
        value = self._message.get(name)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
            raise _bad(name, f"a number from {low} to {high}", value)
        return float(value)

    def optional_integer(self, name: str, low: int, high: int) -> int | None:
        """Return what `integer` returns, or None if the field is missing or null."""
        return None if self._message.get(name) is None else self.integer(name, low, high)

    def optional_number(self, name: str, low: float, high: float) -> float | None:
        """Return what `number` returns, or None if the field is missing or null."""
        return None if self._message.get(name) is None else self.number(name, low, high)

    def optional_text(self, name: str, form: re.Pattern[str]) -> str | None:
        """Return what `text` returns, or None if the field is missing or null."""
        return None if self._message.get(name) is None else self.text(name, form)

    def text(self, name: str, form: re.Pattern[str]) -> str:
        """Return a text that matches `form` as a whole."""
        value = self._message.get(name)
        if not isinstance(value, str) or not form.fullmatch(value):
            raise _bad(name, f"text of the form {form.pattern}", value)
        return value

    def integers(self, name: str, low: int, high: int, most: int) -> list[int]:
        """Return a list of at most `most` whole numbers from `low` to `high`."""
        value = self._message.get(name)
        if not isinstance(value, list) or len(value) > most or not _all_integers(value, low, high):
            raise _bad(name, f"a list of at most {most} whole numbers from {low} to {high}", value)
        return value

    def optional_integers(self, name: str, low: int, high: int, most: int) -> list[int] | None:
        """Return what `integers` returns, or None if the field is missing or null."""
        return None if self._message.get(name) is None else self.integers(name, low, high, most)

    def boolean(self, name: str) -> bool:
        """Return true or false."""
        value = self._message.get(name)
        if not isinstance(value, bool):
            raise _bad(name, "true or false", value)
        return value

    def string(self, name: str, most: int) -> str:
        """Return a text of at most `most` characters."""
        value = self._message.get(name)
        if not isinstance(value, str) or len(value) > most:
            raise _bad(name, f"text of at most {most} characters", value)
        return value

    def optional_string(self, name: str, most: int) -> str | None:
        """Return what `string` returns, or None if the field is missing or null."""
        return None if self._message.get(name) is None else self.string(name, most)

    def strings(self, name: str, most: int, longest: int) -> list[str]:
        """Return a list of texts; raise if there are more than `most`, or one is longer than `longest` characters."""
        value = self._message.get(name)
        good = isinstance(value, list) and all(isinstance(one, str) and len(one) <= longest for one in value)
        if not isinstance(value, list) or not good or len(value) > most:
            raise _bad(name, f"a list of at most {most} texts of at most {longest} characters", value)
        return value

    def __contains__(self, name: object) -> bool:
        """Return whether the message has the field."""
        return name in self._message

    def table(self, name: str) -> dict[str, Any]:
        """Return a JSON object, unchecked."""
        value = self._message.get(name)
        if not isinstance(value, dict):
            raise _bad(name, "an object", value)
        return value

    def optional_table(self, name: str) -> dict[str, Any] | None:
        """Return what `table` returns, or None if the field is missing or null."""
        return None if self._message.get(name) is None else self.table(name)

    def tables(self, name: str, most: int) -> list[dict[str, Any]]:
        """Return a list of at most `most` JSON objects, unchecked."""
        value = self._message.get(name)
        if not isinstance(value, list) or len(value) > most or not all(isinstance(one, dict) for one in value):
            raise _bad(name, f"a list of at most {most} objects", value)
        return value


def _all_integers(values: Sequence[object], low: int, high: int) -> bool:
    return all(type(value) is int and low <= value <= high for value in values)  # bool is not int here


def shortened(value: object) -> str:
    """Return `repr(value)`, or null, cut to about 80 characters; the value may be huge or deeply nested."""
    text = "null" if value is None else _SHORT.repr(value)  # as the other side wrote it
    return f"{text[:80]}..." if len(text) > 80 else text


def _bad(name: str, wanted: str, got: object) -> AgentError:
    return AgentError("bad_request", f"field {name!r} must be {wanted}, not {shortened(got)}")
