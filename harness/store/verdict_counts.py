"""How many labels have which verdict, and how that is said."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from latlab.harness.statistics.verdicts import KINDS
from latlab.harness.store.vocabulary import Status

__all__ = ["in_words", "verdict_counts"]


def verdict_counts(rows: pd.DataFrame) -> dict[str, int]:
    """Of rows as `Store.table` gives them: finished ones by verdict ("" for none), from good to the least doubt.

    Rows that were measured before there were verdicts are left out: they have no interval either.
    """
    judged = rows[(rows["status"] == Status.OK) & (rows["high_ms"].notna() | (rows["verdict"] != ""))]
    counts = judged["verdict"].value_counts()
    return {kind: int(counts[kind]) for kind in KINDS if kind in counts}


def in_words(counts: Mapping[str, int]) -> str:
    """`57 good, 2 noisy, 1 drift`; "" where nothing was judged."""
    return ", ".join(f"{counts[kind]:,} {kind or 'good'}" for kind in KINDS if counts.get(kind))
