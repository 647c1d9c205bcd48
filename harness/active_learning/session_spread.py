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

__all__ = ["USUAL_COMMON", "VIRTUAL_COMMON", "ComparedSessions", "SessionSpread", "repeated", "with_sessions"]

USUAL_COMMON, VIRTUAL_COMMON, USUAL_SPECIFIC = 0.03, 0.06, 0.01
"""Relative deviations that are assumed as long as there is one session; the second of a virtual machine, whose sessions
differ by 4 to 6 % because of neighbours that it cannot see (benchmarks/RESULTS.md)."""
ASSUMED_SESSIONS, ASSUMED_NETWORKS = 2.0, 2.0
"""Sessions, and networks in two sessions, that weigh as much as those assumptions."""
MOST_SESSIONS = 60
"""Most sessions of the target, the latest ones, whose anchors are read."""
MOST_OF_OTHERS = 12
"""Most sessions of each other target of its device."""
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


class ComparedSessions:
    """The sessions of a target, compared once: they bring labels to one level, and say what another session adds.

    Args:
        store: holds the anchors of all sessions of the device.
        target: the target.
        rows: labels of the target as they were measured (`Store.table`), with the column `fingerprint_id` if `spread`
            is asked for. Those that were imported do not count.
    """

    def __init__(self, store: Store, target: str, rows: pd.DataFrame) -> None:
        self._store, self._rows = store, with_sessions(rows)
        self._others: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for name, campaign, number in store.anchored_sessions(target.split("/")[0], MOST_SESSIONS):
            self._others[name].append((campaign, number))
        self._own = _compared([_networks(self._rows), self._anchors(self._others.pop(target, []))])

    def on_one_level(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return labels of the target without what those of a session have in common: on the level of the mean session.

        A session's shift is shrunk towards 0 by how uncertain it is. Labels that were imported stay as they are, and so
        do all of them where sessions do not differ by more than their errors.
        """
        found = self._own.found
        if rows.empty or not self._own.are_compared or found.common == 0:
            return rows
        certain = found.common**2 / (found.common**2 + found.errors**2)
        shifts = dict(zip(self._own.ids, (certain * found.shifts).tolist(), strict=True))
        factor = np.exp(-with_sessions(rows)["session_id"].map(shifts).fillna(0.0).to_numpy(float))
        factor = np.where(rows["selection"] == Selection.IMPORTED, 1.0, factor)
        return rows.assign(**{name: rows[name].astype(float) * factor for name in ("latency_ms", "stderr_ms")})

    def spread(self) -> SessionSpread:
        """Return how labels differ between sessions, by the target's networks and the anchors of its whole device."""
        usual_common = VIRTUAL_COMMON if _is_virtual(self._store, self._rows) else USUAL_COMMON
        # Other targets show what the device does; their latest sessions are enough for that.
        others = [_compared([self._anchors(sessions[:MOST_OF_OTHERS])]) for sessions in self._others.values()]
        seen = [one for one in (self._own, *others) if one.are_compared]
        freedom = sum(len(one.ids) - 1 for one in seen)
        common2 = sum((len(one.ids) - 1) * one.found.common**2 for one in seen)
        counted = [one.found for one in seen if math.isfinite(one.found.specific)]
        specific2 = sum(one.networks * one.specific**2 for one in counted)
        networks = sum(one.networks for one in counted)
        return SessionSpread(
            math.sqrt((ASSUMED_SESSIONS * usual_common**2 + common2) / (ASSUMED_SESSIONS + freedom)),
            math.sqrt((ASSUMED_NETWORKS * USUAL_SPECIFIC**2 + specific2) / (ASSUMED_NETWORKS + networks)),
            sum(len(one.ids) for one in seen),
            len(self._own.ids),
        )

    def variance(self, rows: pd.DataFrame) -> float:
        """Return the variance that another session adds to log-latencies predicted from such rows on one level.

        It is 0 if they were all imported: of their sessions nothing is known.
        """
        return self.spread().of_prediction() if (rows["selection"] != Selection.IMPORTED).any() else 0.0

    def _anchors(self, sessions: Iterable[tuple[str, int]]) -> pd.DataFrame:
        """Return the levels of the anchors of sessions of one target, a row for each anchor and session."""
        rows = [
            (f"anchor {arch}", f"{campaign}/{number}", level_ms, sigma)
            for campaign, number in sessions
            for arch, level_ms, sigma in _levels(self._store.anchors(campaign, number))
        ]
        return pd.DataFrame(rows, columns=_COLUMNS)


def with_sessions(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows of `Store.table` with a column `session_id` that tells all sessions of a store apart."""
    return rows.assign(session_id=rows["campaign"].astype(str) + "/" + rows["session"].astype(str))


def repeated(rows: pd.DataFrame) -> int:
    """Return the number of networks that were measured in several sessions, given rows with sessions."""
    found = _networks(rows)
    return 0 if found.empty else int((found.groupby("network")["session_id"].nunique() > 1).sum())


def _is_virtual(store: Store, rows: pd.DataFrame) -> bool:
    prints = rows["fingerprint_id"][rows["selection"] != Selection.IMPORTED].dropna()
    return bool(len(prints)) and bool((store.facts(str(prints.iloc[-1])).get("cpus") or {}).get("virtual"))


_COLUMNS = ["network", "session_id", "latency_ms", "sigma"]


def _networks(rows: pd.DataFrame) -> pd.DataFrame:
    own = rows[rows["selection"] != Selection.IMPORTED]
    latency_ms = own["latency_ms"].astype(float)
    network = own["space"].astype(str) + " " + own["arch"].astype(str)
    columns = (network, own["session_id"], latency_ms, own["stderr_ms"].astype(float) / latency_ms)
    return pd.DataFrame(dict(zip(_COLUMNS, columns, strict=True)))


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
