"""Tables that commands write: Parquet or CSV, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from latlab.harness.errors import BadInputError
from latlab.harness.paths import whole_file

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TableFormat", "table_format", "write_frames", "write_table"]


ROW_GROUP = 30_000
"""Least number of rows that a Parquet file keeps together, which have to be in memory at once."""


class TableFormat(StrEnum):
    """Formats of tables."""

    parquet = "parquet"
    csv = "csv"


def table_format(out: Path, asked: TableFormat | None = None) -> TableFormat:
    """Return the format of a file: the one that was asked for, or else by its suffix.

    Raises:
        BadInputError: its suffix names no format, or another one.
    """
    suffix = out.suffix.lower().lstrip(".")
    if asked is None:
        if suffix not in set(TableFormat):
            raise BadInputError(f"{out} does not say what to write", "Name a file that ends in .parquet or .csv.")
        return TableFormat(suffix)
    if suffix in set(TableFormat) and suffix != asked:
        raise BadInputError(f"--format {asked} contradicts the name {out}")
    return asked


def write_table(table: pd.DataFrame, out: Path, format_: TableFormat, digits: int | None = None) -> None:
    """Write a table. Raises `BadInputError` if that is impossible; what was at `out` before is untouched then.

    Args:
        table: the table.
        out: the file.
        format_: its format.
        digits: significant digits of numbers in CSV; None for all.
    """
    with whole_file(out) as part:
        write_frames([table], table, part, format_, digits)


def write_frames(
    frames: Iterable[pd.DataFrame],
    example: pd.DataFrame,
    path: Path,
    format_: TableFormat,
    digits: int | None = None,
) -> None:
    """Write a table that comes in parts.

    Args:
        frames: the parts, all with the same columns and types.
        example: a frame with the same columns and types, and with values of all types that are in them.
        path: the file to write; a part of it is there if this fails.
        format_: its format.
        digits: significant digits of numbers in CSV; None for all.
    """
    from latlab.harness.store.csv_safety import harmless

    if format_ is TableFormat.csv:
        with path.open("w", newline="", encoding="utf-8") as file:
            for at, frame in enumerate(frames):
                harmless(frame).to_csv(
                    file, index=False, header=at == 0, float_format=f"%.{digits}g" if digits else None
                )
        return
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    schema = pa.Schema.from_pandas(example, preserve_index=False)
    waiting: list[pa.Table] = []
    with ParquetWriter(path, schema) as writer:
        for frame in frames:
            waiting.append(pa.Table.from_pandas(frame, schema=schema, preserve_index=False))
            if sum(map(len, waiting)) >= ROW_GROUP:
                writer.write_table(pa.concat_tables(waiting))
                waiting.clear()
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
