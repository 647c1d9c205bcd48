"""Tables that commands write: Parquet or CSV, whole or not at all."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from latlab.harness.errors import BadInputError
from latlab.harness.paths import whole_file

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TableFormat", "table_format", "write_table"]


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
    from latlab.harness.store.csv_safety import harmless

    with whole_file(out) as part:
        if format_ is TableFormat.csv:
            harmless(table).to_csv(part, index=False, float_format=digits and f"%.{digits}g")
        else:
            table.to_parquet(part, index=False)
