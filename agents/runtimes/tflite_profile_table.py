"""The table of operators that TensorFlow Lite's profiler prints: that of LiteRT, and that of `benchmark_model`.

Its columns are those of tensorflow/core/util/stats_calculator.cc, with tabs or spaces between them; releases differ in
which they have:

    ============================== Run Order ==============================
                        [node type]  [first]  [avg ms]     [%]  [cdf%]  [mem KB]  [times called]  [Name]
     Convolution (NHWC, F32) DWConv    0.027     0.028  1.803%  3.537%     0.000               1  [Delegate]:5
                        LOG_SOFTMAX    0.002     0.002  0.774%  100.0%     0.000               1  [Builtin]:1
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

__all__ = ["Row", "TableError", "read_table"]

MAX_ROWS = 100_000
"""Most operators in a table."""
MAX_LINE = 4096
_TITLE = re.compile(r"=+ Run Order =+")
_COLUMN = re.compile(r"\[[^\[\]]{1,30}\]")
_NUMBERS = r"((?:[ \t]+[0-9.e+-]{{1,30}}%?){{{}}})"
_MEAN, _TIMES, _TYPE, _NAME, _SHARE = "[avg ms]", "[times called]", "[node type]", "[Name]", "[%]"
_DELEGATE = "Delegate/"
_WHOLE = re.compile(r"TfLite[A-Za-z0-9]{1,40}Delegate[A-Za-z0-9]{0,10}|DELEGATE")
"""The node that stands for all of what a delegate runs."""
_MOST_MS = 1e9


class TableError(ValueError):
    """Text that has no table of operators, or one with a row that cannot be read."""


class Row(NamedTuple):
    """One operator."""

    kind: str
    name: str
    delegate: str
    """The delegate that runs it under the name of its node, or `delegate` if the table does not name it; empty for
    TFLite's own kernels."""
    mean_ms: float
    """Milliseconds of a call times the number of calls. A call's are printed as whole microseconds, and made more
    exact by the operator's share of the total, which is printed with more digits."""
    share: float
    """Its part of the time of all operators, or -1 if the table has no such column."""
    half_us: float
    """Half a microsecond for each call: the most by which `mean_ms` may be rounded."""


def read_table(text: str) -> list[Row]:
    """Return the operators of the first table "Run Order" in a text, in the order in which they ran.

    Where the table has both a delegate's node and the operators inside it, the node is left out: it is their sum.

    Raises:
        TableError: if there is no such table, or a row of it cannot be read.
    """
    lines = iter(text.splitlines())
    if not any(_TITLE.fullmatch(line.strip()) for line in lines):
        raise TableError("it has no table of operators")
    columns = _COLUMN.findall(next(lines, ""))
    if columns[:1] != [_TYPE] or columns[-1:] != [_NAME] or not {_MEAN, _TIMES} <= set(columns):
        raise TableError(f"its table of operators has other columns: {', '.join(columns)[:200]}")
    form = re.compile(rf"[ \t]*(\S.*){_NUMBERS.format(len(columns) - 2)}[ \t]+(\S.*)")
    rows: list[Row] = []
    for line in lines:
        if not line.strip():
            break
        rows.append(_row(line, columns, form))
        if len(rows) > MAX_ROWS:
            raise TableError(f"its table has more than {MAX_ROWS} operators")
    else:
        raise TableError("its table of operators is cut off")
    rows = _refined(rows)
    inside = any(row.delegate and not _WHOLE.fullmatch(row.kind) for row in rows)
    return [row for row in rows if not (inside and _WHOLE.fullmatch(row.kind))]


def _row(line: str, columns: list[str], form: re.Pattern[str]) -> Row:
    """Return the operator in a line: its type, as many numbers as there are columns between, and its name."""
    found = form.fullmatch(line) if len(line) <= MAX_LINE else None
    if found is None:
        raise TableError(f"a row of its table cannot be read: {line.strip()[:100]!r}")
    kind, name = found[1].strip(), found[3].strip()
    numbers = dict(zip(columns[1:-1], found[2].split()))
    try:
        times = int(numbers[_TIMES])
        mean_ms = float(numbers[_MEAN]) * times
        share = float(numbers[_SHARE].rstrip("%")) / 100 if _SHARE in numbers else -1.0
    except ValueError:
        raise TableError(f"a row of its table has no time: {line.strip()[:100]!r}") from None
    if not (math.isfinite(mean_ms) and 0 <= mean_ms <= _MOST_MS):
        raise TableError(f"a row of its table has an impossible time: {line.strip()[:100]!r}")
    if _WHOLE.fullmatch(kind):
        return Row(kind, name, kind, mean_ms, share, 0.5 * times)
    inside = kind.startswith(_DELEGATE) or name.startswith((_DELEGATE, "[Delegate]"))
    kind = kind[len(_DELEGATE) :] if kind.startswith(_DELEGATE) else kind
    return Row(kind, name, "delegate" * inside, mean_ms, share, 0.5 * times)


def _refined(rows: list[Row]) -> list[Row]:
    """Return the rows with their times by share, where that agrees with the rounded time."""
    total_ms = sum(row.mean_ms for row in rows)
    return [
        row._replace(mean_ms=row.share * total_ms)
        if row.share >= 0 and abs(row.share * total_ms - row.mean_ms) * 1000 <= 1.1 * row.half_us
        else row
        for row in rows
    ]
