"""Percentiles of rows that were measured before rows kept them: they are computed from the stored passes."""

from __future__ import annotations

import pandas as pd

from latlab.harness.statistics.distribution import DISTRIBUTION, distribution
from latlab.harness.store.store import Store
from latlab.harness.store.vocabulary import Selection, Status
from latlab.harness.telemetry.recorded_pass import PassKind

__all__ = ["LABEL_COLUMNS", "with_distributions"]

LABEL_COLUMNS = ("target", "space", "arch", "session", "latency_ms", *DISTRIBUTION, "throughput_per_s")
"""The columns of a list of labels with their distributions."""


def with_distributions(store: Store, table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of measurements with the columns of `DISTRIBUTION`, filled as far as passes are stored.

    Stored passes have the session's drift in them. So percentiles are scaled as the label was, by
    `latency_ms / raw_ms`.

    Args:
        store: where the table is from.
        table: rows of `Store.table`.
    """
    filled = table.copy()
    for name in DISTRIBUTION:
        if name not in filled:
            filled[name] = None
        filled[name] = pd.to_numeric(filled[name])
    timed = (filled["status"] == Status.OK) & (filled["selection"] != Selection.IMPORTED)
    lacking = filled[timed & filled["p50_ms"].isna()]
    for place, row in lacking.iterrows():
        owner = row["id"] if pd.isna(row["same_graph_as"]) else row["same_graph_as"]
        passes = [one for one in store.passes(int(owner)) if one.kind == PassKind.LABEL]
        drift = row["latency_ms"] / row["raw_ms"] if row["raw_ms"] else 1.0
        for name, value in distribution(passes).items():
            filled.loc[place, name] = value * drift if name.endswith("_ms") else value
    return filled
