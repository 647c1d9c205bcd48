"""The spelling of numbers and the cleaning of foreign text, in one place, so that tiles, tables and tooltips agree."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from latlab.harness.errors import BadInputError

__all__ = [
    "clean",
    "correlation",
    "count",
    "duration",
    "fine_correlation",
    "in_words",
    "millions",
    "milliseconds",
    "milliseconds_of",
    "ms",
    "percent",
    "printable",
    "spoken_duration",
    "tick",
]

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
# Characters that neither XML 1.0 nor HTML allows; a worker's stderr may contain any of them.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
# With overrides of the writing direction an error message could reorder the text around it.
_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")


def clean(text: str, limit: int = 0) -> str:
    """Return `text` without terminal colours and control characters, which not every parser accepts.

    Args:
        text: foreign text.
        limit: the most characters to return; 0 for all.
    """
    text = _BIDI.sub("", _FORBIDDEN.sub("\ufffd", _ANSI.sub("", text)))
    return text if not limit or len(text) <= limit else text[: limit - 1].rstrip() + "…"


def ms(value: float) -> str:
    """Return milliseconds with three significant digits, without the unit: 0.0123, 1.23, 12.3, 123, 1,234."""
    if not math.isfinite(value):
        return "–"
    if value >= 100:
        return f"{value:,.0f}"
    digits = 2 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:.{min(digits, 6)}f}"


def percent(value: float) -> str:
    """Return a number that is already in per cent, without the sign: 0.42, 4.2, 42."""
    if not math.isfinite(value):
        return "–"
    size = abs(value)
    return f"{value:.2f}" if size < 1 else f"{value:.1f}" if size < 10 else f"{value:.0f}"


def correlation(value: float) -> str:
    """Return a correlation with three digits, or a dash if it is not defined."""
    return f"{value:.3f}" if math.isfinite(value) else "–"


def fine_correlation(value: float) -> str:
    """Return a correlation as `correlation` does, with a fourth digit from .99 on: 0.982, 0.9993."""
    return f"{value:.4f}" if 0.99 <= value < 0.99995 else correlation(value)


def count(number: float, noun: str, plural: str = "") -> str:
    """Return a number with its noun: `1 network`, `1,200 networks`."""
    return f"{number:,.0f} {noun if number == 1 else plural or noun + 's'}"


def millions(value: float) -> str:
    """Return a number of MACs or parameters: 940 k, 12.3 M, 1.23 G."""
    if not math.isfinite(value):
        return "–"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{ms(value / size)}\u202f{letter}"
    return f"{value:.0f}"


def tick(value: float) -> str:
    """Return a round number for an axis: 0.5, 2, 1,500; from a million on 20 M."""
    for size, letter in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:g}\u202f{letter}"
    return f"{value:,.10g}".replace("-", "−")


def duration(seconds: float) -> str:
    """Return seconds as a duration: 42 ms, 4.2 s, 42 s, 3 min 12 s, 2 h 05 min."""
    if not math.isfinite(seconds):
        return "–"
    if seconds < 10:
        return f"{percent(seconds * 1e3)} ms" if seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def milliseconds_of(text: str) -> float:
    """Return the milliseconds that a text such as `20ms`, `20`, `500 us` or `0.02s` stands for.

    Raises:
        BadInputError: it is no positive time.
    """
    found = re.fullmatch(r"\s*([0-9.]+(?:[eE][-+]?[0-9]+)?)\s*(ms|us|µs|s)?\s*", text)
    try:
        value = float(found[1]) * {"s": 1e3, "us": 1e-3, "µs": 1e-3}.get(found[2], 1.0) if found else math.nan
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise BadInputError(f"{text!r:.60} is no time", "Write a number and its unit, such as 20ms, 500us or 0.5s.")
    return value


def spoken_duration(seconds: float) -> str:
    """Return seconds as an estimate deserves them: 20 s, 4 min, 1.5 h, 2.5 days."""
    if seconds < 90:
        return f"{max(1, round(seconds / 5) * 5 if seconds > 10 else round(seconds))} s"
    for unit, length in (("min", 60.0), ("h", 3600.0)):
        if seconds < (90 * 60 if unit == "min" else 48 * 3600):
            value = seconds / length
            return f"{value:.0f} {unit}" if unit == "min" else f"{value:.1f} {unit}"
    return f"{seconds / 86400:.1f} days"


def milliseconds(value: float) -> str:
    """Return milliseconds with three significant digits, without exponents, with the unit."""
    digits = 3 if not value else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f} ms"


NAMED = 3
"""If there are at most so many sources, their names are listed."""


def in_words(names: Sequence[str]) -> str:
    """Return a phrase about the source devices that a predictor was pre-trained on."""
    few = f": {', '.join(names)}" if 0 < len(names) <= NAMED else ""
    return f"{len(names) or 'no'} source device{'' if len(names) == 1 else 's'} from the store{few}"


_MAX_TEXT = 2000


def printable(text: str) -> str:
    """Return `text` without control characters, which a terminal would obey, and cut to `_MAX_TEXT` characters."""
    text = text[:_MAX_TEXT]
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)
