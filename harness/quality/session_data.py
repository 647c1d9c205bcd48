"""The labels and passes that the store holds of a target and space, as tables per session, for judging them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from latlab.harness.errors import BadInputError
from latlab.harness.statistics.drift import Drift, Observation, fit_drift
from latlab.harness.statistics.pass_series import PlacedPass, pass_series
from latlab.harness.store.store import Store
from latlab.harness.store.vocabulary import Selection, Status
from latlab.harness.telemetry.readings import hottest_c
from latlab.harness.telemetry.recorded_pass import PassKind, RecordedAnchor, RecordedPass

__all__ = ["SessionData", "TargetData", "read_target_data"]

_NUMBERS = ("latency_ms", "stderr_ms", "low_ms", "high_ms", "raw_ms")
TRIM = 0.1
"""Share of a pass's samples cut at each end for the latency of that pass alone."""
PAUSE_S = 300.0
"""Seconds without an event after which a session counts as stopped and continued later."""


@dataclass(frozen=True, eq=False)
class SessionData:
    """The labels and passes of one session of one campaign."""

    campaign: str
    number: int
    """Number of the session in its campaign, from 1."""
    labels: pd.DataFrame
    """A row per network that was timed here, in the order of measuring: index `network`; columns arch, order,
    latency_ms, stderr_ms, half_width (share of the latency), raw_ms, verdict, temperature_c."""
    passes: pd.DataFrame
    """A row per pass, in the order in which they were taken: columns network, kind, time_s, log_ms, sigma,
    temperature_c."""
    anchors: pd.DataFrame
    """A row per pass of an anchor: columns network, arch, ok, time_s, log_ms, sigma, temperature_c."""
    started: datetime
    wall_s: float
    """Wall-clock seconds from the first row's start to the last one's end, without the pauses of a stopped session."""
    timing_s: float
    """Seconds of warm-up and samples of its networks and anchors."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Facts of the session as a whole (`Store.session_facts`)."""

    @cached_property
    def drift(self) -> Drift:
        """The drift with which the labels were corrected; if the store has none, it is fitted to the passes."""
        noted = self.facts.get("drift")
        if noted:
            return Drift.from_json(noted)
        runs = pd.concat([self.passes[self.passes["kind"] == PassKind.LABEL], self.anchors])
        return fit_drift(
            [Observation(*row) for row in runs[["time_s", "network", "log_ms", "sigma"]].itertuples(index=False)]
        )

    def anchor_levels(self) -> pd.DataFrame:
        """Return each anchor's latency in this session, without the drift.

        Returns:
            A row per anchor: latency_ms, and error, its standard error as a share of it.
        """
        runs = self.anchors[self.anchors["ok"].astype(bool)]
        runs = runs.assign(log_ms=runs["log_ms"] - self.drift.log_factor(runs["time_s"].to_numpy(float)))
        found = runs.groupby("network")["log_ms"].agg(["mean", "sem"])
        return pd.DataFrame({"latency_ms": np.exp(found["mean"]), "error": found["sem"]})

    def removed_percent(self) -> float | None:
        """Return by how many percent the largest drift correction exceeds the smallest, or None if there is none."""
        factors = (self.labels["raw_ms"] / self.labels["latency_ms"]).dropna()
        corrected = ((factors - 1).abs() > 1e-9).any()
        return 100 * (float(factors.max()) / float(factors.min()) - 1) if corrected else None


@dataclass(frozen=True, eq=False)
class TargetData:
    """All comparable measurements of one target and space, by session."""

    target: str
    space: str
    simulated: bool
    as_written: bool
    """True if networks were exported as published: with edges that lead nowhere, and the long forms of operations."""
    policies: tuple[str, ...]
    """Names of their one timing policy."""
    rows: pd.DataFrame
    """The measurements as `Store.table` gives them, failures included."""
    others: int
    """Number of finished rows that are left out: another timing policy or way of exporting made them, or they were
    imported."""
    imported: bool
    """True if the labels were imported by the user, so that nothing is known of how they were timed."""
    sessions: tuple[SessionData, ...]
    """Sessions in which at least one network was timed, the oldest first."""

    def latencies(self) -> pd.DataFrame:
        """Return labels in ms, shape (networks, sessions); NaN where a session did not time a network."""
        return pd.DataFrame({at: one.labels["latency_ms"] for at, one in enumerate(self.sessions)})

    def errors(self) -> pd.DataFrame:
        """Return the standard errors of `latencies` as shares of them; the same shape."""
        return pd.DataFrame(
            {at: one.labels["stderr_ms"] / one.labels["latency_ms"] for at, one in enumerate(self.sessions)}
        )


def read_target_data(store: Store, target: str, space: str) -> TargetData:
    """Return the comparable rows of a target and space.

    All have one timing policy and one way of exporting: the combination with most finished rows. Imported labels are
    left out if there are others.

    Raises:
        BadInputError: if nothing has been measured, or everything failed.
    """
    everything = store.table(target=target, space=space)
    finished = everything[(everything["status"] == Status.OK) & (everything["latency_ms"] > 0)]
    if finished.empty:
        failed = f": all {len(everything)} networks failed" if len(everything) else ""
        raise BadInputError(
            f"the store {store.path} has no labels of {target} in {space}{failed}",
            f"`latlab show {store.path}` lists what it has, and why networks failed.",
        )
    brought = int((finished["selection"] == Selection.IMPORTED).sum())
    if 0 < brought < len(finished):  # only what was measured here can be judged
        everything = everything[everything["selection"] != Selection.IMPORTED]
        finished = finished[finished["selection"] != Selection.IMPORTED]
        left_out = brought
    else:
        left_out = 0
    kind = ["policy_hash", "as_written"]
    which, alike = max(finished.groupby(kind, sort=False), key=lambda group: len(group[1]))
    rows = everything[(everything[kind] == list(which)).all(axis=1)]
    names = _networks(alike)
    sessions = []
    for _, own in alike.groupby(["campaign", "session"], sort=False):
        timed = own[own["same_graph_as"].isna()]
        if len(timed):
            sessions.append(_session_data(store, own, timed, names))
    return TargetData(
        target,
        space,
        bool(alike["simulated"].any()),
        bool(alike["as_written"].iloc[0]),
        tuple(dict.fromkeys(alike["policy"])),
        rows,
        len(finished) - len(alike) + left_out,
        bool(brought) and not left_out,
        tuple(sorted(sessions, key=lambda one: one.started)),
    )


def _networks(rows: pd.DataFrame) -> dict[str, str]:
    """Map each architecture to one name for all whose exported files were the same in some session.

    Which of them was timed, and which only copied, is chance.
    """
    names = {arch: arch for arch in rows["arch"]}
    for _ in range(2):  # twice: a newer exporter may write other files, whose groups join through their architectures
        for _, same in rows.groupby("artifact_sha256", sort=False)["arch"]:
            first = min(names[arch] for arch in same)
            names.update(dict.fromkeys(same, first))
    return names


def _session_data(store: Store, own: pd.DataFrame, timed: pd.DataFrame, names: Mapping[str, str]) -> SessionData:
    campaign, number = str(own["campaign"].iloc[0]), int(own["session"].iloc[0])
    stored = store.session_passes(campaign, number)
    anchors = store.anchors(campaign, number)
    of = {int(row): names[arch] for row, arch in zip(own["id"], own["arch"], strict=True)}
    series = pass_series([*stored, *anchors], TRIM)
    passes = pd.DataFrame(
        [
            {"network": of[one.recorded.measurement_id], "kind": str(one.recorded.kind), **_columns(one)}
            for one in series
            if not isinstance(one.recorded, RecordedAnchor) and one.recorded.measurement_id in of
        ],
        columns=["network", "kind", "time_s", "log_ms", "sigma", "temperature_c"],
    )
    anchor_runs = pd.DataFrame(
        [
            {
                "network": f"anchor {one.recorded.arch}",
                "arch": one.recorded.arch,
                "ok": one.recorded.in_line,
                **_columns(one),
            }
            for one in series
            if isinstance(one.recorded, RecordedAnchor)
        ],
        columns=["network", "arch", "ok", "time_s", "log_ms", "sigma", "temperature_c"],
    )
    labels = timed.assign(network=timed["arch"].map(names)).drop_duplicates("network").set_index("network")
    labels = labels.sort_values("order", kind="stable").astype(dict.fromkeys(_NUMBERS, float))
    labels["half_width"] = (labels["high_ms"] - labels["low_ms"]) / 2 / labels["latency_ms"]
    heat = passes[passes["kind"] == PassKind.LABEL].groupby("network")["temperature_c"].mean()
    labels["temperature_c"] = heat.reindex(labels.index)
    started = pd.to_datetime(own["started_at"], format="ISO8601")
    finished = pd.to_datetime(own["finished_at"], format="ISO8601")
    at = pd.to_datetime(pd.Series([one.recorded.at for one in series], dtype=object), format="ISO8601")
    return SessionData(
        campaign,
        number,
        labels[["arch", "order", "latency_ms", "stderr_ms", "half_width", "raw_ms", "verdict", "temperature_c"]],
        passes,
        anchor_runs,
        started.min().to_pydatetime(),
        _without_pauses(pd.concat([started, finished, at]).dropna()),
        sum(one.recorded.busy_s for one in series),
        store.session_facts(campaign, number),
    )


def _without_pauses(moments: pd.Series) -> float:
    steps = moments.sort_values().diff().dt.total_seconds()
    return float(steps[steps < PAUSE_S].sum())


def _columns(one: PlacedPass) -> dict[str, float | None]:
    return {
        "time_s": one.time_s,
        "log_ms": one.observation.log_ms,
        "sigma": one.observation.sigma,
        "temperature_c": _temperature_c(one.recorded),
    }


def _temperature_c(one: RecordedPass) -> float | None:
    """Return the mean of the hottest sensor's temperature before and after the pass, or None."""
    found = [hottest_c(one.telemetry.get(when)) for when in ("before", "after")]
    known = [celsius for celsius in found if celsius is not None]
    return sum(known) / len(known) if known else None
