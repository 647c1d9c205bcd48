"""Which targets of a store may be compared with one another."""

from __future__ import annotations

import pandas as pd

__all__ = ["comparable"]


def comparable(rows: pd.DataFrame) -> pd.DataFrame:
    """Of finished rows of one target and space, those whose labels mean the same.

    One timing policy and way of exporting only, those with most rows. Of several sessions the last speaks.
    """
    _, alike = max(rows.groupby(["policy_hash", "as_written"], sort=False), key=lambda group: len(group[1]))
    last: pd.DataFrame = alike.drop_duplicates("arch", keep="last")
    return last
