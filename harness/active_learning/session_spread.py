"""How much labels differ from one measurement session of a device to the next, beyond their error bars.

All labels of one session may be too high or too low together: clocks, heat, other programs, where memory happens to
lie. No error bar of that session can say so, and no leave-one-out error either; a later session shows it. So intervals
of predictions, and the probability that a limit is kept, need a deviation between sessions of their own.

Networks that were measured in several sessions show it, and anchors, which every session times. Few sessions show it
poorly, therefore an assumption stands beside them, as if it had been seen in some sessions already: the mean of a
scaled inverse chi-square posterior (Gelman et al., Bayesian Data Analysis, 2013, section 3.2), roughly.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from latlab.harness.statistics.pass_series import pass_series
from latlab.harness.statistics.reliability import BetweenSessions, between_sessions
from latlab.harness.store.store import Store
from latlab.harness.store.vocabulary import Selection
from latlab.harness.telemetry.recorded_pass import RecordedAnchor

__all__ = [
    "USUAL_COMMON",
    "VIRTUAL_COMMON",
    "SessionSpread",
    "repeated",
    "session_spread",
    "session_variance",
    "with_sessions",
]

USUAL_COMMON, VIRTUAL_COMMON, USUAL_SPECIFIC = 0.03, 0.06, 0.01
"""Relative deviations that are assumed as long as there is one session; the second of a virtual machine, whose sessions
differ by 4 to 6 % because of neighbours that it cannot see (benchmarks/RESULTS.md)."""
ASSUMED_SESSIONS, ASSUMED_NETWORKS = 2.0, 2.0
"""Sessions, and networks in two sessions, that weigh as much as those assumptions."""
MOST_SESSIONS = 12
"""Most sessions of each target, the latest ones, whose anchors are read."""
TRIM = 0.25
"""Share of an anchor's samples that is cut at each end: that of the policy `default`, for all sessions alike."""


@dataclass(frozen=True)
class SessionSpread:
    """Relative standard deviations of labels from one session to the next, beyond their error bars."""

    common: float
    """Of all labels of a session together."""
    specific: float
    """Of each label by itself."""
    sessions: int
    """Sessions in which they were seen; 0 if they are only assumed."""

    @property
    def total(self) -> float:
        """The deviation of one label."""
        return math.hypot(self.common, self.specific)

    def of_prediction(self, labels: pd.Series) -> float:
        """Return the variance that a new session adds to predicted log-latencies.

        It is common^2 (1 + sum of w_s^2), because the sessions that the labels come from have shifts, too: session s
        has the share w_s of the labels. What is specific to a label is part of the noise that a predictor finds.

        Args:
            labels: the session of each label.
        """
        shares = labels.value_counts(normalize=True)
        return self.common**2 * (1 + float((shares**2).sum())) if len(shares) else 0.0


def session_spread(store: Store, target: str, rows: pd.DataFrame) -> SessionSpread:
    """Return how labels of a target differ between sessions, by its own repeated networks and its device's anchors.

    Args:
        rows: labels of the target (`Store.table`) with the columns `session_id` and `fingerprint_id`; those that were
            imported do not count.
    """
    usual_common = VIRTUAL_COMMON if _is_virtual(store, rows) else USUAL_COMMON
    anchors = _anchors(store, target.split("/")[0])
    networks = _latencies(rows)
    found = [_between([networks, anchors.pop(target, _NOTHING)])]
    found += [_between([one]) for one in anchors.values()]
    seen = [one for one in found if math.isfinite(one.common)]
    freedom = [len(one.shifts) - 1 for one in seen]
    common2 = ASSUMED_SESSIONS * usual_common**2 + sum(n * one.common**2 for n, one in zip(freedom, seen, strict=True))
    counted = [one for one in seen if math.isfinite(one.specific)]
    specific2 = ASSUMED_NETWORKS * USUAL_SPECIFIC**2 + sum(one.networks * one.specific**2 for one in counted)
    return SessionSpread(
        math.sqrt(common2 / (ASSUMED_SESSIONS + sum(freedom))),
        math.sqrt(specific2 / (ASSUMED_NETWORKS + sum(one.networks for one in counted))),
        sum(len(one.shifts) for one in seen),
    )


def session_variance(store: Store, target: str, rows: pd.DataFrame) -> float:
    """Return the variance that a new session adds to log-latencies predicted from rows of a target (`Store.table`).

    It is 0 for labels that were all imported: of their sessions nothing is known.
    """
    rows = with_sessions(rows[rows["selection"] != Selection.IMPORTED])
    return session_spread(store, target, rows).of_prediction(rows["session_id"]) if len(rows) else 0.0


def with_sessions(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows of `Store.table` with a column `session_id` that tells all sessions of a store apart."""
    return rows.assign(session_id=rows["campaign"].astype(str) + "/" + rows["session"].astype(str))


def repeated(rows: pd.DataFrame) -> int:
    """Return the number of networks that were measured in several sessions, given rows as for `session_spread`."""
    found = _latencies(rows)
    return 0 if found.empty else int((found.groupby("network")["session_id"].nunique() > 1).sum())


def _is_virtual(store: Store, rows: pd.DataFrame) -> bool:
    prints = rows["fingerprint_id"][rows["selection"] != Selection.IMPORTED].dropna()
    return bool(len(prints)) and bool((store.facts(str(prints.iloc[-1])).get("cpus") or {}).get("virtual"))


_NOTHING = pd.DataFrame(columns=["network", "session_id", "latency_ms", "sigma"])


def _latencies(rows: pd.DataFrame) -> pd.DataFrame:
    own = rows[rows["selection"] != Selection.IMPORTED]
    if own.empty:
        return _NOTHING
    return pd.DataFrame(
        {
            "network": own["arch"],
            "session_id": own["session_id"],
            "latency_ms": own["latency_ms"].astype(float),
            "sigma": own["stderr_ms"].astype(float) / own["latency_ms"].astype(float),
        }
    )


def _anchors(store: Store, device: str) -> dict[str, pd.DataFrame]:
    """Return the levels of the anchors of each target of a device, a row for each anchor and session."""
    found = defaultdict(list)
    for target, campaign, session in store.anchored_sessions(device, MOST_SESSIONS):
        for arch, level_ms, sigma in _levels(store.anchors(campaign, session)):
            found[target].append((f"anchor {arch}", f"{campaign}/{session}", level_ms, sigma))
    return {target: pd.DataFrame(rows, columns=list(_NOTHING)) for target, rows in found.items()}


def _levels(anchors: Iterable[RecordedAnchor]) -> list[tuple[str, float, float]]:
    """Return each anchor, its latency in ms over its readings in line, and the relative standard error of that."""
    readings = defaultdict(list)
    for one in pass_series([one for one in anchors if one.in_line], TRIM):
        readings[str(one.observation.network)].append(one.observation)
    found = []
    for arch, own in readings.items():
        logs, sigmas = (np.array([getattr(one, name) for one in own]) for name in ("log_ms", "sigma"))
        scatter = float(logs.std(ddof=1)) if len(own) > 1 else 0.0
        error = max(scatter, float(np.sqrt((sigmas**2).mean()))) / math.sqrt(len(own))
        found.append((arch, float(np.exp(logs.mean())), error))
    return found


def _between(parts: list[pd.DataFrame]) -> BetweenSessions:
    there = [part for part in parts if len(part)]
    if not there:
        return between_sessions(np.full((1, 2), np.nan), np.zeros((1, 2)))
    labels = pd.concat(there)
    columns = {
        value: labels.pivot_table(index="network", columns="session_id", values=value, aggfunc="last", dropna=False)
        for value in ("latency_ms", "sigma")
    }
    latency = columns["latency_ms"]
    latency = latency[latency.notna().sum(axis=1) > 1].dropna(axis=1, how="all")
    if latency.empty:
        return _between([])
    return between_sessions(latency.to_numpy(), columns["sigma"].reindex_like(latency).to_numpy())
