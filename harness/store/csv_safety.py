"""Cells of CSV files that a spreadsheet does not take for formulas."""

from __future__ import annotations

import re

import pandas as pd

__all__ = ["without_formulas"]


_FORMULA = re.compile(r"\s*[=+\-@]")


def without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """For CSV files, which people open in spreadsheets: text that these would run as a formula begins with a quote.

    What failures say comes from devices.
    """
    texts = [str(name) for name, kind in table.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
    quoted = {name: [f"'{one}" if isinstance(one, str) and _FORMULA.match(one) else one for one in table[name]]
              for name in texts}  # fmt: skip
    return table.assign(**quoted)
