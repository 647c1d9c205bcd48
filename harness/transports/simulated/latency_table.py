"""True latencies from a table: one of latlab's own, or one that others have published."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlab.harness.errors import BadInputError
from latlab.search_spaces import ArchitectureError, get

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read_table"]

_CHOICES = {"arch", "index", "ops", "ks", "e", "d", "r"}
"""The columns that identify a network, in all layouts that can be read."""


def read_table(path: Path, column: str | None) -> dict[str, float]:
    """Return milliseconds by canonical string; NaN where a row has none.

    Args:
        path: Parquet or CSV with a column `arch` of canonical strings, or with the columns of HELP's published
            tables: `ops` (FBNet's 22 operator indices), or `ks`, `e`, `d`, `r` (OFA).
        column: the column of latencies; default: `latency_ms`, else the only one that does not identify networks.

    Raises:
        BadInputError: the file cannot be read, or the columns do not determine networks or latencies.
    """
    try:
        changed_ns = path.stat().st_mtime_ns
    except OSError as error:
        raise BadInputError(f"cannot read the table {path}: {error.strerror}") from error
    return _read(path, changed_ns, column)


@lru_cache(32)
def _read(path: Path, changed_ns: int, column: str | None) -> dict[str, float]:
    import pandas as pd

    try:
        frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except Exception as error:  # pandas and pyarrow raise many kinds of errors for a file that is not a table
        raise BadInputError(f"cannot read the table {path}: {str(error)[:200]}", "Parquet or CSV is read.") from error
    chosen = _latency_column(frame, path, column)
    try:
        names = _architecture_names(frame, path)
    except (ArchitectureError, TypeError, ValueError) as error:
        raise BadInputError(f"{path}: {error}") from error
    return dict(zip(names, pd.to_numeric(frame[chosen], errors="coerce").astype(float).tolist(), strict=True))


def _latency_column(frame: pd.DataFrame, path: Path, column: str | None) -> str:
    columns = [str(name) for name in frame.columns if name not in _CHOICES]
    if column is None and "latency_ms" in columns:
        return "latency_ms"
    if column is None and len(columns) == 1:
        return columns[0]
    if column in columns:
        return column
    missing = f"{path} has no column {column!r}" if column else f"{path} has several columns"
    raise BadInputError(missing, f"Name one with `column`: {', '.join(columns)}.")


def _architecture_names(frame: pd.DataFrame, path: Path) -> list[str]:
    if "arch" in frame:
        return [str(text) for text in frame["arch"]]
    if "ops" in frame:
        return _from_genes("fbnet", frame["ops"], list)
    if {"ks", "e", "d", "r"} <= set(frame):
        rows = zip(frame["r"], frame["d"], frame["ks"], frame["e"], strict=True)
        return _from_genes("ofa-mobilenetv3", rows, lambda row: [row[0], *row[1], *row[2], *row[3]])
    raise BadInputError(f"{path} does not say which networks it is about", "It needs a column `arch`.")


def _from_genes(space_name: str, rows: Any, genes: Callable[[Any], list[int]]) -> list[str]:
    space = get(space_name)
    return [space.from_genes(genes(row)).text for row in rows]
