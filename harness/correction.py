"""What a session's drift did to its labels, taken out again. Raw latencies stay beside."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from latlab.agents.policy import TimingPolicy
from latlab.agents.statistics import summarise, trimmed_mean, winsorised_stderr
from latlab.harness.beyond import TimedPass
from latlab.harness.quality.drift import Drift, Point, fit_drift
from latlab.harness.quality.verdicts import PassRecord, judge, usual_clock_mhz
from latlab.harness.store import Anchor, Campaign, Label, Pass, Store

__all__ = ["correct", "record"]

LEAST_SIGMA = 1e-3
"""Relative standard error of a pass: what samples that agree by luck say is not believed."""
LONE_SIGMA = 0.02
"""Of a pass of one sample."""
RESTART_S = 1.0
"""A steady clock that goes back by more has begun anew: the device was restarted."""


class _Timed(NamedTuple):
    time_s: float
    """On one clock through all restarts of the device."""
    network: Hashable
    samples_ns: list[int]
    what: Pass | Anchor


def correct(store: Store, campaign: Campaign, session: int) -> Drift | None:
    """Fit the session's drift to its anchors and repeated networks, and divide the labels of finished rows by it.

    `raw_ms` stays what it was; where there is no drift to speak of, labels are their raw latencies. Doing it again,
    after more was measured, begins from the raw samples again.

    Returns:
        The drift; None where the session has no anchors, so that nothing is corrected.
    """
    anchors = store.anchors(campaign.id, session)
    if not anchors:
        return None
    policy = TimingPolicy(**campaign.policy)
    passes = [one for one in store.session_passes(campaign.id, session) if one.kind == "label"]
    timed = list(_on_one_clock([*anchors, *passes]))
    drift = fit_drift([_point(one, policy.trim) for one in timed])
    usual_mhz = usual_clock_mhz([one.what.telemetry for one in timed])
    records: dict[int, list[PassRecord]] = {}
    for one in timed:
        if isinstance(one.what, Pass):
            factor = math.exp(drift.log_factor(one.time_s)) if drift.significant else 1.0
            records.setdefault(one.what.measurement_id, []).append(record(one.what, one.time_s, factor))
    finished = {row.id for row in store.rows(campaign, session).values() if row.status == "ok"}
    store.relabel([_label(row_id, records[row_id], policy, usual_mhz) for row_id in records if row_id in finished])
    store.note_session(campaign.id, session, drift=drift.to_json(), drift_percent=drift.percent)
    return drift


def record(one: TimedPass, otherwise_s: float, factor: float = 1.0) -> PassRecord:
    """A pass for `judge`, its samples divided by the drift at its time.

    Args:
        otherwise_s: when it was, for devices that do not tell.
    """
    at_s = one.telemetry.get("at_s")
    samples = [round(ns / factor) for ns in one.samples_ns] if factor != 1.0 else one.samples_ns
    return PassRecord(samples, at_s if isinstance(at_s, (int, float)) else otherwise_s, one.telemetry)


def _label(row_id: int, records: Sequence[PassRecord], policy: TimingPolicy, usual_mhz: float | None) -> Label:
    summary = summarise([one.samples_ns for one in records], policy.trim)
    verdict = judge(records, policy, usual_mhz).kind
    return Label(row_id, summary.latency_ms, summary.stderr_ms, summary.low_ms, summary.high_ms, verdict)


def _point(one: _Timed, trim: float) -> Point:
    mean = max(1.0, trimmed_mean(one.samples_ns, trim))
    sigma = max(LEAST_SIGMA, winsorised_stderr(one.samples_ns, trim) / mean) if len(one.samples_ns) > 1 else LONE_SIGMA
    return Point(one.time_s, one.network, math.log(mean / 1e6), sigma)


def _on_one_clock(rows: Sequence[Pass | Anchor]) -> Iterable[_Timed]:
    """Times in the order of storing: the device's steady clock where it tells, over restarts carried on by the date."""
    ordered = sorted(rows, key=lambda row: row.at)
    offset_s = last_s = 0.0
    last_wall_s: float | None = None
    for row in ordered:
        wall_s = datetime.fromisoformat(row.at).timestamp()
        told = row.telemetry.get("at_s")
        time_s = float(told) if isinstance(told, (int, float)) else wall_s
        if last_wall_s is None:
            offset_s = -time_s
        elif time_s + offset_s < last_s - RESTART_S:
            offset_s = last_s + max(0.0, wall_s - last_wall_s) - time_s
        last_s, last_wall_s = time_s + offset_s, wall_s
        network = row.measurement_id if isinstance(row, Pass) else row.arch
        yield _Timed(last_s, network, row.samples_ns, row)
