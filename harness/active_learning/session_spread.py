"""How labels differ from one measurement session of a device to the next, beyond their error bars.

All labels of one session may be too high or too low together: clocks, heat, other programs, where memory happens to
lie. No error bar of that session can say so, and no leave-one-out error either; a later session shows it. Networks that
were measured in several sessions show it, and anchors, which every session times.

So labels of several sessions are brought to one level before a predictor learns from them: each session's are divided
by how much slower it was than the mean of all. What a session to come will be like is not known: intervals of
predictions, and the probability that a limit is kept, have a deviation between sessions of their own. Few sessions show
it poorly, therefore an assumption stands beside them, as if it had been seen in some sessions already: the mean of a
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
    "USUAL_COMMON", "VIRTUAL_COMMON", "SessionSpread", "on_one_level", "repeated", "session_spread",
    "session_variance", "with_sessions",
]  # fmt: skip

USUAL_COMMON, VIRTUAL_COMMON, USUAL_SPECIFIC = 0.03, 0.06, 0.01
"""Relative deviations that are assumed as long as there is one session; the second of a virtual machine, whose sessions
differ by 4 to 6 % because of neighbours that it cannot see (benchmarks/RESULTS.md)."""
ASSUMED_SESSIONS, ASSUMED_NETWORKS = 2.0, 2.0
"""Sessions, and networks in two sessions, that weigh as much as those assumptions."""
MOST_SESSIONS = 60
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
    """Sessions of the device in which they were seen; 0 if they are only assumed."""
    of_target: int = 0
    """Those of the target itself."""

    @property
    def total(self) -> float:
        """The deviation of one label."""
        return math.hypot(self.common, self.specific)

    def of_prediction(self) -> float:
        """Return the variance that a new session adds to log-latencies that are predicted from labels on one level.

        It is common^2 (1 + 1 / sessions), because the level is the mean of those sessions. What is specific to a label
        is part of the noise that a predictor finds.
        """
        return self.common**2 * (1 + 1 / max(self.of_target, 1))


@dataclass(frozen=True)
class _Sessions:
    """Sessions of one target that have networks or anchors in common, and how they differ."""

    ids: tuple[str, ...]
    found: BetweenSessions

    @property
    def are_compared(self) -> bool:
        return math.isfinite(self.found.common)


def session_spread(store: Store, target: str, rows: pd.DataFrame) -> SessionSpread:
    """Return how labels of a target differ between sessions, by its own repeated networks and its device's anchors.

    Args:
        rows: labels of the target (`Store.table`) with the columns `session_id` and `fingerprint_id`; those that were
            imported do not count.
    """
    usual_common = VIRTUAL_COMMON if _is_virtual(store, rows) else USUAL_COMMON
    own, *others = _of_device(store, target, rows)
    seen = [one for one in (own, *others) if one.are_compared]
    freedom = sum(len(one.ids) - 1 for one in seen)
    common2 = sum((len(one.ids) - 1) * one.found.common**2 for one in seen)
    counted = [one.found for one in seen if math.isfinite(one.found.specific)]
    specific2 = sum(one.networks * one.specific**2 for one in counted)
    networks = sum(one.networks for one in counted)
    return SessionSpread(
        math.sqrt((ASSUMED_SESSIONS * usual_common**2 + common2) / (ASSUMED_SESSIONS + freedom)),
        math.sqrt((ASSUMED_NETWORKS * USUAL_SPECIFIC**2 + specific2) / (ASSUMED_NETWORKS + networks)),
        sum(len(one.ids) for one in seen),
        len(own.ids),
    )


def session_variance(store: Store, target: str, rows: pd.DataFrame) -> float:
    """Return the variance that a new session adds to log-latencies predicted from `on_one_level` rows of a target.

    It is 0 for labels that were all imported: of their sessions nothing is known.
    """
    rows = with_sessions(rows[rows["selection"] != Selection.IMPORTED])
    return session_spread(store, target, rows).of_prediction() if len(rows) else 0.0


def on_one_level(store: Store, target: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Return labels of a target without what those of a session have in common: on the level of the mean session.

    A session's shift is shrunk towards 0 by how uncertain it is. Labels that were imported stay as they are, and so do
    all of them where sessions do not differ by more than their errors.

    Args:
        rows: latencies of the target (`Store.table`).
    """
    if rows.empty:
        return rows
    rows = with_sessions(rows)
    own, *_ = _of_device(store, target, rows, others=False)
    if not own.are_compared or own.found.common == 0:
        return rows
    certain = own.found.common**2 / (own.found.common**2 + own.found.errors**2)
    shifts = dict(zip(own.ids, (certain * own.found.shifts).tolist(), strict=True))
    factor = np.exp(-rows["session_id"].map(shifts).fillna(0.0).to_numpy(float))
    factor = np.where(rows["selection"] == Selection.IMPORTED, 1.0, factor)
    return rows.assign(**{name: rows[name].astype(float) * factor for name in ("latency_ms", "stderr_ms")})


def with_sessions(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows of `Store.table` with a column `session_id` that tells all sessions of a store apart."""
    return rows.assign(session_id=rows["campaign"].astype(str) + "/" + rows["session"].astype(str))


def repeated(rows: pd.DataFrame) -> int:
    """Return the number of networks that were measured in several sessions, given rows as for `session_spread`."""
    found = _networks(rows)
    return 0 if found.empty else int((found.groupby("network")["session_id"].nunique() > 1).sum())


def _is_virtual(store: Store, rows: pd.DataFrame) -> bool:
    prints = rows["fingerprint_id"][rows["selection"] != Selection.IMPORTED].dropna()
    return bool(len(prints)) and bool((store.facts(str(prints.iloc[-1])).get("cpus") or {}).get("virtual"))


_COLUMNS = ["network", "session_id", "latency_ms", "sigma"]


def _of_device(store: Store, target: str, rows: pd.DataFrame, *, others: bool = True) -> list[_Sessions]:
    """Return the sessions of a target, and, if asked for, those of the device's other targets, each by itself."""
    anchors = _anchors(store, target.split("/")[0], None if others else target)
    own = [_networks(rows), anchors.pop(target, pd.DataFrame(columns=_COLUMNS))]
    return [_compared(own), *(_compared([one]) for one in anchors.values())]


def _networks(rows: pd.DataFrame) -> pd.DataFrame:
    own = rows[rows["selection"] != Selection.IMPORTED]
    latency_ms = own["latency_ms"].astype(float)
    network = own["space"].astype(str) + " " + own["arch"].astype(str)
    columns = (network, own["session_id"], latency_ms, own["stderr_ms"].astype(float) / latency_ms)
    return pd.DataFrame(dict(zip(_COLUMNS, columns, strict=True)))


def _anchors(store: Store, device: str, only: str | None) -> dict[str, pd.DataFrame]:
    """Return the levels of the anchors of each target of a device, a row for each anchor and session."""
    found = defaultdict(list)
    for target, campaign, session in store.anchored_sessions(device, MOST_SESSIONS):
        if only in (None, target):
            for arch, level_ms, sigma in _levels(store.anchors(campaign, session)):
                found[target].append((f"anchor {arch}", f"{campaign}/{session}", level_ms, sigma))
    return {target: pd.DataFrame(rows, columns=_COLUMNS) for target, rows in found.items()}


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


def _compared(parts: list[pd.DataFrame]) -> _Sessions:
    labels = pd.concat([part for part in parts if len(part)] or parts[:1])
    latency, sigma = (
        labels.pivot_table(index="network", columns="session_id", values=value, aggfunc="last", dropna=False)
        if len(labels)
        else pd.DataFrame()
        for value in ("latency_ms", "sigma")
    )
    latency = latency[latency.notna().sum(axis=1) > 1].dropna(axis=1, how="all")
    if latency.empty:
        return _Sessions((), between_sessions(np.full((1, 2), np.nan), np.zeros((1, 2))))
    found = between_sessions(latency.to_numpy(), sigma.reindex_like(latency).to_numpy())
    return _Sessions(tuple(map(str, latency.columns)), found)
