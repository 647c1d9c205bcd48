"""Cells of CSV files that a spreadsheet does not take for formulas."""

from __future__ import annotations

import re

import pandas as pd

__all__ = ["without_formulas"]


_FORMULA = re.compile(r"\s*[=+\-@]")


def without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with a quote before each text that a spreadsheet would run as a formula.

    People open CSV files in spreadsheets, and the messages of failures come from devices, which may be hostile.
    """
    texts = [str(name) for name, kind in table.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
    quoted = {name: [f"'{one}" if isinstance(one, str) and _FORMULA.match(one) else one for one in table[name]]
              for name in texts}  # fmt: skip
    return table.assign(**quoted)
