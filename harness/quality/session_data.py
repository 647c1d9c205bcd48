"""What the store holds of a target and space, laid out for judging it: labels and passes, sitting by sitting."""

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
from latlab.harness.store.vocabulary import Status
from latlab.harness.telemetry.readings import hottest_c
from latlab.harness.telemetry.recorded_pass import PassKind, RecordedAnchor, RecordedPass

__all__ = ["Records", "Sitting", "read_records"]

_NUMBERS = ("latency_ms", "stderr_ms", "low_ms", "high_ms", "raw_ms")
TRIM = 0.1
"""Of a pass's samples, at each end, where a pass stands for itself."""
PAUSE_S = 300.0
"""Between two passes of a sitting nothing takes so long: it was stopped, and gone on with later."""


@dataclass(frozen=True, eq=False)
class Sitting:
    """One session of one campaign.

    `labels`: a row per network that was timed here, in the order of measuring (index `network`; columns arch, order,
    latency_ms, stderr_ms, half_width, raw_ms, verdict, temperature_c). `passes`: a row per pass, in the order in which
    they were taken (columns network, kind, time_s, log_ms, sigma, temperature_c).
    """

    campaign: str
    number: int
    labels: pd.DataFrame
    passes: pd.DataFrame
    anchors: pd.DataFrame
    """A row per run of an anchor: arch, ok, and as `passes`."""
    started: datetime
    wall_s: float
    """From the first row's start to the last one's end, without the pauses of a sitting that was stopped."""
    timing_s: float
    """Warm-up and samples of its networks and anchors."""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def drift(self) -> Drift:
        """The session's own, as it was when its labels were corrected; else, from its passes now."""
        noted = self.facts.get("drift")
        if noted:
            return Drift.from_json(noted)
        runs = pd.concat([self.passes[self.passes["kind"] == PassKind.LABEL], self.anchors])
        return fit_drift(
            [Observation(*row) for row in runs[["time_s", "network", "log_ms", "sigma"]].itertuples(index=False)]
        )

    def anchor_levels(self) -> pd.DataFrame:
        """Each anchor's latency_ms in this sitting, without the drift, and its relative standard error."""
        runs = self.anchors[self.anchors["ok"].astype(bool)]
        runs = runs.assign(log_ms=runs["log_ms"] - self.drift.log_factor(runs["time_s"].to_numpy(float)))
        found = runs.groupby("network")["log_ms"].agg(["mean", "sem"])
        return pd.DataFrame({"latency_ms": np.exp(found["mean"]), "error": found["sem"]})

    def removed_percent(self) -> float | None:
        """From the least to the largest correction of a label; None where labels are as measured."""
        factors = (self.labels["raw_ms"] / self.labels["latency_ms"]).dropna()
        corrected = ((factors - 1).abs() > 1e-9).any()
        return 100 * (float(factors.max()) / float(factors.min()) - 1) if corrected else None


@dataclass(frozen=True, eq=False)
class Records:
    """All comparable measurements of one target and space."""

    target: str
    space: str
    simulated: bool
    as_written: bool
    policies: tuple[str, ...]
    rows: pd.DataFrame
    """As `Store.table`, failures included."""
    others: int
    """Finished rows that are left out: their timing policy or way of exporting is another."""
    sittings: tuple[Sitting, ...]
    """Those in which at least one network was timed, the oldest first."""

    def latencies(self) -> pd.DataFrame:
        """Labels in ms: a row per network that was timed, a column per sitting, NaN where it was not."""
        return pd.DataFrame({at: one.labels["latency_ms"] for at, one in enumerate(self.sittings)})

    def errors(self) -> pd.DataFrame:
        """Standard errors of `latencies`, as shares of them; the same shape."""
        return pd.DataFrame(
            {at: one.labels["stderr_ms"] / one.labels["latency_ms"] for at, one in enumerate(self.sittings)}
        )


def read_records(store: Store, target: str, space: str) -> Records:
    """The comparable rows of a target and space: of one timing policy and way of exporting, those with most rows.

    Raises:
        BadInputError: where nothing has been measured there, or everything failed.
    """
    everything = store.table(target=target, space=space)
    finished = everything[(everything["status"] == Status.OK) & (everything["latency_ms"] > 0)]
    if finished.empty:
        failed = f": all {len(everything)} networks failed" if len(everything) else ""
        raise BadInputError(
            f"the store {store.path} has no labels of {target} in {space}{failed}",
            f"`latlab show {store.path}` lists what it has, and why networks failed.",
        )
    kind = ["policy_hash", "as_written"]
    which, alike = max(finished.groupby(kind, sort=False), key=lambda group: len(group[1]))
    rows = everything[(everything[kind] == list(which)).all(axis=1)]
    names = _networks(alike)
    sittings = []
    for _, own in alike.groupby(["campaign", "session"], sort=False):
        timed = own[own["same_graph_as"].isna()]
        if len(timed):
            sittings.append(_sitting(store, own, timed, names))
    return Records(
        target,
        space,
        bool(alike["simulated"].any()),
        bool(alike["as_written"].iloc[0]),
        tuple(dict.fromkeys(alike["policy"])),
        rows,
        len(finished) - len(alike),
        tuple(sorted(sittings, key=lambda one: one.started)),
    )


def _networks(rows: pd.DataFrame) -> dict[str, str]:
    """One name for all architectures whose exported files were the same in some session: which of them was timed, and
    which only copied, is chance."""
    names = {arch: arch for arch in rows["arch"]}
    for _ in range(2):  # files that differ only between sessions (a new exporter) join what they have in common
        for _, same in rows.groupby("artifact_sha256", sort=False)["arch"]:
            first = min(names[arch] for arch in same)
            names.update(dict.fromkeys(same, first))
    return names


def _sitting(store: Store, own: pd.DataFrame, timed: pd.DataFrame, names: Mapping[str, str]) -> Sitting:
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
    return Sitting(
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
