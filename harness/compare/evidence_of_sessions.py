"""What a store knows of a network and of the anchors in some sessions, as shortest runs: disturbances only add time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from latlab.harness.statistics.unpaired import fastest_runs
from latlab.harness.store.store import Store
from latlab.harness.telemetry.recorded_pass import PassKind

__all__ = ["anchor_levels", "fastest_of"]


def fastest_of(store: Store, rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Return the logarithm of a network's shortest run in ns, and its relative standard error.

    Args:
        store: with the passes.
        rows: of the network, as `Store.table` returns them.
    """
    owners = [int(row["id"] if pd.isna(row["same_graph_as"]) else row["same_graph_as"]) for row in rows]
    passes = [one for owner in dict.fromkeys(owners) for one in store.passes(owner)]
    return fastest_runs([one.samples_ns for one in passes if one.kind == PassKind.LABEL])


def anchor_levels(store: Store, sessions: Sequence[tuple[str, int]]) -> dict[str, float]:
    """Return the logarithms of the shortest runs of some sessions' anchors in ns, by name.

    Args:
        store: with the anchors.
        sessions: campaign id and number of each.
    """
    found: dict[str, list[list[int]]] = {}
    for session in dict.fromkeys(sessions):
        for one in store.anchors(*session):
            found.setdefault(one.arch, []).append(one.samples_ns)
    return {name: fastest_runs(passes)[0] for name, passes in found.items()}
