"""Measured blocks: what of a space's blocks to measure, and what the store holds of them on a target."""

from __future__ import annotations

from latlab.harness.store.comparable import comparable
from latlab.harness.store.store import Store
from latlab.harness.store.vocabulary import Status
from latlab.search_spaces import SearchSpace
from latlab.search_spaces.block_space import SUFFIX

__all__ = ["block_latencies"]


def block_latencies(store: Store, target: str, space: SearchSpace) -> dict[str, float]:
    """Milliseconds of the blocks of `space` that were measured on `target`, by name; none where there are none."""
    rows = store.table(target=target, space=space.name + SUFFIX)
    rows = rows[rows["status"] == Status.OK]
    if rows.empty:
        return {}
    rows = comparable(rows)
    return dict(zip(rows["arch"], rows["latency_ms"], strict=True))
