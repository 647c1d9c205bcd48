"""What has to be said beside predictions about the labels that they rest on."""

from __future__ import annotations

import numpy as np
import pandas as pd

from latlab.harness.statistics.reliability import between_sessions
from latlab.harness.store.comparable import comparable
from latlab.harness.store.provisional import remark

__all__ = ["label_remarks"]

LEAST_NETWORKS = 3
"""Fewest networks in two sessions from which something is said about sessions."""
LEAST_PERCENT = 1.0
"""Percent by which sessions must differ to be worth a sentence."""
TIMES = 1.5
"""Sessions must differ by this many times the labels' own error."""


def label_remarks(rows: pd.DataFrame) -> tuple[str, ...]:
    """Return sentences about the labels that predictions rest on; none if there is nothing to say.

    Args:
        rows: the target's finished rows in one space (`Store.table` with `provisional`).
    """
    if rows.empty:
        return ()
    used = comparable(rows)
    provisional = int(used["provisional"].astype(bool).sum()) if "provisional" in used else 0
    found = [remark(provisional, len(used)), _disagreement(rows, used)]
    return tuple(one for one in found if one)


def _disagreement(rows: pd.DataFrame, used: pd.DataFrame) -> str:
    """Return a sentence if the sessions that labels come from disagree by more than their error bars say."""
    policy, as_written = used["policy_hash"].iloc[0], used["as_written"].iloc[0]
    alike = rows[(rows["policy_hash"] == policy) & (rows["as_written"] == as_written)]
    alike = alike.assign(sigma=alike["stderr_ms"] / alike["latency_ms"])
    keys = ["campaign", "session"]
    latencies = alike.pivot_table(index="arch", columns=keys, values="latency_ms", aggfunc="last")
    if latencies.shape[1] < 2 or int((latencies.notna().sum(axis=1) > 1).sum()) < LEAST_NETWORKS:
        return ""
    sigmas = alike.pivot_table(index="arch", columns=keys, values="sigma", aggfunc="last", dropna=False)
    found = between_sessions(latencies, sigmas.reindex_like(latencies))
    own = 100 * float(np.nanmedian(alike["sigma"])) if alike["sigma"].notna().any() else 0.0
    apart = 100 * float(np.nansum([found.common**2, found.specific**2]) ** 0.5)
    if apart < max(LEAST_PERCENT, TIMES * own):
        return ""
    return (
        f"Sessions disagree: {found.networks} networks that were measured again differ by {apart:.2g} % from one "
        f"session to the next, where error bars say {own:.2g} %. What the labels of a session have in common is taken "
        "out, and intervals allow for the next session. "
        "More passes do not help: fix what changes between sessions (clock, heat, other programs; `latlab quality` "
        "has the figures)."
    )
