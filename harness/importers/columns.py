"""What the columns of a user's table are, by their names: latencies and their units, error bars, or neither.

Only latencies become labels. A column of accuracy, FLOPs or energy looks like one to a program that sees numbers, so
names decide, and what is left out is told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from latlab.harness.errors import BadInputError
from latlab.harness.importers.grid import is_empty

__all__ = ["DEVICES", "LatencyColumn", "latency_columns"]

DEVICES = ("device", "target", "hardware", "device_name", "device_id")
"""Names of the column that holds each row's device, in lower case."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_UNITS = {
    "s": "s", "sec": "s", "secs": "s", "second": "s", "seconds": "s",
    "ms": "ms", "msec": "ms", "msecs": "ms", "millis": "ms", "millisecond": "ms", "milliseconds": "ms",
    "us": "us", "µs": "us", "μs": "us", "usec": "us", "usecs": "us", "micros": "us", "microsecond": "us",
    "microseconds": "us",
    "ns": "ns", "nsec": "ns", "nsecs": "ns", "nanos": "ns", "nanosecond": "ns", "nanoseconds": "ns",
}  # fmt: skip
"""What a unit may be called, and its name in `UNITS`."""
_LATENCY = _words(
    "latency latencies lat latenz time times runtime duration inference delay mean avg average median "
    "measured label value"
)
"""Words that say that a column is a latency, or how it was summed up; what else is in its name is the device."""
_ERROR = frozenset(("stderr", "sem", "stderror"))
_NEVER = _words(
    "acc accuracy accuracies top1 top5 err error errors loss flop flops mflops gflops macs mmacs gmacs madds param "
    "params parameters weights energy power watt watts joule joules mj mw memory mem ram rss bytes kb mb gb kib mib "
    "gib temperature celsius std stdev stddev deviation var variance cov stderr sem stderror ci ci95 lower upper raw "
    "jitter throughput fps qps score rank auc f1 map perplexity bleu intensity epoch epochs epc usd price "
    "seed p50 p90 p95 p99 percentile quantile predicted prediction"
)
"""Words of columns that are no latencies, wherever they are in a name."""
_NEVER_ALONE = _words(
    "index idx id uid row number no n count runs repeats repetitions batch threads size low high min max order "
    "session class classes depth width resolution date day hour timestamp unnamed split fold trial measured "
    "simulated level verdict policy role status space arch ops"
)
"""Words of columns that are no latencies if the name has nothing else but them, units and numbers."""


@dataclass(frozen=True)
class LatencyColumn:
    """A column of latencies."""

    key: str
    """Its name in the table."""
    device: str | None
    """The device in its name; None if the name only says that these are latencies."""
    unit: str | None
    """The unit in its name (`UNITS`), or None."""
    is_stated: bool
    """True if the name says that these are latencies, or their unit."""
    stderr: str | None = None
    """The column of their standard errors, or None."""
    stderr_unit: str | None = None
    """The unit in that column's name, or None."""


@dataclass(frozen=True)
class _Name:
    """A column's name, taken apart."""

    words: tuple[str, ...]
    """Its words in lower case, without the unit."""
    device: str
    """What is left of it without latency words and unit; may be empty."""
    unit: str | None


def latency_columns(columns: Mapping[str, Sequence[Any]], name: str) -> tuple[list[LatencyColumn], list[str]]:
    """Return the columns of latencies, and the names of those that are left out because they are none.

    If a column says that it is a latency (`latency_ms`), a column beside it that says nothing (`foo`) is left out, too.
    Without such a column, every column that may be a latency is one, named after its device.

    Args:
        columns: the table without the columns of architectures and devices.
        name: the file's name in errors.

    Raises:
        BadInputError: if two columns are latencies of one device.
    """
    names = {key: _taken_apart(key) for key in columns}
    found, left_out = [], []
    for key, one in names.items():
        if _is_other(one) or _is_text(columns[key]):
            left_out.append(key)
            continue
        says = any(word in _LATENCY for word in one.words) or one.unit is not None
        found.append(LatencyColumn(key, one.device or None, one.unit, says))
    if not found:  # a column of text alone is an error that its reader names
        found = [LatencyColumn(key, key, None, False) for key in columns if not _is_other(names[key])]
        left_out = [key for key in columns if _is_other(names[key])]
    if any(one.device is None for one in found):
        left_out += [one.key for one in found if not one.is_stated]
        found = [one for one in found if one.is_stated]
    _check_distinct(found, name)
    _check_repeats(found, name)
    errors = {_bare(one): (key, one.unit) for key, one in names.items() if set(one.words) & _ERROR or _std_err(one)}
    with_errors = []
    for column in found:
        error = errors.get(_bare(names[column.key]))
        if error is not None:
            column = replace(column, stderr=error[0], stderr_unit=error[1])
        with_errors.append(column)
    used = {column.stderr for column in with_errors}
    return with_errors, [key for key in columns if key in left_out and key not in used]


def _taken_apart(key: str) -> _Name:
    text = key.strip()
    unit = None
    bracketed = re.search(r"[(\[{]\s*(?:in\s+)?([^\W\d_]+)\.?\s*[)\]}]", text)
    if bracketed and bracketed[1].lower() in _UNITS:
        unit, text = _UNITS[bracketed[1].lower()], text[: bracketed.start()] + text[bracketed.end() :]
    parts = [part for part in re.split(r"([\W_]+|(?<=[a-z])(?=[A-Z]))", text) if part]
    if unit is None:
        last = max((place for place, part in enumerate(parts) if _is_alphanumeric(part)), default=None)
        if last is not None and parts[last].lower() in _UNITS and parts[last] != "S":  # a Galaxy S is a device
            unit, parts = _UNITS[parts[last].lower()], parts[:last]
            while parts and (not _is_alphanumeric(parts[-1]) or parts[-1].lower() == "in"):
                parts.pop()
    words = tuple(part.lower() for part in parts if _is_alphanumeric(part))
    kept = "".join(part for part in parts if part.lower() not in _LATENCY)
    return _Name(words, re.sub(r"^[\W_]+|[\W_]+$", "", kept), unit)


def _is_alphanumeric(part: str) -> bool:
    return re.search(r"[^\W_]", part) is not None


def _is_other(one: _Name) -> bool:
    """Return whether a name is that of a column that is no latency."""
    if any(word in _NEVER or word.startswith(("std", "lower", "upper")) for word in one.words) or _std_err(one):
        return True
    if not one.words:
        return one.unit is None
    if one.words == ("measured",):
        return one.unit is None
    rest = [word for word in one.words if word not in _LATENCY and not word.isdigit()]
    return bool(rest) and all(word in _NEVER_ALONE for word in rest)


def _std_err(one: _Name) -> bool:
    """Return whether a name says standard error in two words."""
    return any(pair in (("std", "err"), ("std", "error"), ("standard", "error"))
               for pair in zip(one.words, one.words[1:], strict=False))  # fmt: skip


def _bare(one: _Name) -> str:
    """Return what a latency and its error have in common in their names: the device."""
    drop = _LATENCY | _ERROR | {"std", "err", "error", "standard", "of", "the"}
    return " ".join(word for word in one.words if word not in drop)


def _is_text(values: Sequence[Any]) -> bool:
    """Return whether a column holds text or truth values throughout: notes, dates, yes and no."""
    some = [value for value in values if not is_empty(value)]
    return bool(some) and all(isinstance(value, (bool, np.bool_)) or _is_word(value) for value in some)


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and not re.match(r"\s*[+-]?[\d.,]|\s*[+-]?(inf|nan)", value, re.IGNORECASE)


def _check_repeats(found: Sequence[LatencyColumn], name: str) -> None:
    """Check that no columns such as run1, run2, run3 are taken for devices."""
    pattern = re.compile(r"(run|rep|repeat|trial|iter|iteration)[\W_]*\d+", re.IGNORECASE)
    repeats = [one.key for one in found if pattern.fullmatch(one.device or "")]
    if len(repeats) > 1 and len(repeats) == len(found):
        raise BadInputError(
            f"{name}: the columns {', '.join(repeats):.80} look like repeated measurements of one device",
            f"Give their mean as latency_ms, and its standard error as stderr_ms; or name one: --device {repeats[0]}.",
        )


def _check_distinct(found: Sequence[LatencyColumn], name: str) -> None:
    seen: dict[str | None, str] = {}
    for one in found:
        first = seen.setdefault(one.device, one.key)
        if first != one.key:
            whom = "one device" if one.device is None else f"the device {one.device}"
            raise BadInputError(
                f"{name}: the columns {first!r:.60} and {one.key!r:.60} are both latencies of {whom}",
                "Remove one of them, or rename it.",
            )
