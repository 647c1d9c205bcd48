"""The rows of a store whose labels may be compared with one another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd

from latlab.harness.store.vocabulary import Selection

__all__ = ["comparable", "comparable_campaigns"]


def comparable(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per architecture, of those whose labels mean the same.

    They have one timing policy and one way of exporting: the combination with most rows. If an architecture was
    measured in several sessions, its last row counts. Labels that the user has imported have no policy that is known;
    the user says that they are the target's, so they join those that were measured with the same way of exporting. An
    architecture that was measured, too, counts as measured.

    Args:
        rows: finished rows of one target and space, as `Store.table` returns them; at least one.
    """
    is_imported = rows["selection"] == Selection.IMPORTED
    own = rows[~is_imported] if not is_imported.all() else rows
    _, alike = max(own.groupby(["policy_hash", "as_written"], sort=False), key=lambda group: len(group[1]))
    if is_imported.any() and len(own) < len(rows):
        written = alike["as_written"].iloc[0]
        alike = pd.concat([rows[is_imported & (rows["as_written"] == written)], alike])
    last: pd.DataFrame = alike.drop_duplicates("arch", keep="last")
    return last


def comparable_campaigns(campaigns: Mapping[str, Mapping[str, Any]], finished: Mapping[str, int]) -> list[str]:
    """Return those of a target's campaigns in one space whose labels mean the same, as `comparable` chooses its rows.

    Args:
        campaigns: facts of campaigns by id: policy_hash, as_written, selection.
        finished: numbers of the finished rows of the target's campaigns; at least one.
    """
    measured = [one for one in finished if campaigns[one]["selection"] != Selection.IMPORTED] or list(finished)
    rows: Counter[tuple[str, int]] = Counter()
    for one in measured:
        rows[campaigns[one]["policy_hash"], campaigns[one]["as_written"]] += finished[one]
    (policy, as_written), _ = rows.most_common(1)[0]
    return [
        one
        for one in finished
        if campaigns[one]["as_written"] == as_written
        and (campaigns[one]["policy_hash"] == policy or campaigns[one]["selection"] == Selection.IMPORTED)
    ]
