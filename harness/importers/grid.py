"""Tables as files hold them: cells that are not interpreted yet, from CSV and Parquet."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from latlab.harness.errors import BadInputError
from latlab.harness.importers.source_table import Floats

__all__ = ["Grid", "as_numbers", "is_empty", "read_csv", "read_parquet"]

MAX_CELLS = 20_000_000
MAX_COLUMNS = 10_000
MAX_PARQUET_BYTES = 1_000_000_000
"""The most bytes of the unpacked table, as the file's metadata give them."""
EMPTY = ("", "na", "n/a", "nan", "null", "none", "-", "--", "#n/a")
"""Cells, in lower case, that stand for a value that was not measured."""
FORMS = (
    "A table has a column `arch` with canonical strings, or `ops`, or `ks`, `e`, `d` and `r`; and a column of "
    "latencies per device, or `device` and `latency_ms`."
)
_COMMA = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d+),(\d+)([eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+")


@dataclass(frozen=True)
class Grid:
    """A table's cells, not interpreted yet."""

    name: str
    columns: dict[str, Sequence[Any]]
    where: Sequence[str]
    """The name of each row in errors."""


def read_csv(path: Path) -> Grid:
    """Read a table separated by commas, semicolons or tabs, as UTF-8, UTF-16, or in Excel's Western encoding.

    A first line such as `sep=;`, which Excel writes and reads, says the separator. Columns without a name and without
    a value are left out.

    Raises:
        BadInputError: naming the line that is wrong.
    """
    name = str(path)
    text = _decoded(path, name)
    first, _, rest = text.partition("\n")
    stated = re.fullmatch(r'"?sep=([,;\t|])"?\s*', first)
    skipped = 1 if stated else 0
    if stated:
        text, separator = rest, stated[1]
    else:
        separator = max(",;\t", key=first[:1_000_000].count)
    columns: list[list[str]] = []
    where = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        header = [one.strip() for one in next(reader, [])]
        _check_columns(name, len(header))
        columns = [[] for _ in header]
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            line = f"line {reader.line_num + skipped}"
            while len(row) > len(header) and not row[-1].strip():
                row.pop()
            if len(row) != len(header):
                raise BadInputError(
                    f"{name}, {line}: {len(row)} fields, but the first line names {len(header)}",
                    "Lists within a field, such as ks, need double quotes around them.",
                )
            for column, cell in zip(columns, row, strict=True):
                column.append(cell)
            where.append(line)
    except csv.Error as error:
        raise BadInputError(f"{name}, line {reader.line_num + skipped}: not CSV: {error}") from error
    named = [place for place, one in enumerate(header) if one or any(cell.strip() for cell in columns[place])]
    return _grid(name, [header[place] for place in named], [columns[place] for place in named], where)


def _decoded(path: Path, name: str) -> str:
    """Return the file's text. Bytes that are not UTF-8 are Excel's `CSV`, cp1252, unless they are no text at all."""
    data = path.read_bytes()
    if b"\0" in data[:4096] and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BadInputError(f"{name}: it holds NUL bytes, as UTF-16 without its mark does", "Save it as CSV in UTF-8.")
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        pass
    if not wide and b"\0" not in data:
        try:
            return data.decode("cp1252")
        except UnicodeDecodeError:
            pass
    raise BadInputError(f"{name}: it is not UTF-8 text", "Save it as CSV in UTF-8.")


def read_parquet(path: Path) -> Grid:
    """Read a Parquet file.

    Raises:
        BadInputError: it cannot be read, or is too large.
    """
    import pyarrow
    import pyarrow.parquet

    name = str(path)
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            facts = file.metadata
            size = sum(facts.row_group(group).total_byte_size for group in range(facts.num_row_groups))
            _check_columns(name, facts.num_columns)
            if facts.num_rows * facts.num_columns > MAX_CELLS or size > MAX_PARQUET_BYTES:
                raise BadInputError(f"{name}: {facts.num_rows:,} rows of {facts.num_columns:,} columns are too many")
            table = file.read()
            header = list(table.column_names)
            columns = [column.to_pylist() for column in table.columns]
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise BadInputError(f"{name}: not a Parquet file that can be read: {error!s:.200}") from error
    return _grid(name, header, columns, [f"row {row}" for row in range(table.num_rows)])


def _grid(name: str, header: Sequence[str], columns: Sequence[Sequence[Any]], where: Sequence[str]) -> Grid:
    twice = sorted(one for one, count in Counter(header).items() if count > 1)
    if twice:
        raise BadInputError(f"{name}: two columns are called {twice[0]!r:.60}", "Rename one.")
    if not where:
        raise BadInputError(f"{name}: it has no rows", FORMS)
    return Grid(name, dict(zip(header, columns, strict=True)), where)


def _check_columns(name: str, count: int) -> None:
    if count > MAX_COLUMNS:
        raise BadInputError(f"{name}: {count:,} columns are too many, at most {MAX_COLUMNS:,} are read", FORMS)


def is_empty(value: Any) -> bool:
    """Return whether a cell holds no value: None, NaN, nothing, or a word such as NA."""
    if isinstance(value, str):
        return value.strip().lower() in EMPTY
    return value is None or value != value


def as_numbers(values: Sequence[Any], where: Sequence[str], column: str, name: str) -> Floats:
    """Return `values` as floats; NaN for those not measured. A column may have decimal commas (1,5).

    Raises:
        BadInputError: naming the row whose value is not a number, or is one in two readings (1,234).
    """
    try:
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        pass
    texts = [value.strip() if isinstance(value, str) else value for value in values]
    comma = any(isinstance(text, str) and _COMMA.fullmatch(text) for text in texts)
    if comma:
        _one_reading(texts, where, column, name)
    found = np.empty(len(values))
    for place, text in enumerate(texts):
        try:
            if is_empty(text):
                found[place] = np.nan
            elif comma and isinstance(text, str):
                found[place] = float(text.replace(".", "").replace(",", "."))
            else:
                found[place] = float(text)
        except (TypeError, ValueError, OverflowError):
            raise BadInputError(
                f"{name}, {where[place]}: {column} is {values[place]!r:.60}, which is no number",
                "Write NaN, or nothing, for what was not measured. Columns beside the architecture are latencies: "
                "remove others.",
            ) from None
    return found


def _one_reading(texts: Sequence[Any], where: Sequence[str], column: str, name: str) -> None:
    """Check that commas in a column of numbers can only be decimal ones."""
    words = [(place, text) for place, text in enumerate(texts) if isinstance(text, str) and not is_empty(text)]
    for place, text in words:
        if "." in text and "," not in text:
            raise BadInputError(
                f"{name}, {where[place]}: {column} is {text!r:.60}, while other rows have decimal commas",
                "Write all numbers of a column in one way.",
            )
    with_comma = [(place, text) for place, text in words if "," in text]
    if all(_THOUSANDS.fullmatch(text) for _, text in with_comma):
        place, text = with_comma[0]
        digits = text.replace(",", "")
        raise BadInputError(
            f"{name}, {where[place]}: {column} is {text!r:.60}, which may mean {digits} or {text.replace(',', '.')}",
            "Write numbers without a separator of thousands, and with a decimal point.",
        )
