"""Readers of users' own tables: CSV and Parquet, one row per architecture or one per measurement."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from latlab.harness.errors import BadInputError
from latlab.harness.importers.source_table import Floats, Rows, fitting_space, numbers, rows_of
from latlab.search_spaces import Architecture, ArchitectureError

__all__ = ["Column", "Grid", "columns_of", "read_csv", "read_parquet"]

MAX_CELLS = 20_000_000
MAX_PARQUET_BYTES = 1_000_000_000
"""The most bytes of the unpacked table, as the file's metadata give them."""
OFA_COLUMNS = ("r", "d", "ks", "e")
"""The columns of an OFA architecture, in the order of the space's genes."""
DEVICES = ("device", "target")
"""Names of the column that holds each row's device."""
IGNORED = ("index", "Unnamed: 0", "", "__index_level_0__")
"""Names of columns in which other programs write a table's row numbers."""
_FORMS = (
    "A table has a column `arch` with canonical strings, or `ops`, or `ks`, `e`, `d` and `r`; and a column of "
    "latencies per device, or `device` and `latency_ms`."
)


@dataclass(frozen=True)
class Grid:
    """A table's cells, not interpreted yet."""

    name: str
    columns: dict[str, Sequence[Any]]
    where: Sequence[str]
    """The name of each row in errors."""


@dataclass(frozen=True, eq=False)
class Column:
    """The latencies of one device in one space, one per row; NaN if not measured."""

    device: str
    rows: Rows
    latency: Floats
    stderr: Floats | None


def read_csv(path: Path) -> Grid:
    """Read a table separated by commas, semicolons or tabs.

    Raises:
        BadInputError: naming the line that is wrong.
    """
    name = str(path)
    columns: list[list[str]] = []
    where = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline(1_000_000)
            file.seek(0)
            separator = max(",;\t", key=first.count)
            reader = csv.reader(file, delimiter=separator, strict=True)
            header = [one.strip() for one in next(reader, [])]
            columns = [[] for _ in header]
            for row in reader:
                if not any(cell.strip() for cell in row):
                    continue
                if len(row) != len(header):
                    raise BadInputError(
                        f"{name}, line {reader.line_num}: {len(row)} fields, but the first line names {len(header)}",
                        "Lists within a field, such as ks, need double quotes around them.",
                    )
                for column, cell in zip(columns, row, strict=True):
                    column.append(cell)
                where.append(f"line {reader.line_num}")
    except csv.Error as error:
        raise BadInputError(f"{name}, line {reader.line_num}: not CSV: {error}") from error
    except UnicodeDecodeError as error:
        raise BadInputError(f"{name}: it is not UTF-8 text") from error
    return _grid(name, header, columns, where)


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
            if facts.num_rows * facts.num_columns > MAX_CELLS or size > MAX_PARQUET_BYTES:
                raise BadInputError(f"{name}: {facts.num_rows:,} rows of {facts.num_columns:,} columns are too many")
            table = file.read()
            header = list(table.column_names)
            columns = [column.to_pylist() for column in table.columns]
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise BadInputError(f"{name}: not a Parquet file that can be read: {error!s:.200}") from error
    return _grid(name, header, columns, [f"row {row}" for row in range(table.num_rows)])


def _grid(name: str, header: Sequence[str], columns: Sequence[Sequence[Any]], where: Sequence[str]) -> Grid:
    twice = sorted({one for one in header if header.count(one) > 1})
    if twice:
        raise BadInputError(f"{name}: two columns are called {twice[0]!r:.60}", "Rename one.")
    if not where:
        raise BadInputError(f"{name}: it has no rows", _FORMS)
    return Grid(name, dict(zip(header, columns, strict=True)), where)


def columns_of(grid: Grid, given: str | None, only: str | None = None) -> list[Column]:
    """Return the latencies of each device in a table. A column `space` allows several spaces in one table.

    Args:
        grid: the table.
        given: the space, if the user names it.
        only: a device; if the table has it, no other is read.

    Raises:
        BadInputError: naming the row and the column that is wrong.
    """
    columns = {key: values for key, values in grid.columns.items() if key not in IGNORED}
    keep = np.array([str(one) == "ok" for one in columns["status"]]) if "status" in columns else None
    is_long = "latency_ms" in columns and any(one in columns for one in DEVICES)
    found = []
    for space, chosen in _by_space(columns, keep, len(grid.where), given):
        part: dict[str, Sequence[Any]] = {key: [values[row] for row in chosen] for key, values in columns.items()}
        where = [grid.where[row] for row in chosen]
        rows = _rows(part, space, where, grid.name)
        if is_long:
            found += _long(part, rows, grid.name, only)
        else:
            taken = {"arch", "ops", "space", "status", *OFA_COLUMNS}
            wide = [key for key in part if key not in taken]
            wide = [only] if only in wide else wide
            found += [Column(key, rows, numbers(part[key], where, key, grid.name), None) for key in wide]
    if not found:
        raise BadInputError(f"{grid.name}: it has no latencies", _FORMS)
    return found


def _by_space(
    columns: dict[str, Sequence[Any]], keep: np.ndarray | None, count: int, given: str | None
) -> list[tuple[str | None, np.ndarray]]:
    """Return the rows of each space. Rows of `latlab export` that have no label or are of user models are left out."""
    rows = np.arange(count) if keep is None else np.flatnonzero(keep)
    if "space" not in columns:
        return [(given, rows)]
    spaces = np.array([str(one) for one in columns["space"]], dtype=object)[rows]
    wanted = [given] if given is not None else [str(one) for one in dict.fromkeys(spaces) if one != "model"]
    return [(space, rows[spaces == space]) for space in wanted if (spaces == space).any()]


def _rows(columns: dict[str, Sequence[Any]], given: str | None, where: Sequence[str], name: str) -> Rows:
    values: list[Any]
    parse = "from_genes"
    if "arch" in columns:
        parse, values = "parse", [str(one) for one in columns["arch"]]
    elif "ops" in columns:
        values = [_integers(one, place, "ops", name) for one, place in zip(columns["ops"], where, strict=True)]
    elif all(one in columns for one in OFA_COLUMNS):
        parts = zip(*(columns[one] for one in OFA_COLUMNS), strict=True)
        values = [
            [gene for key, part in zip(OFA_COLUMNS, row, strict=True) for gene in _integers(part, place, key, name)]
            for place, row in zip(where, parts, strict=True)
        ]
    else:
        raise BadInputError(f"{name}: no column names the architectures (it has: {', '.join(columns):.200})", _FORMS)
    space = fitting_space(values, given, name, parse)
    known: dict[Any, Architecture] = {}
    archs = []
    for row, value in enumerate(values):
        key = value if isinstance(value, str) else tuple(value)
        if key not in known:
            try:
                known[key] = getattr(space, parse)(value)
            except ArchitectureError as error:
                raise BadInputError(
                    f"{name}, {where[row]}: {error}", "Is --space right? `latlab spaces` describes them."
                ) from error
        archs.append(known[key])
    return rows_of(space, archs, where)


def _integers(value: Any, where: str, column: str, name: str) -> list[int]:
    """Return the whole numbers in a list, a number, or a text such as `[3, 5]` or `3_5`."""
    if isinstance(value, str) and re.fullmatch(r"[\[(]?\s*\d{1,6}([\s,;_]+\d{1,6})*\s*[\])]?", value.strip()):
        return [int(one) for one in re.findall(r"\d+", value)]
    items = value if isinstance(value, list) else [value]
    try:
        whole = [int(one) for one in items if int(one) == one]
    except (TypeError, ValueError, OverflowError):
        whole = []
    if not whole or len(whole) != len(items):
        raise BadInputError(f"{name}, {where}: {column} is {value!r:.80}, not a list of whole numbers")
    return whole


def _long(columns: dict[str, Sequence[Any]], rows: Rows, name: str, only: str | None) -> list[Column]:
    """Return the columns of a table with one row per measurement, as `latlab export` writes it."""
    devices = np.array([str(one) for one in columns[next(one for one in DEVICES if one in columns)]], dtype=object)
    latency = numbers(columns["latency_ms"], rows.where, "latency_ms", name)
    stderr = numbers(columns["stderr_ms"], rows.where, "stderr_ms", name) if "stderr_ms" in columns else None
    names = list(dict.fromkeys(devices))
    names = [only] if only in names else names
    return [Column(str(one), rows, np.where(devices == one, latency, np.nan), stderr) for one in names]
