"""The latencies of single blocks of networks that the store holds for a target."""

from __future__ import annotations

import pandas as pd

from latlab.harness.store.comparable import comparable
from latlab.harness.store.store import Store
from latlab.harness.store.tables import LABELS
from latlab.harness.store.vocabulary import Status
from latlab.search_spaces import SearchSpace
from latlab.search_spaces.block_space import SUFFIX

__all__ = ["block_latencies"]


def block_latencies(
    store: Store, target: str, space: SearchSpace, rows: pd.DataFrame | None = None
) -> dict[str, float]:
    """Return the latencies in ms of the blocks of `space` that were measured on `target`, by name; maybe none.

    Args:
        rows: the target's labels (`target_labels`); None to read those of the blocks.
    """
    name = space.name + SUFFIX
    rows = store.table(target=target, space=name, only=LABELS) if rows is None else rows[rows["space"] == name]
    rows = rows[rows["status"] == Status.OK]
    if rows.empty:
        return {}
    rows = comparable(rows)
    return dict(zip(rows["arch"], rows["latency_ms"], strict=True))
