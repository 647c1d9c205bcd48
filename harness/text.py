"""The spelling of numbers and the cleaning of foreign text, in one place, so that tiles, tables and tooltips agree."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = [
    "LatencyUnit",
    "clean",
    "correlation",
    "count",
    "duration",
    "fine_correlation",
    "in_words",
    "latency_text",
    "latency_unit",
    "millions",
    "ms",
    "percent",
    "plain",
    "printable",
    "spoken_duration",
    "tick",
]

# Escape sequences of ECMA-48, in their forms of 7 and 8 bits: first strings (titles, links, the clipboard) with their
# content, or only their beginning where they have no end; then control sequences (colours, the cursor); then all
# shorter ones.
_SEQUENCES = re.compile(
    "(?:\x1b[PX^_\\]]|[\x90\x98\x9d-\x9f])(?:[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\\\|\x9c))?"
    "|(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]?"
    "|\x1b[ -/]*[0-~]?"
)
# Characters that one does not see: they reorder the text around them (overrides of the writing direction), or make two
# different names look the same (no width, tags, variation selectors).
_UNSEEN = re.compile(
    "[\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff"
    "\uffa0\ufff0-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# Characters that neither XML 1.0 nor HTML allows, or that end a line for some programs only.
_FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


def plain(text: str) -> str:
    """Return `text` with nothing in it that a terminal, a spreadsheet or a browser would obey instead of showing.

    Names and messages come from devices, files and stores that somebody sent. Everything that latlab draws, writes into
    tables for people, or says in an error passes through this function. Escape sequences and characters that one does
    not see are left out; each other control character becomes the sign for a character that cannot be shown. Line
    breaks and tabs stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return _FORBIDDEN.sub("\ufffd", _UNSEEN.sub("", _SEQUENCES.sub("", text.replace("\r\n", "\n"))))


def clean(text: str, limit: int = 0) -> str:
    """Return `text` as `plain` does, and not longer than `limit` characters; 0 for any length."""
    text = plain(text)
    return text if not limit or len(text) <= limit else text[: limit - 1].rstrip() + "…"


def ms(value: float) -> str:
    """Return milliseconds with three significant digits, without the unit: 0.0123, 1.23, 12.3, 123, 1,234."""
    if not math.isfinite(value):
        return "–"
    rounded = float(f"{value:.3g}")  # 99.96 has no digit after its point, 9.999 two
    if rounded >= 100:
        return f"{value:,.0f}"
    digits = 2 - math.floor(math.log10(rounded)) if rounded > 0 else 0
    return f"{value:.{min(digits, 9)}f}"


@dataclass(frozen=True)
class LatencyUnit:
    """A unit that latencies are shown in."""

    symbol: str
    name: str
    """The unit in full, in the plural."""
    per_ms: float
    """How many of it a millisecond is."""

    def number(self, value_ms: float) -> str:
        """Return milliseconds in this unit with three significant digits, without the unit's symbol."""
        return ms(value_ms * self.per_ms)

    def text(self, value_ms: float) -> str:
        """Return milliseconds in this unit with three significant digits and the unit's symbol."""
        return f"{self.number(value_ms)} {self.symbol}"

    def tick(self, value_ms: float) -> str:
        """Return round milliseconds in this unit, for an axis."""
        return tick(value_ms * self.per_ms)


_MICROSECONDS = LatencyUnit("µs", "microseconds", 1e3)
_MILLISECONDS = LatencyUnit("ms", "milliseconds", 1.0)
_SECONDS = LatencyUnit("s", "seconds", 1e-3)
MICROSECONDS_BELOW_MS = 0.1
"""Latencies below so many milliseconds are shown in microseconds."""
SECONDS_FROM_MS = 10_000.0
"""Latencies from so many milliseconds on are shown in seconds."""


def latency_unit(values_ms: Iterable[float]) -> LatencyUnit:
    """Return the unit that fits latencies which are to be compared: those of a column, a row or an axis.

    It fits the middle of their range on a logarithmic scale, so that neither end has many zeros or digits.

    Args:
        values_ms: milliseconds; what is not a finite number above zero does not count.
    """
    known = [value for value in values_ms if value is not None and math.isfinite(value) and value > 0]
    if not known:
        return _MILLISECONDS
    middle = float(f"{math.sqrt(min(known)) * math.sqrt(max(known)):.3g}")
    if middle < MICROSECONDS_BELOW_MS:
        return _MICROSECONDS
    return _SECONDS if middle >= SECONDS_FROM_MS else _MILLISECONDS


def latency_text(value_ms: float) -> str:
    """Return a latency with three significant digits in the unit that fits it: 45.6 µs, 1.23 ms, 1,234 ms, 12.3 s."""
    return latency_unit([value_ms]).text(value_ms)


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
    """Return seconds as a duration: 42 µs, 42 ms, 4.2 s, 42 s, 3 min 12 s, 2 h 05 min."""
    if not math.isfinite(seconds):
        return "–"
    if abs(seconds) < 1e-4:
        return f"{percent(seconds * 1e6)} µs" if seconds else "0 s"
    if seconds < 10:
        return f"{percent(seconds * 1e3)} ms" if seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def spoken_duration(seconds: float) -> str:
    """Return seconds as an estimate deserves them: 20 s, 4 min, 1.5 h, 2.5 days."""
    if seconds < 90:
        return f"{max(1, round(seconds / 5) * 5 if seconds > 10 else round(seconds))} s"
    for unit, length in (("min", 60.0), ("h", 3600.0)):
        if seconds < (90 * 60 if unit == "min" else 48 * 3600):
            value = seconds / length
            return f"{value:.0f} {unit}" if unit == "min" else f"{value:.1f} {unit}"
    return f"{seconds / 86400:.1f} days"


NAMED = 3
"""If there are at most so many sources, their names are listed."""


def in_words(names: Sequence[str]) -> str:
    """Return a phrase about the source devices that a predictor was pre-trained on."""
    few = f": {', '.join(names)}" if 0 < len(names) <= NAMED else ""
    return f"{len(names) or 'no'} source device{'' if len(names) == 1 else 's'} from the store{few}"


def other_spaces_in_words(labels: Mapping[str, int]) -> str:
    """Return a phrase about the target's labels in other spaces that a predictor uses, by the space's name."""
    counts = [f"{number} label{'' if number == 1 else 's'} of {name}" for name, number in labels.items()]
    return f"uses also {' and '.join(counts)}" if counts else ""


_MAX_TEXT = 2000


def printable(text: str) -> str:
    """Return `text` in one line, as `plain` does, and cut to `_MAX_TEXT` characters."""
    text = _SEQUENCES.sub("", text[:_MAX_TEXT])
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)
