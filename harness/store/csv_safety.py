"""Cells of CSV files that neither a spreadsheet nor a terminal obeys."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from latlab.harness.text import plain

__all__ = ["harmless"]


_FORMULA = re.compile(r"\s*[=+\-@]")


def harmless(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with texts as `plain` shows them, and a quote before each that a spreadsheet would run.

    People open CSV files in spreadsheets, and the messages of failures come from devices, which may be hostile.
    """
    texts = [str(name) for name, kind in table.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
    return table.assign(**{name: [_harmless(one) for one in table[name]] for name in texts})


def _harmless(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    text = plain(cell)
    return f"'{text}" if _FORMULA.match(text) else text
