"""Counts of labels by verdict, and these counts in words."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from latlab.harness.statistics.verdicts import KINDS
from latlab.harness.store.vocabulary import Status

__all__ = ["in_words", "verdict_counts"]


def verdict_counts(rows: pd.DataFrame) -> dict[str, int]:
    """Return the number of finished rows with each verdict ("" for a good one), in the order of `KINDS`.

    Rows that an older latlab measured without verdicts are left out; they have no interval either.

    Args:
        rows: as `Store.table` returns them.
    """
    judged = rows[(rows["status"] == Status.OK) & (rows["high_ms"].notna() | (rows["verdict"] != ""))]
    counts = judged["verdict"].value_counts()
    return {kind: int(counts[kind]) for kind in KINDS if kind in counts}


def in_words(counts: Mapping[str, int]) -> str:
    """Return the counts as text such as `57 good, 1 drift, 2 noisy`; "" if nothing was judged."""
    return ", ".join(f"{counts[kind]:,} {kind or 'good'}" for kind in KINDS if counts.get(kind))
