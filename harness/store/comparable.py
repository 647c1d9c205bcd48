"""The rows of a store whose labels may be compared with one another."""

from __future__ import annotations

import pandas as pd

__all__ = ["comparable"]


def comparable(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per architecture, of those whose labels mean the same.

    They have one timing policy and one way of exporting: the combination with most rows. If an architecture was
    measured in several sessions, its last row counts.

    Args:
        rows: finished rows of one target and space, as `Store.table` returns them; at least one.
    """
    _, alike = max(rows.groupby(["policy_hash", "as_written"], sort=False), key=lambda group: len(group[1]))
    last: pd.DataFrame = alike.drop_duplicates("arch", keep="last")
    return last
